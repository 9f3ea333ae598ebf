"""A network that mixes laid-out experts, against PyTorch."""

from functools import partial

import pytest
import torch
from torch import nn

from condconv_det.layers import CondConv2d
from condconv_det.ops import single_image_conv2d

onnxruntime = pytest.importorskip('onnxruntime')
lay_out = pytest.importorskip('condconv_det.deploy.lay_out')
needs_layout = pytest.mark.skipif(
    lay_out.channels_per_block() == 1, reason='ONNX Runtime lays out no kernels on this CPU'
)


class Network(nn.Module):
    """Kinds of layers as detectors have them, whose sizes and experts differ."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.start = nn.Sequential(
            nn.Conv2d(3, 24, 3, stride=2, padding=1),
            nn.ReLU6(),
            CondConv2d(24, 24, 3, padding=1, groups=24, num_experts=3),
            nn.ReLU6(),
            CondConv2d(24, 40, 1, num_experts=5),
            nn.Conv2d(40, 40, 3, padding=1, groups=40),
            CondConv2d(40, 64, 3, stride=2, padding='same', num_experts=2, bias=False),
            nn.ReLU(),
        )
        self.first = CondConv2d(64, 32, 1, num_experts=4)
        self.by_firsts_router = CondConv2d(32, 36, 3, padding=1, groups=2, num_experts=4)
        self.norm = nn.BatchNorm2d(36)  # stays behind its layer, as those of RetinaSepBNHead
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        for layer in self.modules():
            if isinstance(layer, CondConv2d):
                layer.convolve = partial(single_image_conv2d, mixes_depthwise=True)

    def forward(self, images):
        x = self.start(images)
        routing = self.first.router(x)
        return self.norm(self.by_firsts_router(3 * self.first(x, routing), routing))


@pytest.fixture(scope='module')
def network():
    return Network().eval().requires_grad_(False)


@pytest.fixture(scope='module')
def exported(network):
    program = torch.export.export(network, (torch.zeros(1, 3, 32, 48),))
    program = torch.onnx.export(program, (), input_names=['images'], dynamo=True, verbose=False)
    return lay_out.ir.to_proto(program.model)


@needs_layout
@pytest.mark.filterwarnings('ignore')
def test_laid_out_experts_mix_to_what_pytorch_convolves_each_image_with(network, exported):
    images = torch.randn(4, 1, 3, 32, 48) * torch.tensor([0.1, 1, 5, 20]).view(-1, 1, 1, 1, 1)
    laid_out = lay_out.lay_out_kernels(lay_out.ir.from_proto(exported))

    session = onnxruntime.InferenceSession(lay_out.ir.to_proto(laid_out).SerializeToString())
    assert len(session.get_outputs()) == 1
    for image in images:
        found = torch.from_numpy(*session.run(None, {'images': image.numpy()}))
        torch.testing.assert_close(found, network(image), rtol=1e-4, atol=1e-4)

    kernels = [node.inputs[1] for node in laid_out.graph if node.op_type in ('Conv', 'FusedConv')]
    assert len(kernels) == 7
    assert sum(kernel.const_value is None for kernel in kernels) == 5
    in_blocks = [node for node in laid_out.graph if node.domain == 'com.microsoft.nchwc']
    assert sum(node.op_type == 'Conv' for node in in_blocks) >= 6  # what it lays out as groups


@needs_layout
def test_of_a_network_that_mixes_nothing_there_is_none():
    text = '<ir_version: 10, opset_import: ["": 18]> g (float[1,3,8,8] x) => (float[1,3,8,8] y) '
    model = lay_out.onnx.parser.parse_model(text + '{ y = Relu(x) }')
    assert lay_out.lay_out_kernels(lay_out.ir.from_proto(model)) is None


def test_a_cpu_whose_kernels_stay_as_they_are_is_refused(monkeypatch):
    monkeypatch.setattr(lay_out, 'channels_per_block', lambda: 1)
    with pytest.raises(ValueError, match='lays out no kernels on this CPU'):
        lay_out.lay_out_kernels(None)


def test_a_block_has_as_many_channels_as_a_vector_of_the_cpu():
    assert lay_out.channels_per_block() in (1, 4, 8, 16)


@pytest.mark.parametrize(
    'size, block',
    [(1, 1), (8192, 8192), (8193, 2731), (36 * 128 * 9, 6912), (2**20, 8192), (8209, 8209)],
)
def test_kernels_are_mixed_in_blocks_that_divide_them(size, block):
    assert lay_out.block_size(size) == block
