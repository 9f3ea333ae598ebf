"""What runs none of Triton's kernels: what they compile to, when they are chosen, bad input."""

from unittest.mock import Mock

import pytest
import torch

from condconv_det.ops import triton_matmul
from condconv_det.ops.triton_matmul import mixed_matmul, pays


class Compiler:
    """In place of a kernel: compiles what would be launched, for a GPU that need not be there."""

    TYPES = {torch.float32: '*fp32', torch.bfloat16: '*bf16', torch.float16: '*fp16'}

    def __init__(self, kernel, capability):
        self.kernel, self.capability = kernel, capability

    def __getitem__(self, grid):
        return self.compile

    def compile(self, *args, num_warps, num_stages, **constants):
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        signature, aligned = {}, {}
        for index, (name, arg) in enumerate(zip(self.kernel.arg_names, args)):
            if isinstance(arg, torch.Tensor):
                signature[name] = self.TYPES[arg.dtype]
            elif arg == 1:  # as in a launch, where strides of one make reads contiguous
                constants[name] = 1
            else:
                signature[name] = 'i32'
            if isinstance(arg, torch.Tensor) or arg % 16 == 0:
                aligned[(index,)] = [['tt.divisibility', 16]]
        signature.update(dict.fromkeys(constants, 'constexpr'))
        self.compiled = triton.compile(
            ASTSource(self.kernel, signature, constants, aligned),
            target=GPUTarget('cuda', self.capability, 32),
            options=dict(num_warps=num_warps, num_stages=num_stages),
        )


@pytest.mark.skipif(not triton_matmul.is_available(), reason='needs Triton 3')
@pytest.mark.parametrize(
    'capability, experts, dtype, weight_dtype',
    [
        (80, 8, torch.bfloat16, torch.bfloat16),
        (86, 16, torch.float16, torch.float32),
        (90, 8, torch.bfloat16, torch.float32),
    ],
)
def test_kernels_compile_and_fit_a_gpu(monkeypatch, capability, experts, dtype, weight_dtype):
    from condconv_det.ops import triton_kernels

    x, grad_y = torch.empty(4, 512, 100, dtype=dtype), torch.empty(4, 256, 100, dtype=dtype)
    routing = torch.empty(4, experts, dtype=weight_dtype)
    weight = torch.empty(experts, 256, 512, dtype=weight_dtype)
    for kernel, launch, args in (
        ('_mixed_matmul_kernel', triton_kernels.mixed_matmul, (x, routing, weight, grad_y, 128)),
        ('_expert_grads_kernel', triton_kernels.expert_grads, (grad_y, x, routing, weight)),
    ):
        compiler = Compiler(getattr(triton_kernels, kernel), capability)
        monkeypatch.setattr(triton_kernels, kernel, compiler)
        launch(*args)
        assert 'mma' in compiler.compiled.asm['ptx']  # the matrix units
        assert compiler.compiled.metadata.shared <= 99 * 1024  # of an RTX 3090, the least


@pytest.mark.parametrize(
    'change, error, message',
    [
        (dict(x=(2, 5)), ValueError, r'x must be \[B, K, N\].*got shapes \(2, 5\)'),
        (dict(x=(2, 4, 6)), ValueError, r'got shapes \(2, 4, 6\) and \(3, 4, 5\)'),
        (dict(routing=(2, 4)), ValueError, r'routing must be \[B, E\] = \[2, 3\].*\(2, 4\)'),
        (dict(dtype=torch.float64), TypeError, 'x must be float32, bfloat16 or float16.*float64'),
        (dict(device='meta'), ValueError, 'one device, got meta, cpu and cpu'),
    ],
)
def test_bad_input_is_named(monkeypatch, change, error, message):
    monkeypatch.setattr(triton_matmul, '_AVAILABLE', True)
    monkeypatch.setattr(triton_matmul, '_INTERPRETED', True)
    x = torch.empty(
        change.get('x', (2, 5, 6)), dtype=change.get('dtype'), device=change.get('device')
    )
    with pytest.raises(error, match=message):
        mixed_matmul(x, torch.empty(change.get('routing', (2, 3))), torch.empty(3, 4, 5))


def test_a_cpu_and_a_missing_triton_are_named(monkeypatch):
    inputs = torch.empty(2, 5, 6), torch.empty(2, 3), torch.empty(3, 4, 5)
    monkeypatch.setattr(triton_matmul, '_INTERPRETED', False)
    monkeypatch.setattr(triton_matmul, '_AVAILABLE', True)
    with pytest.raises(ValueError, match='x must be on a GPU, got cpu'):
        mixed_matmul(*inputs)
    monkeypatch.setattr(triton_matmul, '_AVAILABLE', False)
    with pytest.raises(RuntimeError, match='needs Triton'):
        mixed_matmul(*inputs)


def test_pays_for_large_sixteen_bit_kernels_on_small_maps_of_a_gpu(monkeypatch):
    def tensor(*shape, dtype, device):
        there = torch.empty(shape, dtype=dtype, device='meta')
        return Mock(wraps=there, shape=there.shape, dtype=dtype, is_cuda=device == 'cuda')

    def chosen(
        batch=64, experts=8, positions=100, device='cuda', dtype=torch.bfloat16, weight=None
    ):
        x = tensor(batch, 1024, positions, dtype=dtype, device=device)
        weight = tensor(experts, 1024, 1024, dtype=weight or dtype, device=device)
        return pays(x, weight, positions)

    monkeypatch.setattr(triton_matmul, '_AVAILABLE', True)
    assert chosen()
    assert not chosen(batch=8)  # 16 MB of mixed kernels stay in the cache
    assert not chosen(positions=361)  # mixed three times over
    assert chosen(positions=361, experts=4)
    assert not chosen(weight=torch.float32)
    assert not chosen(dtype=torch.float32)
    assert not chosen(device='cpu')
    monkeypatch.setattr(triton_matmul, '_AVAILABLE', False)
    assert not chosen()
