import pytest
import torch
from torch.nn import functional as F

from benchmarks.forms import MixedOutputs, expert_bytes, plain_conv, replace_layers, timm_conv
from benchmarks.layers import Geometry, layer_step
from benchmarks.networks import MOBILENET_V1, backbone
from condconv_det import CondConv2d

GEOMETRIES = (
    Geometry(6, 10, 1, 5, 7),
    Geometry(6, 10, 3, 8, 8, stride=2, padding=1),
    Geometry(6, 10, 3, 8, 7, stride=2, padding='same'),
    Geometry(6, 9, 3, 5, 5, padding=1, groups=3),
    Geometry(8, 8, 5, 6, 6, padding=2, groups=8),
)


@pytest.mark.parametrize('make_form', [timm_conv, MixedOutputs])
@pytest.mark.parametrize('geometry', GEOMETRIES, ids=str)
def test_a_form_computes_each_example_with_its_own_kernel(geometry, make_form):
    layer = geometry.layer(num_experts=3).double()
    x = torch.randn(2, geometry.in_channels, geometry.height, geometry.width).double()
    routing = torch.rand(2, 3).double()
    padding = geometry.padding
    padded = x
    if padding == 'same':  # 8 rows want one zero below, 7 columns one on each side
        padded, padding = F.pad(x, (1, 1, 0, 1)), 0
    expected = [
        F.conv2d(
            example[None],
            sum(r * kernel for r, kernel in zip(weights, layer.weight)),
            stride=geometry.stride,
            padding=padding,
            groups=geometry.groups,
        )
        for example, weights in zip(padded, routing)
    ]
    form = make_form(layer).double()
    torch.testing.assert_close(form(x, routing), torch.cat(expected))
    assert plain_conv(layer).double()(x).shape == (2, *expected[0].shape[1:])


def test_a_network_computes_the_same_with_timms_layers():
    ours = backbone(dict(MOBILENET_V1, widen_factor=0.25), 3).eval()
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    theirs = replace_layers(ours, timm_conv).eval()
    x = torch.randn(2, 3, 64, 64)
    for y, expected in zip(theirs(x), ours(x)):
        assert expected.abs().mean() > 0.01  # features have not faded to nothing
        torch.testing.assert_close(y, expected, rtol=1e-4, atol=1e-4)
    assert expert_bytes(ours) > 0 and expert_bytes(theirs) == 0
    torch.testing.assert_close(ours.state_dict(), before, rtol=0, atol=0)


def test_a_layer_with_a_bias_has_no_equal():
    network = torch.nn.Sequential(CondConv2d(4, 4, 1, num_experts=2))
    with pytest.raises(ValueError, match='0 must have no bias'):
        replace_layers(network, timm_conv)


def test_a_training_step_of_a_layer_gives_a_gradient_to_input_and_parameters():
    conv = torch.nn.Conv2d(4, 6, 3, bias=False)
    gradients = layer_step(conv, torch.randn(2, 4, 5, 5, requires_grad=True))()
    assert [g.shape for g in gradients] == [(2, 4, 5, 5), (6, 4, 3, 3)]
