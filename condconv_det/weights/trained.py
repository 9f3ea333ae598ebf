"""Checkpoints to run a network with, which are its own or an error."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from mmdet.models.dense_heads import AnchorFreeHead
from torch import Tensor, nn

from condconv_det.compat.checkpoints import CheckpointError

from .files import read_checkpoint
from .fit import listing


def read_trained(network: nn.Module, path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A checkpoint's weights and `meta`, if it is of this very network: each name, each shape.

    Static kernels, which load into experts to be trained on, are refused: routers that nobody
    trained tell nothing. Buffers that the network has and does not save, as the means of pixels in
    older files of MMDetection, are left out, and names that FCOS and its like have changed are
    those of this day.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged, or it lists, up to ten of each kind, what does not
            fit.
    """
    weights, meta = read_checkpoint(Path(path))
    unsaved = {name for name, _ in network.named_buffers()} - network.state_dict().keys()
    weights = {name: value for name, value in weights.items() if name not in unsaved}
    for name, head in network.named_modules():
        if isinstance(head, AnchorFreeHead):  # changes names of older files, such as fcos_cls
            head._load_from_state_dict(weights, f'{name}.', {}, False, [], [], [])
    check_own(network, weights, path)
    return weights, meta


def check_own(network: nn.Module, weights: Mapping[str, Tensor], path: Path | str) -> None:
    """Checks that weights are of this very network: each name, each shape.

    Raises:
        CheckpointError: it lists, up to ten of each kind, what does not fit.
    """
    own = network.state_dict()
    misfits = {
        'it lacks': own.keys() - weights.keys(),
        'the network has no': weights.keys() - own.keys(),
        'shapes differ in': {
            key for key in own.keys() & weights.keys() if own[key].shape != weights[key].shape
        },
    }
    raise_misfits(network, misfits, path)


def raise_misfits(
    network: nn.Module, misfits: Mapping[str, Collection[str]], path: Path | str
) -> None:
    """Raises CheckpointError if there are any names; it lists up to ten for each reason."""
    reasons = [f'{kind} {listing(keys)}' for kind, keys in misfits.items() if keys]
    if reasons:
        raise CheckpointError(
            f'checkpoint {path} does not fit {type(network).__name__} of the config: '
            + '; '.join(reasons)
        )
