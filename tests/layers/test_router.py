import pytest
import torch
from mmengine.model.efficient_conv_bn_eval import turn_on_efficient_conv_bn_eval
from torch import nn
from torch.nn import functional as F

from condconv_det import Router
from condconv_det.backbones import CondConvResNet


def test_is_pool_linear_sigmoid():
    router = Router(6, 4)
    x = torch.randn(3, 6, 5, 7)
    expected = (x.flatten(2).mean(2) @ router.fc.weight.T + router.fc.bias).sigmoid()
    torch.testing.assert_close(router(x), expected)


def test_softmax_sums_to_one_and_temperature_softens_it():
    x = torch.randn(3, 6, 5, 7)
    sharp, soft = Router(6, 4, activation='softmax'), Router(6, 4, 'softmax', temperature=30.0)
    soft.load_state_dict(sharp.state_dict())
    torch.testing.assert_close(soft(x).sum(1), torch.ones(3))
    logits = F.linear(x.mean((2, 3)), sharp.fc.weight, sharp.fc.bias)
    torch.testing.assert_close(soft(x), (logits / 30).softmax(1))


def test_hidden_layer_has_its_width_and_trains():
    router = Router(6, 4, hidden_channels=5)
    router(torch.randn(2, 6, 3, 3)).sum().backward()
    assert router.hidden.weight.shape == (5, 6) and router.fc.weight.shape == (4, 5)
    assert all(parameter.grad is not None for parameter in router.parameters())


def test_a_hierarchical_router_sees_the_weights_before_it_and_zeros_at_first():
    router = Router(6, 4, hierarchical=True)
    x, previous = torch.randn(3, 6, 5, 7), torch.rand(3, 4)
    inputs = torch.cat([x.mean((2, 3)), previous], 1)
    expected = F.linear(inputs, router.fc.weight, router.fc.bias).sigmoid()
    torch.testing.assert_close(router(x, previous), expected)
    torch.testing.assert_close(router(x), router(x, torch.zeros(3, 4)))


def test_pooled_features_need_no_pooling():
    router = Router(6, 4)
    x = torch.randn(3, 6, 5, 7)
    torch.testing.assert_close(router(x.mean((2, 3))), router(x))


@pytest.mark.parametrize(
    'switch',
    [
        dict(cond_cfg=dict(num_experts=2, share='block')),
        dict(conv_cfg=dict(type='CondConv2d', num_experts=2)),
    ],
)
def test_the_runners_efficient_conv_bn_eval_is_refused_by_name(switch):
    network = nn.ModuleDict(dict(backbone=CondConvResNet(18, base_channels=8, **switch)))
    with pytest.raises(ValueError, match='leave out efficient_conv_bn_eval, or list parts without'):
        turn_on_efficient_conv_bn_eval(network, ['backbone'])


def test_starts_near_a_half():
    routing = Router(256, 64)(torch.rand(16, 256, 4, 4))
    assert abs(routing.mean() - 0.5) < 0.1
    assert routing.min() > 0.05 and routing.max() < 0.95


@pytest.mark.parametrize('model_dtype', [torch.float32, torch.bfloat16, torch.float16])
def test_routes_in_float32_whatever_the_precision_around_it(model_dtype):
    router = Router(64, 4)
    x = torch.randn(2, 64, 40, 40) + 3
    expected = router(x)
    with torch.autocast('cpu', torch.bfloat16, enabled=model_dtype == torch.float32):
        routing = router.to(model_dtype)(
            x.to(torch.bfloat16 if model_dtype == torch.float32 else model_dtype)
        )
    assert routing.dtype == model_dtype
    torch.testing.assert_close(routing.float(), expected, rtol=0.02, atol=0.02)


def test_autocast_leaves_the_routing_of_double_images_alone():
    router, x = Router(64, 4), torch.randn(2, 64, 5, 5, dtype=torch.float64)
    expected = router(x)
    with torch.autocast('cpu', torch.bfloat16):
        torch.testing.assert_close(router(x), expected, rtol=0, atol=0)


def test_large_half_precision_maps_do_not_overflow():
    x = torch.full((1, 4, 200, 200), 60000.0, dtype=torch.float16)
    router = Router(4, 2).half()
    assert router(x).isfinite().all()


@pytest.mark.parametrize('value', [65504.0, 2.0**-24])
@pytest.mark.parametrize('activation', ['sigmoid', 'softmax'])
def test_routes_float16s_largest_and_smallest_inputs_as_float64_does(value, activation):
    router = Router(4, 3, activation, hidden_channels=8)
    x = torch.full((2, 4, 300, 300), value, dtype=torch.float16)  # their sum is no float16
    with torch.autocast('cpu', torch.bfloat16):
        routing = router(x)
    exact = router.double()(x.double())
    torch.testing.assert_close(routing.double(), exact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    'arguments, says',
    [
        (dict(num_experts=0), 'num_experts must be an integer of at least 1, got 0'),
        (dict(num_experts=2.5), 'num_experts .* got 2.5'),
        (dict(num_experts=True), 'num_experts .* got True'),
        (dict(activation='relu'), "activation must be one of .* got 'relu'"),
        (dict(hidden_channels=0), 'hidden_channels must be at least 1 or None, got 0'),
        (dict(temperature=0.0), 'temperature must be above 0, got 0.0'),
    ],
)
def test_bad_arguments_are_named(arguments, says):
    with pytest.raises(ValueError, match=says):
        Router(**{'in_channels': 4, 'num_experts': 3, **arguments})


def test_an_input_of_another_shape_is_named():
    with pytest.raises(
        ValueError, match=r'x must be \[B, C, H, W\] or \[B, C\] .*, got shape \(2, 6, 5\)'
    ):
        Router(6, 4)(torch.randn(2, 6, 5))
