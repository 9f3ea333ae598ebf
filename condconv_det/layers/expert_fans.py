"""Initialisation of experts: each with the fans of one kernel.

torch.nn.init takes the fans of a weight from its first two axes; here the experts' axis comes
first. Every initialiser that reaches a detector's layers (nn.Conv2d's own, mmcv's ConvModule,
mmengine's `init_cfg`) ends in that one function, so it is taught about experts here, and each
expert starts with the statistics of the plain kernel whose place it takes.
"""

from torch import Tensor, nn
from torch.nn import init


# A mark rather than a subclass of nn.Parameter, which torch 2.1 does not compile.
def mark_expert_axis(weight: nn.Parameter) -> nn.Parameter:
    """The same weight, [E, Cout, ...], known to torch.nn.init as E kernels."""
    weight.has_expert_axis = True
    return weight


def has_expert_axis(weight: Tensor) -> bool:
    """Whether a weight is E kernels, those of a routed layer."""
    return getattr(weight, 'has_expert_axis', False)


_plain_fans = init._calculate_fan_in_and_fan_out


def _fans_of_one_kernel(tensor: Tensor) -> tuple[int, int]:
    return _plain_fans(tensor[0] if has_expert_axis(tensor) else tensor)


init._calculate_fan_in_and_fan_out = _fans_of_one_kernel
