"""Files as `tools/export.py` writes them, each of which it has compared with PyTorch itself."""

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import cv2
import onnx
import onnxruntime
import pytest
import torch

from condconv_det.analysis.configs import build_model
from condconv_det.data.shapes import make_shapes
from condconv_det.deploy import export
from condconv_det.deploy.check import Comparison
from condconv_det.deploy.exportable import ExportableDetector
from condconv_det.deploy.lay_out import channels_per_block
from condconv_det.deploy.runtimes import open_onnx
from condconv_det.deploy.write import SUFFIXES
from condconv_det.layers import CondConv2d

STAGES = [
    'building the detector',
    'tracing the network',
    'translating it into ONNX',
    'writing the file',
    'checking the file',
    *(f'comparing it with PyTorch on {count}' for count in ('1 image', '2 images', '5 images')),
]


@pytest.fixture
def trained(saved_ssd, tmp_path):
    """A copy of the saved SSD's config and checkpoint, beside which a file is written."""
    return tuple(Path(shutil.copy(path, tmp_path)) for path in saved_ssd)


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
    trained, small_detector, run_tool, images, mmdet_detections, tmp_path, capsys
):
    model = small_detector()
    picture = tmp_path / 'picture.png'
    cv2.imwrite(str(picture), images[0].permute(1, 2, 0).numpy())
    options = ('--batch', 'dynamic', '--nms', '--images', picture)
    run_tool('export.py', *trained, *options)
    out = capsys.readouterr().out.splitlines()
    assert compared(out) == [[count, kind] for count in '125' for kind in ('random', 'real')]
    assert [line.partition(' s  ')[2] for line in out if ' s  ' in line] == STAGES
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


def expert_counts(model):
    """Weights of each routed layer."""
    return [layer.weight.numel() for layer in model.modules() if isinstance(layer, CondConv2d)]


def kernels_of(file):
    """How many convolutions of an ONNX file have constant kernels, and how many mixed ones."""
    file = onnx.load(file)
    constants = {tensor.name for tensor in file.graph.initializer}
    return Counter(
        'constant' if node.input[1] in constants else 'mixed'
        for node in file.graph.node
        if node.op_type == 'Conv'
    )


def test_a_file_for_one_image_mixes_kernels_but_of_depthwise_layers_with_few_experts(
    one_image_file, small_detector
):
    layers = [layer for layer in small_detector().modules() if isinstance(layer, torch.nn.Conv2d)]
    routed = [layer for layer in layers if isinstance(layer, CondConv2d)]
    depthwise = [layer for layer in routed if layer.groups > 1]
    assert depthwise and all(layer.num_experts == 3 for layer in depthwise)
    static = len(layers) - len(routed)
    assert kernels_of(one_image_file) == {
        'constant': static + 3 * len(depthwise),
        'mixed': len(routed) - len(depthwise),
    }


def test_a_file_for_this_cpu_mixes_depthwise_kernels_too_and_says_for_which(
    trained, small_detector, run_tool, tmp_path
):
    if channels_per_block() == 1:
        pytest.skip('ONNX Runtime lays out no kernels on this CPU')
    run_tool('export.py', *trained, '--format', 'onnx-cpu')  # compares it with PyTorch
    file = tmp_path / 'trained-cpu.onnx'
    layers = [layer for layer in small_detector().modules() if isinstance(layer, torch.nn.Conv2d)]
    routed = sum(isinstance(layer, CondConv2d) for layer in layers)
    assert kernels_of(file) == {'constant': len(layers) - routed, 'mixed': routed}
    assert open_onnx(file).about['channels_per_block'] == channels_per_block()


def test_experts_are_merged_as_far_as_detections_agree(trained, run_tool, images, tmp_path, capsys):
    pictures = [tmp_path / f'{index}.png' for index in range(3)]
    for picture, image in zip(pictures, images):
        cv2.imwrite(str(picture), image.permute(1, 2, 0).numpy())
    out = tmp_path / 'merged.onnx'
    options = ('--images', *pictures, '--out', out)
    run_tool('export.py', *trained, '--merge-experts', '0.5', *options)
    said = capsys.readouterr().out
    found = re.search(r'(\S+) parameters, merged (\S+); agreement on 3 images (\S+)', said)
    before, after, agreed = (float(number.replace(',', '')) for number in found.groups())
    assert after < before and 0.5 <= agreed <= 1
    assert ' merging experts\n' in said

    out.unlink()
    with pytest.raises(SystemExit, match=r'error: merged by a tolerance of 0.005, .* for is 1$'):
        run_tool('export.py', *trained, '--merge-experts', '1', *options)
    assert not out.exists()


def test_where_no_experts_are_left_the_file_is_a_plain_one(
    small_detector, small_cfg, save_trained, run_tool, images, tmp_path, capsys
):
    model = small_detector('SSD')
    for name, parameter in model.named_parameters():
        if 'router' in name:  # all images are routed alike
            torch.nn.init.zeros_(parameter)
    pictures = [tmp_path / f'{index}.png' for index in range(2)]
    for picture, image in zip(pictures, images):
        cv2.imwrite(str(picture), image.permute(1, 2, 0).numpy())
    saved = save_trained(model, small_cfg('SSD'), tmp_path)
    out = tmp_path / 'merged.onnx'
    options = ('--merge-experts', '--format', 'onnx-cpu', '--images', *pictures, '--out', out)
    run_tool('export.py', *saved, *options)
    said = capsys.readouterr().out
    assert 'no experts are left, so it is a plain file' in said and ', merged 0; ' in said
    assert set(kernels_of(out)) == {'constant'}
    assert 'channels_per_block' not in open_onnx(out).about  # any CPU's


def test_where_all_experts_run_on_small_maps_the_file_is_a_plain_one(
    small_cfg, save_trained, run_tool, tmp_path, capsys
):
    if channels_per_block() == 1:
        pytest.skip('ONNX Runtime lays out no kernels on this CPU')
    cfg = small_cfg('SSD, static')
    cfg.model.bbox_head.cond_cfg = dict(num_experts=2)
    saved = save_trained(build_model(cfg), cfg, tmp_path)
    run_tool('export.py', *saved, '--format', 'onnx-cpu', '--size', '16x16')
    assert 'no kernels are mixed, so it is a plain file' in capsys.readouterr().out
    assert 'channels_per_block' not in open_onnx(tmp_path / 'trained-cpu.onnx').about  # any CPU's


def test_experts_are_merged_by_images_of_the_size_that_the_file_takes(
    small_detector, small_cfg, images, tmp_path, monkeypatch
):
    pictures = [tmp_path / f'{index}.png' for index in range(2)]
    for picture, image in zip(pictures, images):
        cv2.imwrite(str(picture), image.permute(1, 2, 0).numpy())
    shapes = []
    predict = export.predict

    def spy(model, images):
        shapes.extend(tuple(batch['inputs'][0].shape) for batch in images.batches())
        return predict(model, images)

    monkeypatch.setattr(export, 'predict', spy)
    _, merged = export._merge(small_cfg('SSD'), small_detector(), (96, 128), pictures, 0.1)
    assert set(shapes) == {(3, 96, 128)} and merged.images == 2


@pytest.mark.long
def test_half_experts_save_two_bytes_a_weight_of_an_onnx_file(
    small_cfg, save_trained, run_tool, tmp_path
):
    cfg = small_cfg('SSD')
    cfg.model.backbone.cond_cfg.num_experts = 256  # beside which all else is small
    model = build_model(cfg)
    files = save_trained(model, cfg, tmp_path)
    sizes = []
    for name, options in dict(whole=(), half=('--half-experts',)).items():
        run_tool('export.py', *files, '--out', tmp_path / f'{name}.onnx', *options)
        sizes.append((tmp_path / f'{name}.onnx').stat().st_size)
    assert sizes[0] - sizes[1] == pytest.approx(2 * sum(expert_counts(model)), rel=0.05)


@pytest.fixture
def shapes(tmp_path):
    """The option that names a data set with three images in its test set and a file of none."""
    make_shapes(tmp_path / 'shapes', dict(test=3), size=96)
    (tmp_path / 'shapes/test/0.png').write_text('of no split')
    return '--cfg-options', f'test_dataloader.dataset.data_root={tmp_path / "shapes"}/'


@pytest.mark.long
def test_the_size_is_given_and_real_images_are_those_of_the_test_set(
    small_detector, small_cfg, save_trained, shapes, run_tool, tmp_path, capsys
):
    files = save_trained(small_detector('RetinaNet'), small_cfg('RetinaNet'), tmp_path)
    run_tool('export.py', *files, '--batch', '2', '--size', '96x64', *shapes)
    assert compared(capsys.readouterr().out.splitlines()) == [['2', 'random'], ['2', 'real']]
    (images,) = onnx.load(tmp_path / 'trained.onnx').graph.input
    assert [side.dim_value for side in images.type.tensor_type.shape.dim] == [2, 3, 96, 64]


def test_a_torch_export_file_has_the_options_and_is_compared_on_the_test_set(
    trained, small_detector, shapes, run_tool, tmp_path, capsys
):
    options = ('--format', 'torch-export', '--batch', '2', '--size', '96x64', '--half-experts')
    run_tool('export.py', *trained, *options, *shapes)
    assert compared(capsys.readouterr().out.splitlines()) == [['2', 'random'], ['2', 'real']]
    program = torch.export.load(tmp_path / 'trained.pt2')
    (images,) = program.graph_signature.user_inputs
    (node,) = program.graph.find_nodes(op='placeholder', target=images)
    assert node.meta['val'].shape == (2, 3, 96, 64)
    halves = [each.numel() for each in program.state_dict.values() if each.dtype == torch.float16]
    assert sorted(halves) == sorted(expert_counts(small_detector()))


@pytest.mark.long
@pytest.mark.parametrize(
    'kind', ['SSD, routed neck', 'SSD, static', 'SSDLite', 'RetinaNet', 'RetinaNet, SepBN']
)
def test_each_kind_of_detector_becomes_a_file_that_agrees(
    small_detector, small_cfg, save_trained, run_tool, tmp_path, kind
):
    files = save_trained(small_detector(kind), small_cfg(kind), tmp_path)
    run_tool('export.py', *files, '--batch', 'dynamic', '--nms')


@pytest.mark.long
def test_a_torch_export_file_for_any_batch_detects_what_mmdet_does(
    trained, small_detector, run_tool, images, mmdet_detections, tmp_path
):
    options = ('--format', 'torch-export', '--batch', 'dynamic', '--nms')
    run_tool('export.py', *trained, *options)
    extra = {'condconv_det.json': ''}
    program = torch.export.load(tmp_path / 'trained.pt2', extra_files=extra).module()
    assert json.loads(extra['condconv_det.json'])['num_classes'] == 5
    model = small_detector()
    for count in (1, 4):
        outputs = [output.numpy() for output in program(images[:count].float())]
        assert_detected_by_file(outputs, mmdet_detections(model, images[:count]))


@pytest.mark.parametrize(
    'options, hint',
    [((), '$'), (('--nms',), '; scores that are nearly equal, .* leave out --nms$')],
)
def test_a_file_that_computes_something_else_is_not_left(
    trained, run_tool, monkeypatch, tmp_path, options, hint
):
    monkeypatch.setattr(export, 'write_export', lambda detector, path, *_: path.write_text('file'))
    monkeypatch.setattr(export, 'open_file', lambda *_: None)
    monkeypatch.setattr(
        export, 'compare', lambda *_: Comparison(1, 'random', 0.6, 0.0, torch_ms=1, file_ms=1)
    )
    before = set(tmp_path.iterdir())
    with pytest.raises(SystemExit, match=f'differs from PyTorch by 0.6 pixels.*0.001{hint}'):
        run_tool('export.py', *trained, *options)
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize('format', [pytest.param('onnx', marks=pytest.mark.long), 'torch-export'])
def test_a_network_that_pytorch_cannot_export_is_one_error(
    format, trained, run_tool, monkeypatch, tmp_path
):
    def forward(self, images):
        return self.plain_forward(images if images.mean() > 0 else -images)

    monkeypatch.setattr(ExportableDetector, 'plain_forward', ExportableDetector.forward, False)
    monkeypatch.setattr(ExportableDetector, 'forward', forward)
    before = set(tmp_path.iterdir())
    says = rf'^error: .*trained{SUFFIXES[format]} is not written: \w+: .+'
    with pytest.raises(SystemExit, match=says) as exit:
        run_tool('export.py', *trained, '--format', format)
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
        run_tool('export.py', *trained)
    assert set(tmp_path.iterdir()) == before


def test_each_format_has_a_default_name_of_its_own(trained, run_tool, monkeypatch, tmp_path):
    monkeypatch.setattr(export, 'write_export', lambda detector, path, *_: path.write_text('file'))
    monkeypatch.setattr(export, 'open_file', lambda *_: None)
    monkeypatch.setattr(export, 'compare', lambda *_: Comparison(1, 'random', 0, 0, 1, 1))
    before = set(tmp_path.iterdir())
    for format in SUFFIXES:
        run_tool('export.py', *trained, '--format', format)
    written = {path.name for path in set(tmp_path.iterdir()) - before}
    assert written == {'trained.onnx', 'trained-cpu.onnx', 'trained.pt2'}


def test_without_a_test_set_a_size_is_enough(trained, run_tool, monkeypatch, capsys):
    monkeypatch.setattr(export, 'write_export', lambda detector, path, *_: path.write_text('file'))
    monkeypatch.setattr(export, 'open_file', lambda *_: None)
    monkeypatch.setattr(export, 'compare', lambda *_: Comparison(1, 'random', 0, 0, 1, 1))
    options = ('--size', '64x96', '--cfg-options', 'test_dataloader=None')
    run_tool('export.py', *trained, *options)
    assert 'no real images' in capsys.readouterr().out
