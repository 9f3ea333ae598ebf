"""The paper authors' own TensorFlow layers, and timm's."""

from pathlib import Path

import numpy as np
import pytest
import torch
from kernel_paths import PATHS, forced
from timm.layers import CondConv2d as TimmCondConv2d

from condconv_det.ops import cond_conv2d

ARRAYS = np.load(Path(__file__).parents[1] / 'golden' / 'tf_condconv_layers.npz')
CASES = sorted({name.split('/')[0] for name in ARRAYS.files})


def nchw(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()


def test_there_are_twelve_cases():
    assert len(CASES) == 12


@pytest.mark.parametrize(
    'case, path',
    [
        (case, path)
        for case in CASES
        for path in PATHS['depthwise' if case.startswith('depthwise') else 'dense']
    ],
)
def test_agrees_with_the_authors_layers_and_their_gradients(case, path):
    given = {name: ARRAYS[f'{case}/{name}'] for name in ('in/x', 'in/routing', 'in/kernel')}
    arg = {
        name: ARRAYS[f'{case}/arg/{name}'].item()
        for name in ('kernel_size', 'stride', 'dilation', 'padding', 'num_experts')
    }
    size = arg['kernel_size']
    depthwise = case.startswith('depthwise')
    in_channels = given['in/x'].shape[-1]
    # [E, kh, kw, in, out] -> [E, out, in, kh, kw]; depthwise [E, kh, kw, channels, 1] likewise
    tf_shape = (arg['num_experts'], size, size, in_channels, -1)
    axes = (0, 3, 4, 1, 2) if depthwise else (0, 4, 3, 1, 2)

    x = nchw(given['in/x']).requires_grad_()
    routing = torch.from_numpy(given['in/routing']).requires_grad_()
    weight = torch.from_numpy(given['in/kernel']).reshape(tf_shape).permute(axes)
    weight = weight.contiguous().requires_grad_()
    bias = None
    if f'{case}/in/bias' in ARRAYS.files:
        bias = torch.from_numpy(ARRAYS[f'{case}/in/bias']).requires_grad_()

    with forced(path):
        y = cond_conv2d(
            x,
            routing,
            weight,
            bias,
            stride=arg['stride'],
            padding=arg['padding'],
            dilation=arg['dilation'],
            groups=in_channels if depthwise else 1,
        )
    y.backward(nchw(ARRAYS[f'{case}/in/grad_output']))

    expected = {name: ARRAYS[f'{case}/out/{name}'] for name in ('grad_routing', 'grad_kernel')}
    expected_weight_grad = torch.from_numpy(expected['grad_kernel']).reshape(tf_shape).permute(axes)
    close = dict(rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(y, nchw(ARRAYS[f'{case}/out/y']), **close)
    torch.testing.assert_close(x.grad, nchw(ARRAYS[f'{case}/out/grad_x']), **close)
    torch.testing.assert_close(routing.grad, torch.from_numpy(expected['grad_routing']), **close)
    torch.testing.assert_close(weight.grad, expected_weight_grad, **close)
    if bias is not None:
        torch.testing.assert_close(
            bias.grad, torch.from_numpy(ARRAYS[f'{case}/out/grad_bias']), **close
        )


@pytest.mark.parametrize('batch', [1, 3])
@pytest.mark.parametrize('kernel_size, groups, stride', [(1, 1, 1), (3, 1, 2), (5, 4, 1)])
def test_agrees_with_timm(kernel_size, groups, stride, batch):
    theirs = TimmCondConv2d(
        8, 12, kernel_size, stride, padding='', groups=groups, bias=True, num_experts=4
    )
    torch.nn.init.normal_(theirs.bias)
    x, routing = torch.randn(batch, 8, 9, 9), torch.rand(batch, 4)
    ours = cond_conv2d(
        x,
        routing,
        theirs.weight.view(4, 12, 8 // groups, kernel_size, kernel_size),
        theirs.bias,
        stride,
        theirs.padding,
        groups=groups,
    )
    torch.testing.assert_close(ours, theirs(x, routing), rtol=1e-5, atol=1e-5)
