"""A file whose experts have another form finds what it found before."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from condconv_det.deploy.write import METADATA

expert_forms = pytest.importorskip('benchmarks.expert_forms', exc_type=ImportError)  # onnxruntime
onnxruntime = pytest.importorskip('onnxruntime')


def model(routers):
    """Two convolutions whose kernels are mixed of three experts, by these routing weights."""
    random = np.random.default_rng(0)
    constants = dict(
        first=random.normal(size=(3, 5, 3, 1, 1)).astype(np.float32),
        second=random.normal(size=(3, 4, 5, 3, 3)).astype(np.float32),
        flat=np.array([3, -1]),
        kernel_first=np.array([5, 3, 1, 1]),
        kernel_second=np.array([4, 5, 3, 3]),
        places=np.array([2, 3]),
    )
    nodes = [
        helper.make_node('ReduceMean', ['images', 'places'], ['mean'], keepdims=0),
        helper.make_node('Sigmoid', ['mean'], ['sigmoid']),
        helper.make_node('Tanh', ['mean'], ['tanh']),
    ]
    x = 'images'
    for layer, router in zip(('first', 'second'), routers):
        nodes += [
            helper.make_node('Reshape', [layer, 'flat'], [f'{layer}_rows']),
            helper.make_node('MatMul', [router, f'{layer}_rows'], [f'{layer}_row']),
            helper.make_node('Reshape', [f'{layer}_row', f'kernel_{layer}'], [f'{layer}_mixed']),
            helper.make_node('Conv', [x, f'{layer}_mixed'], [f'{layer}_out']),
        ]
        x = f'{layer}_out'
    nodes[-1].output[0] = 'boxes'
    images = helper.make_tensor_value_info('images', TensorProto.FLOAT, [1, 3, 8, 8])
    boxes = helper.make_tensor_value_info('boxes', TensorProto.FLOAT, [1, 4, 6, 6])
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, 'g', [images], [boxes], tensors)
    built = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)])
    built.ir_version = 10
    helper.set_model_props(built, {METADATA: json.dumps(dict(size=[8, 8]))})
    return built


def boxes(model):
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=['CPUExecutionProvider']
    )
    image = np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)
    return session.run(None, {'images': image})[0]


def products(model):
    return sum(node.op_type == 'MatMul' for node in model.graph.node)


def test_one_product_mixes_all_layers_of_a_router():
    before = model(['sigmoid', 'sigmoid'])
    after = expert_forms.with_one_product_a_router(before)
    assert (products(before), products(after)) == (2, 1)
    np.testing.assert_allclose(boxes(after), boxes(before), rtol=1e-5, atol=1e-5)


def test_experts_in_int8_are_off_by_less_than_a_step():
    before = model(['sigmoid', 'tanh'])
    after = expert_forms.with_int8_experts(before)
    experts = {tensor.name: tensor for tensor in after.graph.initializer}
    for name in ('first', 'second'):
        assert experts[name].data_type == TensorProto.INT8
    scale = np.abs(boxes(before)).max()
    difference = np.abs(boxes(after) - boxes(before)).max()
    assert 0 < difference < 0.01 * scale


def test_routers_of_their_own_have_no_product_in_common():
    with pytest.raises(ValueError, match='2 layers mix experts, and no two share a router'):
        expert_forms.with_one_product_a_router(model(['sigmoid', 'tanh']))


def test_the_table_has_a_row_for_each_form(tmp_path, capsys):
    file = tmp_path / 'whole.onnx'
    onnx.save(model(['sigmoid', 'sigmoid']), file)
    shape = '--threads 1 --runtimes onnx --rounds 2'.split()
    expert_forms.main([str(file), str(file), *shape])
    table = capsys.readouterr().out
    assert all(f'| {form} | ' in table for form in expert_forms.FORMS)
    assert table.count('not taken') == 0


def test_a_file_without_experts_is_one_error(tmp_path):
    plain = model(['sigmoid', 'sigmoid'])
    mixed = [node for node in plain.graph.node if node.op_type == 'MatMul']
    for node in mixed:
        plain.graph.node.remove(node)
    with pytest.raises(ValueError, match='no product mixes experts: take a file of CondConv'):
        expert_forms.with_int8_experts(plain)
