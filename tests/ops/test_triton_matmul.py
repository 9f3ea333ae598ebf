"""On a GPU where there is one; else in Triton's interpreter, in a process of its own.

Triton reads TRITON_INTERPRET when it is first imported, and another test may have done that.
"""

import os
import subprocess
import sys
from unittest.mock import Mock

import pytest
import torch
from torch import library
from torch.nn import functional as F

from condconv_det.ops import triton_matmul
from condconv_det.ops.triton_matmul import dense_conv, mixed_matmul

INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
DEVICE = 'cpu' if INTERPRETED else 'cuda'
runs_kernels = pytest.mark.skipif(
    not (INTERPRETED or (torch.cuda.is_available() and triton_matmul.is_available())),
    reason='needs a GPU; else the interpreter runs it',
)

# B, E, M, K, N: one of everything, tiles that end early, several tiles, the second eight experts
SIZES = [
    (1, 1, 1, 1, 1),
    (2, 3, 33, 40, 9),
    (3, 8, 40, 70, 150),
    (5, 16, 17, 65, 25),
    (2, 19, 16, 32, 16),
]
LAYOUTS = ['contiguous', 'channels_last', 'sliced']


@pytest.fixture(autouse=INTERPRETED)
def _bfloat16_dots(monkeypatch):
    """Triton 3.8's interpreter keeps bfloat16 as bits, and its dot multiplies these as integers."""
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder

    dot = InterpreterBuilder.create_dot

    def dot_of_numbers(self, a, b, *args):
        if a.dtype.scalar == tl.bfloat16:
            a, b = self.cast_impl(a, tl.float32), self.cast_impl(b, tl.float32)
        return dot(self, a, b, *args)

    monkeypatch.setattr(InterpreterBuilder, 'create_dot', dot_of_numbers)


@pytest.mark.skipif(INTERPRETED, reason='this is the interpreter')
@pytest.mark.skipif(not triton_matmul.is_available(), reason='Triton 3 has the first interpreter')
@pytest.mark.long
def test_kernels_hold_in_the_interpreter():
    done = subprocess.run(
        [sys.executable, '-m', 'pytest', '-q', '-n0', '-p', 'no:cacheprovider', __file__],
        env=dict(os.environ, TRITON_INTERPRET='1', CUDA_VISIBLE_DEVICES=''),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def laid_out(shape, layout, dtype=torch.float32):
    if layout == 'channels_last':
        return torch.randn(shape[0], *reversed(shape[1:]), dtype=dtype).transpose(1, 2)
    if layout == 'sliced':
        return torch.randn(shape[0], shape[1] + 2, 2 * shape[2], dtype=dtype)[:, 1:-1, ::2]
    return torch.randn(shape, dtype=dtype)


def tensors(sizes, layout='contiguous', dtype=torch.float32, weight_dtype=None):
    batch, experts, rows, depth, positions = sizes
    weight = torch.randn(experts, rows, depth, dtype=weight_dtype or dtype)
    return [
        tensor.to(DEVICE).requires_grad_()
        for tensor in (
            laid_out((batch, depth, positions), layout, dtype),
            torch.rand(batch, experts, dtype=weight_dtype or dtype),
            weight,
        )
    ]


def doubled(tensors):
    return [tensor.detach().cpu().double().requires_grad_() for tensor in tensors]


def float64_loop(x, routing, weight):
    return torch.stack(
        [sum(r * w for r, w in zip(weights, weight)) @ image for image, weights in zip(x, routing)]
    )


def assert_near(ours, exact, relative):
    """Every element within a share of the largest: sums of products err in proportion to these."""
    assert ours.shape == exact.shape
    error = (ours.detach().cpu().double() - exact).abs().max()
    assert error <= relative * exact.abs().max()


@runs_kernels
@pytest.mark.parametrize('layout', LAYOUTS)
@pytest.mark.parametrize('sizes', SIZES, ids=str)
def test_equals_a_float64_loop_over_examples_with_its_gradients(sizes, layout):
    ours = tensors(sizes, layout)
    exact = doubled(ours)
    y, expected = mixed_matmul(*ours), float64_loop(*exact)
    assert_near(y, expected, 1e-5)

    grad = laid_out(y.shape, layout).to(DEVICE)
    y.backward(grad)
    expected.backward(grad.cpu().double())
    for mine, reference in zip(ours, exact):
        assert mine.grad.dtype == mine.dtype
        assert_near(mine.grad, reference.grad, 1e-5)


@runs_kernels
@pytest.mark.parametrize('weight_dtype', [torch.float32, None], ids=['float32', 'same'])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_sixteen_bits_lose_only_what_rounding_the_mixed_kernels_loses(dtype, weight_dtype):
    ours = tensors((3, 8, 40, 70, 50), dtype=dtype, weight_dtype=weight_dtype)
    exact = doubled(ours)
    y, expected = mixed_matmul(*ours), float64_loop(*exact)
    assert y.dtype == dtype
    relative = 2 * torch.finfo(dtype).eps
    assert_near(y, expected, relative)

    grad = torch.randn(y.shape, dtype=dtype)
    y.backward(grad.to(DEVICE))
    expected.backward(grad.double())
    for mine, reference in zip(ours, exact):
        assert mine.grad.dtype == mine.dtype
        assert_near(mine.grad, reference.grad, relative)


@runs_kernels
def test_experts_are_mixed_in_float32():
    # in bfloat16 every partial sum but the last would round the ones away
    weight = torch.tensor([256.0, 1.0, 1.0, -256.0], dtype=torch.bfloat16, device=DEVICE)
    ones = torch.ones(1, 4, device=DEVICE), weight.view(4, 1, 1)
    y = mixed_matmul(torch.ones(1, 1, 1, dtype=torch.bfloat16, device=DEVICE), *ones)
    assert y.item() == 2


@runs_kernels
def test_second_derivatives_equal_those_in_float64():
    ours = tensors((3, 3, 5, 6, 7))
    exact = doubled(ours)
    for product, inputs in ((mixed_matmul, ours), (float64_loop, exact)):
        grads = torch.autograd.grad(product(*inputs).sin().sum(), inputs, create_graph=True)
        sum(grad.square().sum() for grad in grads).backward()
    for mine, reference in zip(ours, exact):
        assert_near(mine.grad, reference.grad, 1e-5)


@runs_kernels
@pytest.mark.parametrize('sizes', [(0, 3, 4, 5, 6), (2, 3, 4, 5, 0), (2, 3, 0, 5, 6)], ids=str)
def test_empty_inputs_give_empty_outputs_and_zero_gradients(sizes):
    ours = tensors(sizes)
    y = mixed_matmul(*ours)
    assert y.shape == (sizes[0], sizes[2], sizes[4])
    y.sum().backward()
    assert all(not tensor.grad.any() for tensor in ours)


@runs_kernels
def test_frozen_experts_and_router_cost_no_gradient(monkeypatch):
    from condconv_det.ops import triton_kernels

    x, routing, weight = tensors((2, 3, 4, 5, 6))
    monkeypatch.setattr(triton_kernels, 'expert_grads', None)  # a call would raise
    mixed_matmul(x, routing.detach(), weight.detach()).sum().backward()
    assert x.grad is not None


@runs_kernels
@pytest.mark.parametrize('layout', LAYOUTS[:2])
@pytest.mark.parametrize(
    'kernel_size, stride, padding, dilation',
    [
        ((1, 1), (1, 1), (0, 0), (1, 1)),
        ((1, 1), (2, 2), (0, 0), (1, 1)),
        ((1, 1), (1, 1), (1, 0), (1, 1)),
        ((3, 3), (2, 2), (1, 1), (1, 1)),
        ((3, 2), (1, 2), (2, 1), (2, 1)),
    ],
    ids=str,
)
def test_dense_conv_equals_each_examples_own_conv(layout, kernel_size, stride, padding, dilation):
    how = (stride, padding, dilation)
    x = torch.randn(3, 6, 7, 8)
    if layout == 'channels_last':
        x = x.to(memory_format=torch.channels_last)
    weight = torch.randn(4, 5, 6, *kernel_size)
    ours = [t.to(DEVICE).requires_grad_() for t in (x, torch.rand(3, 4), weight)]
    exact = doubled(ours)
    y = dense_conv(*ours, *how)
    expected = torch.cat(
        [
            F.conv2d(image[None], torch.tensordot(weights, exact[2], dims=1), None, *how)
            for image, weights in zip(*exact[:2])
        ]
    )
    assert_near(y, expected, 1e-5)

    grad = torch.randn(y.shape)
    y.backward(grad.to(DEVICE))
    expected.backward(grad.double())
    for mine, reference in zip(ours, exact):
        assert_near(mine.grad, reference.grad, 1e-5)


@runs_kernels
def test_pointwise_conv_reads_and_writes_channels_last_in_place(monkeypatch):
    x = torch.randn(2, 6, 4, 5).to(DEVICE, memory_format=torch.channels_last)
    inputs = []
    monkeypatch.setattr(
        triton_matmul, 'mixed_matmul', lambda *args: inputs.append(args[0]) or mixed_matmul(*args)
    )
    y = dense_conv(x, torch.rand(2, 3, device=DEVICE), torch.randn(3, 8, 6, 1, 1, device=DEVICE))
    assert inputs[0].data_ptr() == x.data_ptr()
    assert y.is_contiguous(memory_format=torch.channels_last)


@runs_kernels
@pytest.mark.parametrize(
    'layout, dtype', [('contiguous', torch.bfloat16), ('channels_last', torch.float32)]
)
def test_operators_keep_pytorchs_rules_for_compilers(layout, dtype):
    inputs = tensors((3, 3, 4, 5, 6), layout, dtype)
    library.opcheck(torch.ops.condconv_det.mixed_matmul.default, inputs)
    grad_y = torch.randn(3, 4, 6, dtype=dtype, device=DEVICE)
    inputs = [grad_y, *(tensor.detach() for tensor in inputs)]
    library.opcheck(torch.ops.condconv_det.expert_grads.default, inputs)


@runs_kernels
def test_repeats_to_the_last_bit():
    def run():
        torch.manual_seed(0)
        inputs = tensors((3, 8, 40, 70, 20), dtype=torch.bfloat16)
        y = mixed_matmul(*inputs)
        y.backward(y)
        return [y, *(tensor.grad for tensor in inputs)]

    assert all(torch.equal(first, second) for first, second in zip(run(), run()))


@runs_kernels
def test_torch_compile_makes_one_graph_and_keeps_the_kernels_gradients(monkeypatch):
    from condconv_det.ops import triton_kernels

    fused = Mock(wraps=triton_kernels.expert_grads)
    monkeypatch.setattr(triton_kernels, 'expert_grads', fused)
    ours = tensors((3, 3, 5, 6, 7))
    exact = doubled(ours)
    torch.compiler.reset()
    torch.compile(mixed_matmul, backend='aot_eager', fullgraph=True)(*ours).sum().backward()
    float64_loop(*exact).sum().backward()
    fused.assert_called_once()
    for mine, reference in zip(ours, exact):
        assert_near(mine.grad, reference.grad, 1e-5)
