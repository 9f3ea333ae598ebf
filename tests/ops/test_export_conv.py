import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from condconv_det.ops import any_batch_conv2d, single_image_conv2d

# channels in and out, kernel, and what follows it in F.conv2d's arguments
LAYERS = {
    'pointwise': (6, 8, (1, 1), dict()),
    'pointwise with stride': (6, 8, (1, 1), dict(stride=2)),
    'pointwise, padded': (6, 8, (1, 1), dict(padding=1)),
    'dense': (6, 8, (3, 3), dict(padding=1)),
    'dense, unlike in height and width': (
        *(6, 8, (3, 2)),
        dict(stride=(2, 1), padding=(0, 2), dilation=(1, 2)),
    ),
    'dense, valid': (6, 8, (3, 3), dict(padding='valid')),
    'depthwise': (6, 6, (3, 3), dict(padding=1, groups=6)),
    'depthwise with stride and dilation': (
        *(6, 6, (3, 3)),
        dict(stride=2, padding=2, dilation=2, groups=6),
    ),
    'depthwise with a multiplier': (6, 12, (3, 3), dict(padding=1, groups=6)),
    'grouped': (6, 8, (3, 3), dict(padding=1, groups=2)),
}


def tensors(batch, in_channels, out_channels, kernel, groups=1, experts=3):
    x = torch.randn(batch, in_channels, 9, 8, dtype=torch.float64)
    routing = torch.randn(batch, experts, dtype=torch.float64)
    weight = torch.randn(experts, out_channels, in_channels // groups, *kernel, dtype=torch.float64)
    return x, routing, weight


def loop_over_images(x, routing, weight, bias, **how):
    """One plain convolution an image."""
    outputs = []
    for image, weights in zip(x, routing):
        kernel = sum(r * w for r, w in zip(weights, weight))
        if bias is not None and bias.dim() == 2:
            mixed = sum(r * b for r, b in zip(weights, bias))
        else:
            mixed = bias
        outputs.append(F.conv2d(image[None], kernel, mixed, **how))
    return torch.cat(outputs)


@pytest.mark.parametrize('bias_shape', [None, (), (3,)], ids=['no', 'shared', 'mixed'])
@pytest.mark.parametrize('layer', LAYERS.values(), ids=LAYERS)
@pytest.mark.parametrize(
    'function, batch', [(single_image_conv2d, 1), (any_batch_conv2d, 1), (any_batch_conv2d, 4)]
)
def test_equals_a_loop_over_images(function, batch, layer, bias_shape):
    in_channels, out_channels, kernel, how = layer
    given = tensors(batch, in_channels, out_channels, kernel, how.get('groups', 1))
    bias = None
    if bias_shape is not None:
        bias = torch.randn(*bias_shape, out_channels, dtype=torch.float64)
    torch.testing.assert_close(function(*given, bias, **how), loop_over_images(*given, bias, **how))


@pytest.mark.parametrize('experts', [1, 3, 4])
@pytest.mark.parametrize('layer', ['pointwise', 'pointwise with stride', 'depthwise'])
def test_one_image_gets_the_same_of_few_experts_and_of_many(layer, experts):
    in_channels, out_channels, kernel, how = LAYERS[layer]
    given = tensors(1, in_channels, out_channels, kernel, how.get('groups', 1), experts)
    bias = torch.randn(out_channels, dtype=torch.float64)
    found = single_image_conv2d(*given, bias, **how)
    torch.testing.assert_close(found, loop_over_images(*given, bias, **how))


class Convolutions(TorchDispatchMode):
    """Shapes of the kernels of all convolutions."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation is torch.ops.aten.convolution.default:
            self.shapes.append(tuple(args[1].shape))
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    'layer, experts, kernels',
    [
        ('pointwise', 3, [(8, 6, 1, 1)]),  # 9 x 8 places
        ('pointwise with stride', 3, [(8, 18, 1, 1)]),  # 5 x 4
        ('depthwise', 3, 3 * [(6, 1, 3, 3)]),
        ('depthwise', 4, [(6, 1, 3, 3)]),
    ],
)
def test_all_experts_run_on_small_maps_and_where_they_are_few_and_depthwise(
    layer, experts, kernels
):
    in_channels, out_channels, kernel, how = LAYERS[layer]
    given = tensors(1, in_channels, out_channels, kernel, how.get('groups', 1), experts)
    with Convolutions() as convolutions:
        single_image_conv2d(*given, **how)
    assert convolutions.shapes == kernels


@pytest.mark.parametrize('stride', [1, 2, 3])
@pytest.mark.parametrize('function, batch', [(single_image_conv2d, 1), (any_batch_conv2d, 3)])
def test_same_padding_is_tensorflows(function, batch, stride):
    x, routing, weight = tensors(batch, 6, 8, (3, 2))
    y = function(x, routing, weight, stride=stride, padding='same')
    height, width = -(-9 // stride), -(-8 // stride)
    # TensorFlow pads so that the last window ends inside, and an odd zero goes right and below
    rows, columns = (height - 1) * stride + 3 - 9, (width - 1) * stride + 2 - 8
    rows, columns = max(rows, 0), max(columns, 0)
    padded = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
    torch.testing.assert_close(y, loop_over_images(padded, routing, weight, None, stride=stride))
    assert y.shape[-2:] == (height, width)


@pytest.mark.parametrize('function, batch', [(single_image_conv2d, 1), (any_batch_conv2d, 2)])
def test_experts_in_half_precision_are_mixed_in_xs_type(function, batch):
    x, routing, weight = tensors(batch, 6, 8, (3, 3))
    half = weight.half()
    torch.testing.assert_close(function(x, routing, half), function(x, routing, half.double()))


class RightFactors(TorchDispatchMode):
    """Shapes of the right factors of all products of two matrices."""

    def __init__(self):
        super().__init__()
        self.shapes = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation is torch.ops.aten.mm.default:
            self.shapes.append(tuple(args[1].shape))
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize('function, batch', [(single_image_conv2d, 1), (any_batch_conv2d, 2)])
def test_experts_are_the_right_factor_of_their_mixing(function, batch):
    with RightFactors() as factors:
        function(*tensors(batch, 6, 8, (1, 1)))
    assert factors.shapes == [(3, 8 * 6)]


@pytest.mark.parametrize('layer', ['pointwise', 'dense', 'grouped'])
def test_multiply_adds_are_mixing_and_one_convolution(layer):
    in_channels, out_channels, kernel, how = LAYERS[layer]
    x, routing, weight = tensors(4, in_channels, out_channels, kernel, how.get('groups', 1))
    with FlopCounterMode(display=False) as ours:
        any_batch_conv2d(x, routing, weight, **how)
    with FlopCounterMode(display=False) as plain:
        F.conv2d(x, weight[0], **how)
    mixing = 2 * routing.numel() * weight[0].numel()
    assert ours.get_total_flops() == plain.get_total_flops() + mixing


@pytest.mark.parametrize('layer', LAYERS)
def test_no_operation_has_the_batch_in_its_groups(layer):
    in_channels, out_channels, kernel, how = LAYERS[layer]
    given = tensors(4, in_channels, out_channels, kernel, how.get('groups', 1))
    with FlopCounterMode(display=False) as counter:
        any_batch_conv2d(*given, **how)
    operations = {str(operation) for operation in counter.get_flop_counts()['Global']}
    assert operations <= {'aten.mm', 'aten.bmm'}
