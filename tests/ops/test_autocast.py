import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from condconv_det.ops import cond_conv2d, cond_linear
from condconv_det.ops.autocast import autocast_dtype
from condconv_det.ops.kernels import GroupedPatches


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


@pytest.fixture
def gpu_under_autocast():
    """Tensors of a GPU without their numbers: what type an operation has there, told anywhere."""
    if not hasattr(torch, 'set_autocast_dtype'):
        pytest.skip('torch < 2.4 has no autocast for a GPU that is not there')
    torch.set_autocast_enabled('cuda', True)
    torch.set_autocast_dtype('cuda', torch.float16)
    with FakeTensorMode():
        yield lambda *shape, **kwargs: torch.empty(shape, device='cuda', **kwargs)
    torch.set_autocast_enabled('cuda', False)


@pytest.mark.parametrize('batch', [1, 2])
def test_a_linear_layers_type_under_autocast_is_one_for_all_batches(gpu_under_autocast, batch):
    empty = gpu_under_autocast
    y = cond_linear(empty(batch, 8), empty(batch, 3), empty(3, 4, 8))
    assert y.dtype == torch.float16


@pytest.mark.parametrize('groups', [2, 8])
def test_a_convolutions_type_under_autocast_is_that_of_its_input(gpu_under_autocast, groups):
    half = dict(dtype=torch.float16)
    operands = [
        gpu_under_autocast(*shape, **half)
        for shape in ((2, 8, 5, 5), (2, 3), (3, 8, 8 // groups, 3, 3))
    ]
    assert GroupedPatches(groups=groups)(*operands).dtype == torch.float16
    assert cond_conv2d(*operands, groups=groups).dtype == torch.float16
