"""Tests by each kernel that can compute a layer, whichever `choose_kernel` would take."""

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

from condconv_det.ops.kernels import (
    GroupedConv,
    GroupedPatches,
    Matmul,
    MixedOutputs,
    MixedProducts,
    OneByOne,
)

# of which the package exports the function of the same name
MODULE = importlib.import_module('condconv_det.ops.cond_conv2d')

# made of stride, padding, dilation and groups
KERNELS = {
    'grouped': GroupedConv,
    'grouped, padded': lambda *geometry: GroupedConv(*geometry, spare=3),
    'one by one': lambda *geometry: OneByOne(*geometry[:3], examples=2),
    'matmul': lambda *geometry: Matmul(*geometry[:3]),
    'matmul in blocks': lambda *geometry: Matmul(*geometry[:3], block=2),
    'outputs': MixedOutputs,
    'products': lambda *geometry: MixedProducts(*geometry[:3]),
    'patches': GroupedPatches,
}
# of each kind of layer; None leaves the choice
PATHS = {
    'pointwise': [
        *(None, 'grouped', 'one by one'),
        *('matmul', 'matmul in blocks', 'outputs', 'products'),
    ],
    'dense': [
        *(None, 'grouped', 'grouped, padded', 'one by one'),
        *('matmul', 'matmul in blocks', 'outputs', 'products', 'patches'),
    ],
    'grouped': [None, 'grouped', 'outputs', 'patches'],
    'depthwise': [None, 'grouped', 'outputs', 'patches'],
}
ALL_PATHS = [(kind, path) for kind, paths in PATHS.items() for path in paths]


@contextmanager
def forced(path: str | None) -> Iterator[None]:
    """Computes by this kernel."""
    if path is None:
        yield
        return
    with (
        patch.object(
            MODULE, 'choose_kernel', side_effect=lambda x, weight, *how: KERNELS[path](*how)
        ),
        patch.dict(MODULE._plans, clear=True),
    ):
        yield
