"""Files as `tools/export.py` writes them, each of which it has compared with PyTorch itself."""

import json
from collections import Counter

import cv2
import onnx
import onnxruntime
import pytest
import torch

from condconv_det.data.shapes import make_shapes
from condconv_det.deploy import export
from condconv_det.deploy.check import Comparison
from condconv_det.deploy.exportable import ExportableDetector


@pytest.fixture
def save_trained(small_detector, small_cfg, tmp_path):
    """Puts a detector into files, as training leaves it: its config and its checkpoint."""

    def save(kind):
        model = small_detector(kind)
        classes = ('circle', 'square', 'triangle', 'star', 'cross')
        torch.save(
            dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=classes))),
            tmp_path / 'trained.pth',
        )
        small_cfg(kind).dump(tmp_path / 'config.py')
        return tmp_path / 'config.py', tmp_path / 'trained.pth', model

    return save


@pytest.fixture
def trained(save_trained):
    return save_trained('SSD')


def compared(out):
    """How many images of which kind were compared, of the lines that the tool printed."""
    return [line.split()[:2] for line in out if ' random ' in line or ' real ' in line]


def assert_detected_by_file(outputs, expected):
    for boxes, scores, labels, other in zip(*outputs, expected):
        count = len(other[2])
        assert count > 3
        torch.testing.assert_close(torch.tensor(scores[:count]), other[1], rtol=0, atol=1e-4)
        assert labels[:count].tolist() == other[2].tolist()
        torch.testing.assert_close(torch.tensor(boxes[:count]), other[0], rtol=0, atol=0.01)
        assert (labels[count:] == -1).all()


def test_an_onnx_file_for_any_batch_detects_what_mmdet_does(
    trained, run_tool, images, mmdet_detections, tmp_path, capsys
):
    config, checkpoint, model = trained
    picture = tmp_path / 'picture.png'
    cv2.imwrite(str(picture), images[0].permute(1, 2, 0).numpy())
    options = ('--batch', 'dynamic', '--nms', '--images', picture)
    run_tool('export.py', config, checkpoint, *options)
    out = capsys.readouterr().out.splitlines()
    assert compared(out) == [[count, kind] for count in '125' for kind in ('random', 'real')]
    assert out[-1].startswith(f'wrote {tmp_path / "trained.onnx"}, ')

    file = onnx.load(tmp_path / 'trained.onnx')
    constants = {tensor.name for tensor in file.graph.initializer}
    for node in file.graph.node:
        assert node.op_type != 'BatchNormalization'
        if node.op_type == 'Conv':  # a static one; routed ones are products
            assert node.input[1] in constants
    (batch, *_), *_ = (
        [side.dim_param or side.dim_value for side in given.type.tensor_type.shape.dim]
        for given in file.graph.input
    )
    assert batch == 'batch'

    session = onnxruntime.InferenceSession(tmp_path / 'trained.onnx')
    for count in (1, 3):
        outputs = session.run(None, {'images': images[:count].float().numpy()})
        assert_detected_by_file(outputs, mmdet_detections(model, images[:count]))
    described = json.loads(session.get_modelmeta().custom_metadata_map['condconv_det'])
    assert described['size'] == [64, 96] and described['with_nms']
    assert described['classes'] == ['circle', 'square', 'triangle', 'star', 'cross']


def test_a_file_for_one_image_runs_ordinary_convolutions_with_kernels_mixed_once(
    trained, run_tool, tmp_path
):
    config, checkpoint, model = trained
    sizes = {}
    for name, options in dict(whole=(), half=('--half-experts',)).items():
        out = tmp_path / f'{name}.onnx'
        run_tool('export.py', config, checkpoint, '--out', out, *options)
        sizes[name] = out.stat().st_size
    file = onnx.load(tmp_path / 'whole.onnx')
    constants = {tensor.name for tensor in file.graph.initializer}
    kernels = Counter(
        'constant' if node.input[1] in constants else 'mixed'
        for node in file.graph.node
        if node.op_type == 'Conv'
    )
    layers = [layer for layer in model.modules() if isinstance(layer, torch.nn.Conv2d)]
    experts = [layer.weight.numel() for layer in layers if hasattr(layer, 'num_experts')]
    assert kernels == {'constant': len(layers) - len(experts), 'mixed': len(experts)}
    assert sizes['whole'] - sizes['half'] == pytest.approx(2 * sum(experts), rel=0.05)


def test_the_size_is_given_and_real_images_are_those_of_the_test_set(
    save_trained, run_tool, tmp_path, capsys
):
    config, checkpoint, _ = save_trained('RetinaNet')
    make_shapes(tmp_path / 'shapes', dict(test=3), size=96)
    (tmp_path / 'shapes/test/0.png').write_text('of no split')
    options = ('--batch', '2', '--size', '96x64')
    data = f'test_dataloader.dataset.data_root={tmp_path / "shapes"}/'
    run_tool('export.py', config, checkpoint, *options, '--cfg-options', data)
    assert compared(capsys.readouterr().out.splitlines()) == [['2', 'random'], ['2', 'real']]
    (images,) = onnx.load(tmp_path / 'trained.onnx').graph.input
    assert [side.dim_value for side in images.type.tensor_type.shape.dim] == [2, 3, 96, 64]


@pytest.mark.long
@pytest.mark.parametrize('kind', ['SSD, static', 'SSDLite', 'RetinaNet', 'RetinaNet, SepBN'])
def test_each_kind_of_detector_becomes_a_file_that_agrees(save_trained, run_tool, kind):
    config, checkpoint, _ = save_trained(kind)
    run_tool('export.py', config, checkpoint, '--batch', 'dynamic', '--nms')


def test_a_torch_export_file_for_any_batch_detects_what_mmdet_does(
    trained, run_tool, images, mmdet_detections, tmp_path
):
    config, checkpoint, model = trained
    options = ('--format', 'torch-export', '--batch', 'dynamic', '--nms')
    run_tool('export.py', config, checkpoint, *options)
    extra = {'condconv_det.json': ''}
    program = torch.export.load(tmp_path / 'trained.pt2', extra_files=extra).module()
    assert json.loads(extra['condconv_det.json'])['num_classes'] == 5
    for count in (1, 4):
        outputs = [output.numpy() for output in program(images[:count].float())]
        assert_detected_by_file(outputs, mmdet_detections(model, images[:count]))


def test_a_file_that_computes_something_else_is_not_left(trained, run_tool, monkeypatch, tmp_path):
    config, checkpoint, _ = trained
    monkeypatch.setattr(export, 'write_export', lambda detector, path, *_: path.write_text('file'))
    monkeypatch.setattr(export, 'open_file', lambda *_: None)
    monkeypatch.setattr(
        export, 'compare', lambda *_: Comparison(1, 'random', 0.6, 0.0, torch_ms=1, file_ms=1)
    )
    before = set(tmp_path.iterdir())
    with pytest.raises(SystemExit, match='differs from PyTorch by 0.6 pixels'):
        run_tool('export.py', config, checkpoint)
    assert set(tmp_path.iterdir()) == before


def test_a_network_that_pytorch_cannot_export_is_one_error(
    trained, run_tool, monkeypatch, tmp_path
):
    def forward(self, images):
        return self.plain_forward(images if images.mean() > 0 else -images)

    monkeypatch.setattr(ExportableDetector, 'plain_forward', ExportableDetector.forward, False)
    monkeypatch.setattr(ExportableDetector, 'forward', forward)
    before = set(tmp_path.iterdir())
    with pytest.raises(SystemExit, match=r'^error: .*trained.onnx is not written: \w+: .+') as exit:
        run_tool('export.py', *trained[:2])
    assert '\n' not in str(exit.value)
    assert set(tmp_path.iterdir()) == before


def test_a_file_that_its_runtime_cannot_run_is_one_error(trained, run_tool, monkeypatch, tmp_path):
    def run(images):
        raise RuntimeError('no memory\nin node 3')

    monkeypatch.setattr(export, 'write_export', lambda detector, path, *_: path.write_text('file'))
    monkeypatch.setattr(export, 'open_file', lambda *_: run)
    before = set(tmp_path.iterdir())
    says = r'^error: .*trained.onnx is not written: RuntimeError: no memory$'
    with pytest.raises(SystemExit, match=says):
        run_tool('export.py', *trained[:2])
    assert set(tmp_path.iterdir()) == before


def test_without_a_test_set_a_size_is_enough(trained, run_tool, monkeypatch, capsys):
    monkeypatch.setattr(export, 'write_export', lambda detector, path, *_: path.write_text('file'))
    monkeypatch.setattr(export, 'open_file', lambda *_: None)
    monkeypatch.setattr(export, 'compare', lambda *_: Comparison(1, 'random', 0, 0, 1, 1))
    options = ('--size', '64x96', '--cfg-options', 'test_dataloader=None')
    run_tool('export.py', *trained[:2], *options)
    assert 'no real images' in capsys.readouterr().out
