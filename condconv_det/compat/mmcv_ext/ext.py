"""The module that is imported as `mmcv._ext`: operators by mmcv 2.1.0's names and signatures."""

from collections.abc import Callable
from typing import NoReturn

from condconv_det.compat.mmcv_ext.deform_conv import (
    deform_conv_backward_input,
    deform_conv_backward_parameters,
    deform_conv_forward,
    modulated_deform_conv_backward,
    modulated_deform_conv_forward,
)
from condconv_det.compat.mmcv_ext.focal_loss import (
    sigmoid_focal_loss_backward,
    sigmoid_focal_loss_forward,
    softmax_focal_loss_backward,
    softmax_focal_loss_forward,
)
from condconv_det.compat.mmcv_ext.nms import nms, nms_match, softnms
from condconv_det.compat.mmcv_ext.roi_align import roi_align_backward, roi_align_forward
from condconv_det.compat.mmcv_ext.roi_pool import roi_pool_backward, roi_pool_forward

__all__ = [
    'deform_conv_backward_input',
    'deform_conv_backward_parameters',
    'deform_conv_forward',
    'get_compiler_version',
    'get_compiling_cuda_version',
    'modulated_deform_conv_backward',
    'modulated_deform_conv_forward',
    'nms',
    'nms_match',
    'roi_align_backward',
    'roi_align_forward',
    'roi_pool_backward',
    'roi_pool_forward',
    'sigmoid_focal_loss_backward',
    'sigmoid_focal_loss_forward',
    'softmax_focal_loss_backward',
    'softmax_focal_loss_forward',
    'softnms',
]


def get_compiler_version() -> str:
    """What `mmcv.utils.collect_env` prints as mmcv's compiler."""
    return 'n/a'


def get_compiling_cuda_version() -> str:
    """What `mmcv.utils.collect_env` prints as mmcv's CUDA compiler."""
    return 'n/a'


def __getattr__(name: str) -> Callable[..., NoReturn]:
    # mmcv asserts at import that every operator exists, long before anybody calls one: a missing
    # operator has to look present and to fail when it is called.
    if name.startswith('_'):
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

    def missing_op(*args: object, **kwargs: object) -> NoReturn:
        raise NotImplementedError(
            f"the mmcv operator '{name}' needs a compiled mmcv: mmcv-lite is installed, and "
            f"condconv_det replaces only some operators with torchvision's. To get '{name}', run "
            '`pip uninstall mmcv-lite`, then either `mim install mmcv==2.1.0` (a wheel by '
            'OpenMMLab, where one matches your PyTorch and CUDA) or `pip install mmcv==2.1.0` '
            '(builds from source).'
        )

    missing_op.__name__ = missing_op.__qualname__ = name
    return missing_op
