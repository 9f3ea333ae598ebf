import pytest
import torch
from mmcv.cnn.bricks import Conv2dAdaptivePadding

from condconv_det.ops import cond_conv2d, same_padding


@pytest.mark.parametrize('size', [(300, 150), (19, 10), (7, 4), (1, 2)])
@pytest.mark.parametrize('kernel_size', [1, 3, (5, 2)])
@pytest.mark.parametrize('stride, dilation', [(1, 1), (2, 1), (3, 2), ((1, 2), 1)])
def test_same_padding_equals_mmcvs_adaptive_padding(size, kernel_size, stride, dilation):
    conv = Conv2dAdaptivePadding(2, 3, kernel_size, stride, dilation=dilation)
    x = torch.randn(1, 2, *size)
    ours = cond_conv2d(x, torch.ones(1, 1), conv.weight[None], conv.bias, stride, 'same', dilation)
    torch.testing.assert_close(ours, conv(x), rtol=1e-4, atol=1e-5)


def test_the_odd_zero_goes_right_and_below():
    assert same_padding((300, 7), (3, 3), (2, 2)) == (1, 1, 0, 1)
