"""The parameter that holds the experts, and its initialisation.

torch.nn.init takes the fans of a weight from its first two axes; here the experts' axis comes
first. Every initialiser that reaches a detector's layers (nn.Conv2d's own, mmcv's ConvModule,
mmengine's `init_cfg`) ends in that one function, so it is taught about experts here, and each
expert starts with the statistics of the plain kernel whose place it takes.
"""

from torch import Tensor, nn
from torch.nn import init


class ExpertKernels(nn.Parameter):
    """[E, Cout, Cin/groups, kh, kw]: one kernel per expert, with the fans of one kernel."""


_plain_fans = init._calculate_fan_in_and_fan_out


def _fans_of_one_kernel(tensor: Tensor) -> tuple[int, int]:
    return _plain_fans(tensor[0] if type(tensor) is ExpertKernels else tensor)


init._calculate_fan_in_and_fan_out = _fans_of_one_kernel
