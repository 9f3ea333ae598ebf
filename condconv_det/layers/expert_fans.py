"""Initialisation of experts: each with the fans of one kernel.

torch.nn.init takes the fans of a weight from its first two axes; here the experts' axis comes
first. Every initialiser that reaches a detector's layers (nn.Conv2d's own, mmcv's ConvModule,
mmengine's `init_cfg`) ends in that one function. While they run it is told of experts, so that each
expert starts with the statistics of the plain kernel whose place it takes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

from torch import Tensor, nn
from torch.nn import init


# A mark rather than a subclass of nn.Parameter, which torch 2.1 does not compile.
def mark_expert_axis(weight: nn.Parameter) -> nn.Parameter:
    """The same weight, [E, Cout, ...], known as E kernels."""
    weight.has_expert_axis = True
    return weight


def has_expert_axis(weight: Tensor) -> bool:
    """Whether a weight is E kernels, those of a routed layer."""
    return getattr(weight, 'has_expert_axis', False)


@contextmanager
def expert_fans() -> Iterator[None]:
    """Within it `torch.nn.init` takes the fans of a routed layer's weight from one of its kernels.

    The layers' own `reset_parameters`, mmengine's `init_weights` and mmcv's `ConvModule` enter it;
    initialisers of one's own need it: `with expert_fans(): net.apply(initialise)`. All other
    weights, those that other threads initialise meanwhile too, keep their fans.
    """
    with _lock:
        _entered.append(None)
        init._calculate_fan_in_and_fan_out = _fans_of_one_kernel
    try:
        yield
    finally:
        with _lock:
            _entered.pop()
            if not _entered:
                init._calculate_fan_in_and_fan_out = _plain_fans


_lock = Lock()
_entered: list[None] = []  # one for each context that is open, in any thread
_plain_fans = init._calculate_fan_in_and_fan_out


def _fans_of_one_kernel(tensor: Tensor) -> tuple[int, int]:
    return _plain_fans(tensor[0] if has_expert_axis(tensor) else tensor)
