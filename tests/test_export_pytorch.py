"""What PyTorch's own exporters write down of routed layers serves batches of any size."""

import pytest
import torch
from torch import nn

from condconv_det import CondConv2d
from condconv_det.layers import CondLinear

pytestmark = pytest.mark.filterwarnings('ignore')
needs_export = pytest.mark.skipif(
    not hasattr(torch.compiler, 'is_exporting'), reason='torch.export cannot be told before 2.7'
)


@pytest.fixture
def net():
    """Every kind of routed layer."""
    return nn.Sequential(
        CondConv2d(3, 8, 3, padding=1, num_experts=4),
        CondConv2d(8, 8, 3, groups=8, padding=1, num_experts=4),
        CondConv2d(8, 16, 1, num_experts=4),
        CondConv2d(16, 16, 3, stride=2, padding='same', num_experts=4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        CondLinear(16, 5, num_experts=4),
    ).eval()


def assert_serves(found, net):
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 17, 15)
        torch.testing.assert_close(found(x), net(x), rtol=1e-4, atol=1e-6)


def dynamic_batch():
    return ({0: torch.export.Dim('batch')},)


@needs_export
@pytest.mark.parametrize('strict', [False, pytest.param(True, marks=pytest.mark.long)])
def test_torch_export(net, strict):
    x = torch.randn(2, 3, 17, 15)
    program = torch.export.export(net, (x,), dynamic_shapes=dynamic_batch(), strict=strict)
    assert_serves(program.module(), net)


def test_jit_trace(net):
    assert_serves(torch.jit.trace(net, torch.randn(2, 3, 17, 15)), net)


@needs_export
@pytest.mark.long
def test_onnx_by_dynamo(net, tmp_path):
    onnxruntime = pytest.importorskip('onnxruntime')
    path = str(tmp_path / 'net.onnx')
    torch.onnx.export(
        net, (torch.randn(2, 3, 17, 15),), path, dynamo=True, dynamic_shapes=dynamic_batch()
    )
    session = onnxruntime.InferenceSession(path)
    (name,) = [each.name for each in session.get_inputs()]
    assert_serves(lambda x: torch.from_numpy(session.run(None, {name: x.numpy()})[0]), net)
