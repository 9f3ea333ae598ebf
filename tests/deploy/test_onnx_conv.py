"""The translation of routed convolutions into ONNX, layer by layer, against PyTorch."""

from functools import partial

import pytest
import torch
from torch import nn

from condconv_det.layers import CondConv2d
from condconv_det.ops import any_batch_conv2d

onnxruntime = pytest.importorskip('onnxruntime')
LAYERS = {
    'pointwise': dict(out_channels=6, kernel_size=1),
    'strided pointwise': dict(out_channels=6, kernel_size=1, stride=2),
    'dense': dict(out_channels=6, kernel_size=(3, 2), stride=(1, 2), padding='same'),
    'dilated': dict(out_channels=6, kernel_size=3, dilation=(2, 1), padding=(1, 2), bias=False),
    'grouped': dict(out_channels=6, kernel_size=3, groups=2, stride=2, padding=1),
    'depthwise': dict(out_channels=8, kernel_size=3, groups=4, padding=1),
}


@pytest.mark.filterwarnings('ignore')
def test_each_kind_of_layer_serves_any_batch(tmp_path):
    from condconv_det.deploy import onnx_conv

    layers = [CondConv2d(4, num_experts=3, **layer) for layer in LAYERS.values()]
    for layer in layers:
        layer.convolve = partial(any_batch_conv2d, convolve=onnx_conv.convolve_in_onnx)

    class Side(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(layers)

        def forward(self, x):
            return tuple(layer(x) for layer in self.layers)

    net = Side().eval().requires_grad_(False)
    dynamic_shapes = ({0: torch.export.Dim('batch')},)
    program = torch.export.export(net, (torch.randn(2, 4, 9, 8),), dynamic_shapes=dynamic_shapes)
    targets = [node.target for node in program.graph.nodes]
    assert targets.count(torch.ops.condconv_det.tap_by_tap.default) == len(LAYERS)

    path = str(tmp_path / 'layers.onnx')
    table = onnx_conv.translations()
    torch.onnx.export(program, (), path, dynamo=True, custom_translation_table=table, verbose=False)
    session = onnxruntime.InferenceSession(path)
    (name,) = [each.name for each in session.get_inputs()]
    for layer in layers:
        del layer.convolve
    for batch in (1, 2, 5):
        x = torch.randn(batch, 4, 9, 8)
        found = map(torch.from_numpy, session.run(None, {name: x.numpy()}))
        torch.testing.assert_close(tuple(found), net(x), rtol=1e-4, atol=1e-5)
