import pytest
import torch

from condconv_det.ops import cond_conv2d
from condconv_det.ops.autocast import autocast_dtype


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_autocast_makes_its_own_type_of_what_is_no_wider_than_float32(dtype):
    x = torch.zeros(1, dtype=dtype)
    assert autocast_dtype(x) is None
    with torch.autocast('cpu', torch.bfloat16):
        assert autocast_dtype(x) == torch.bfloat16


def test_autocast_leaves_float64_alone_as_pytorchs_does():
    x, routing, weight = torch.randn(2, 3, 4, 4), torch.rand(2, 2), torch.randn(2, 5, 3, 1, 1)
    with torch.autocast('cpu', torch.bfloat16):
        y = cond_conv2d(x.double(), routing.double(), weight.double())
    assert y.dtype == torch.float64
    torch.testing.assert_close(y, cond_conv2d(x.double(), routing.double(), weight.double()))
