"""The translation of means into ONNX, against PyTorch."""

import pytest
import torch
from torch import nn

onnx = pytest.importorskip('onnx')
onnxruntime = pytest.importorskip('onnxruntime')


class Means(nn.Module):
    def forward(self, x):
        of_maps = x.mean((2, 3), dtype=torch.float32), x.exp().mean((-1, -2), keepdim=True)
        return *of_maps, x.mean(1), x.mean((1, 3), keepdim=True), x.flatten(2).mean((1, 2))


@pytest.mark.filterwarnings('ignore')
def test_means_of_whole_maps_are_pooled_and_others_reduced(tmp_path):
    from condconv_det.deploy import onnx_pool

    x = torch.randn(2, 4, 9, 8)
    path = str(tmp_path / 'means.onnx')
    table = onnx_pool.translations()
    program = torch.export.export(Means(), (x,))
    torch.onnx.export(program, (), path, dynamo=True, custom_translation_table=table, verbose=False)
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count('GlobalAveragePool') == 2
    assert operators.count('ReduceMean') == 3
    session = onnxruntime.InferenceSession(path)
    (name,) = [each.name for each in session.get_inputs()]
    found = map(torch.from_numpy, session.run(None, {name: x.numpy()}))
    torch.testing.assert_close(tuple(found), Means()(x))
