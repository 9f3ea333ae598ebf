import json
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from condconv_det.deploy.runtimes import MIN_OPENVINO, RUNTIMES, check_runtime, open_onnx
from condconv_det.deploy.write import METADATA


@pytest.fixture(params=RUNTIMES)
def runtime(request):
    if request.param == 'openvino':
        pytest.importorskip('openvino', reason="needs OpenVINO: pip install -e '.[openvino]'")
    return request.param


@pytest.fixture
def file(tmp_path):
    """Writes a file that doubles images and adds one to them: file(batch, about)."""

    def file(batch, about=None):
        tensors = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, 3, 2, 4])
            for name in ('images', 'doubled', 'more')
        ]
        one = helper.make_tensor('one', TensorProto.FLOAT, [], [1.0])
        nodes = [
            helper.make_node('Add', ['images', 'images'], ['doubled']),
            helper.make_node('Add', ['images', 'one'], ['more']),
        ]
        graph = helper.make_graph(nodes, 'double', tensors[:1], tensors[1:], [one])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)])
        model.ir_version = 10
        if about is not None:
            helper.set_model_props(model, {METADATA: json.dumps(about)})
        path = tmp_path / 'double.onnx'
        onnx.save(model, path)
        return path

    return file


@pytest.mark.parametrize('batch', [1, 'batch'])
@pytest.mark.parametrize('threads', [None, 1])
def test_runs_and_says_what_the_file_says_of_itself(file, runtime, batch, threads):
    opened = open_onnx(file(batch, dict(size=[2, 4])), runtime, threads)
    assert opened.about == dict(size=[2, 4])
    assert opened.batch == (1 if batch == 1 else None)
    for count in (1,) if batch == 1 else (1, 3):
        images = np.random.default_rng(0).random((count, 3, 2, 4), np.float32)
        doubled, more = opened.run(images)
        np.testing.assert_array_equal(doubled, 2 * images)
        np.testing.assert_array_equal(more, images + 1)


def test_a_file_that_is_laid_out_for_another_cpu_is_refused(file, monkeypatch):
    lay_out = pytest.importorskip('condconv_det.deploy.lay_out')
    monkeypatch.setattr(lay_out, 'channels_per_block', lambda: 8)
    about = dict(size=[2, 4], channels_per_block=8)
    assert open_onnx(file(1, about)).about == about
    with pytest.raises(ValueError, match=r'double.onnx .* take 16 channels a block, .* takes 8: '):
        open_onnx(file(1, dict(about, channels_per_block=16)))


def test_a_file_of_another_program_is_named(file, runtime):
    with pytest.raises(ValueError, match=f'double.onnx is not a .* metadata lack {METADATA!r}'):
        open_onnx(file(1), runtime)


def test_an_unknown_runtime_is_named(file):
    with pytest.raises(ValueError, match="one of onnx, openvino, got 'tensorrt'"):
        open_onnx(file(1), 'tensorrt')


@pytest.mark.parametrize(
    'backend, package, says',
    [
        ('onnx', 'onnxruntime', r"needs onnxruntime: install it .*'\.\[deploy\]'"),
        ('openvino', 'openvino', r"needs openvino >= 2026.4: install it .*'\.\[openvino\]'"),
    ],
)
def test_a_missing_runtime_is_named(monkeypatch, backend, package, says):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f'--backend {backend} {says}'):
        check_runtime(backend)


@pytest.mark.parametrize('version, fits', [('2024.6.0-17404', False), ('2026.4.1', True)])
def test_an_old_openvino_is_named(monkeypatch, version, fits):
    monkeypatch.setitem(sys.modules, 'openvino', SimpleNamespace(__version__=version))
    if fits:
        return check_runtime('openvino')
    needed = '.'.join(map(str, MIN_OPENVINO))
    with pytest.raises(ImportError, match=f'openvino >= {needed}, .* this is {version}: install'):
        check_runtime('openvino')
