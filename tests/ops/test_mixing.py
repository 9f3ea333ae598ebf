import pytest
import torch

from condconv_det.ops import mix_kernels


@pytest.mark.parametrize('channels', [4, 64])  # gradients at once, and in parts
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_kernels_and_gradients_under_autocast_are_those_without(channels, dtype):
    routing = torch.rand(4, 3, requires_grad=True)
    weight = torch.randn(3, channels, channels, 3, 3).to(dtype).requires_grad_()
    results = []
    for enabled in (False, True):
        with torch.autocast('cpu', torch.bfloat16, enabled=enabled):
            kernels = mix_kernels(routing, weight)
        loss = kernels.square().sum()
        results.append((kernels, *torch.autograd.grad(loss, (routing, weight))))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)
