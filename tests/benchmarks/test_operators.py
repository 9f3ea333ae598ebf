"""What ONNX Runtime's profile says of a small file, by kind of operator."""

import json
import re

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from condconv_det.deploy.write import METADATA

operators = pytest.importorskip('benchmarks.operators', exc_type=ImportError)  # needs onnxruntime


@pytest.fixture
def file(tmp_path):
    """A convolution with a constant kernel, then one with a kernel that is mixed."""
    images = helper.make_tensor_value_info('images', TensorProto.FLOAT, [1, 3, 16, 16])
    boxes = helper.make_tensor_value_info('boxes', TensorProto.FLOAT, [1, 5, 16, 16])
    constants = dict(
        kernel=np.ones((3, 3, 1, 1), np.float32),
        experts=np.ones((3, 15), np.float32),
        shape=np.array([5, 3, 1, 1]),
        places=np.array([2, 3]),
    )
    nodes = [
        helper.make_node('Conv', ['images', 'kernel'], ['x'], 'first'),
        helper.make_node('ReduceMean', ['x', 'places'], ['routing'], 'pool', keepdims=0),
        helper.make_node('MatMul', ['routing', 'experts'], ['row'], 'mix'),
        helper.make_node('Reshape', ['row', 'shape'], ['mixed'], 'shape_it'),
        helper.make_node('Conv', ['x', 'mixed'], ['boxes'], 'second'),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, 'g', [images], [boxes], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)])
    model.ir_version = 10
    helper.set_model_props(model, {METADATA: json.dumps(dict(size=[16, 16]))})
    path = tmp_path / 'small.onnx'
    onnx.save(model, path)
    return path


def test_mixing_and_its_convolutions_are_told_from_the_others(file):
    found = operators.operators(file, threads=1, rounds=3)
    assert {f'Conv, {operators.MIXED}', 'MatMul with a constant', 'ReduceMean'} <= found.keys()
    assert sum(kind in ('Conv', 'FusedConv') for kind in found) == 1
    assert all(ms >= 0 for ms in found.values())


def test_a_table_adds_up(file, monkeypatch, capsys):
    monkeypatch.setattr(operators, 'LEAST', 0.0)
    operators.main([str(file), str(file), '--rounds', '2'])
    header, _, *rows = capsys.readouterr().out.splitlines()
    assert header == '| ms | small | small |'
    cells = {row.split(' | ')[0].strip('| '): re.findall(r'\d+\.\d\d', row)[-2:] for row in rows}
    read = next(key for key in cells if re.fullmatch(r'constants read once, at \d+ GB/s', key))
    assert len(cells.pop(read)) == 2
    total, _ = map(float, cells.pop('all'))
    assert total == pytest.approx(sum(float(first) for first, _ in cells.values()), abs=0.1)


def test_constants_are_counted_in_bytes(file):
    assert operators.constant_bytes(file) == 4 * (9 + 45) + 8 * (4 + 2)


def test_no_file_is_one_error(tmp_path):
    with pytest.raises(SystemExit, match='error: .*nowhere.onnx does not exist'):
        operators.main([str(tmp_path / 'nowhere.onnx')])
