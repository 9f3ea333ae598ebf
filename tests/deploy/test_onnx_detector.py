"""`tools/test.py --backend onnx` and `openvino` beside the same script with PyTorch."""

import json
import pickle
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from mmengine.config import Config

from condconv_det.data.shapes import make_shapes
from condconv_det.deploy import ExportableDetector, export_detector
from condconv_det.deploy.onnx_detector import OnnxDetector
from condconv_det.deploy.runtimes import OpenedFile
from condconv_det.deploy.write import describe
from condconv_det.study.work_dirs import read_metrics


@pytest.fixture(scope='module')
def folder(saved_ssd, one_image_file, small_cfg, tmp_path_factory):
    """With data, config.py, trained.pth and nms.onnx, of it for one image."""
    folder = tmp_path_factory.mktemp('exported')
    make_shapes(folder / 'data/shapes', dict(train=1, val=1, test=5), size=96)
    shutil.copy(saved_ssd[1], folder)
    shutil.copy(one_image_file, folder)
    cfg = small_cfg('SSD')
    cfg.model.data_preprocessor.pad_size_divisor = 32
    cfg.test_dataloader.update(num_workers=0, batch_size=3)
    cfg.dump(folder / 'config.py')
    return folder


@pytest.fixture(autouse=True)
def _in_its_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


def predictions(run_tool, checkpoint, *options):
    run_tool('test.py', 'config.py', checkpoint, '--out', 'found.pkl', *options)
    found = pickle.loads(Path('found.pkl').read_bytes())
    return {each['img_id']: each['pred_instances'] for each in found}


def assert_alike(found, expected):
    assert found.keys() == expected.keys() and len(found) == 5
    for image, theirs in expected.items():
        ours = found[image]
        assert len(theirs['labels']) > 3
        # scores that are nearly equal may change places
        alike = ours['labels'][:, None] == theirs['labels']
        alike &= (ours['scores'][:, None] - theirs['scores']).abs() < 1e-4
        alike &= (ours['bboxes'][:, None] - theirs['bboxes']).abs().amax(-1) < 0.01
        assert alike.any(0).all() and alike.any(1).all()


def in_torch(detector):
    """The detector itself in the place of a file for two images, which takes long to export."""

    @torch.no_grad()
    def run(images):
        assert images.shape == (2, 3, 64, 96) and images.dtype == np.float32
        return [output.numpy() for output in detector(torch.from_numpy(images))]

    return OpenedFile(run, 2, describe(detector))


@pytest.fixture(params=['onnx', 'openvino'])
def backend(request):
    if request.param == 'openvino':
        pytest.importorskip('openvino', reason="needs OpenVINO: pip install -e '.[openvino]'")
    return request.param


@pytest.fixture(params=['detector', pytest.param('file', marks=pytest.mark.long)])
def two_images(request, folder, small_detector, monkeypatch):
    """What takes two images at a time, without NMS, in the place of two.onnx or in this file."""
    if request.param == 'file':
        cfg = Config.fromfile(folder / 'config.py')
        checkpoint = folder / 'trained.pth'
        export_detector(cfg, checkpoint, folder / 'two.onnx', 'onnx', batch=2, size=(64, 96))
    else:
        (folder / 'two.onnx').touch()
        detector = ExportableDetector(small_detector(), (64, 96))
        monkeypatch.setattr(
            'condconv_det.deploy.onnx_detector.open_onnx', lambda *_: in_torch(detector)
        )


def test_finds_what_pytorch_finds_also_in_smaller_images(run_tool, two_images):
    # batches of 3 and 2, in calls of 2; boxes that are too small in the original image are left out
    for scale in ('(96,64)', '(80,40)'):
        scale = f'test_dataloader.dataset.pipeline.1.scale={scale}'
        options = ('--cfg-options', scale, 'model.test_cfg.min_bbox_size=20')
        expected = predictions(run_tool, 'trained.pth', *options)
        found = predictions(run_tool, 'two.onnx', '--backend', 'onnx', *options)
        assert_alike(found, expected)


def test_measures_a_file_with_nms_inside_as_pytorch(run_tool, backend):
    expected = predictions(run_tool, 'trained.pth', '--work-dir', 'pytorch')
    found = predictions(run_tool, 'nms.onnx', '--backend', backend, '--work-dir', backend)
    assert 0 in torch.cat([each['labels'] for each in expected.values()])  # -1 fills up the file's
    assert_alike(found, expected)
    accuracies = [
        {key: value for key, value in read_metrics(Path(folder)).items() if 'bbox' in key}
        for folder in ('pytorch', backend)
    ]
    assert accuracies[0] and accuracies[0] == accuracies[1]


def test_takes_a_config_with_a_data_preprocessor_beside_its_network(run_tool):
    cfg = Config.fromfile('config.py')
    cfg.data_preprocessor = cfg.model.data_preprocessor
    cfg.dump('beside.py')
    run_tool('test.py', 'beside.py', 'nms.onnx', '--backend', 'onnx', '--work-dir', 'beside')
    assert any('mAP' in key for key in read_metrics(Path('beside')))


def test_a_file_with_nms_finds_nothing_beyond_a_smaller_image(run_tool):
    scale = 'test_dataloader.dataset.pipeline.1.scale=(80,40)'
    found = predictions(run_tool, 'nms.onnx', '--backend', 'onnx', '--cfg-options', scale)
    boxes = torch.cat([each['bboxes'] for each in found.values()])
    assert len(boxes) and (boxes[:, 2:] > boxes[:, :2]).all()


@pytest.mark.parametrize(
    'option, says',
    [
        ('model.test_cfg.score_thr=0.9', 'has NMS inside, with score_thr=.*; the config has 0.9'),
        ('model.test_cfg.nms.iou_threshold=0.9', 'has NMS inside, with nms='),
    ],
)
def test_what_a_file_with_nms_would_not_do_is_refused(run_tool, option, says):
    with pytest.raises((SystemExit, ValueError), match=says):
        run_tool('test.py', 'config.py', 'nms.onnx', '--backend', 'onnx', '--cfg-options', option)


def test_a_config_may_name_the_function_of_its_nms(small_detector, monkeypatch):
    Path('function.py').write_text(
        'from mmcv.ops import nms\ntest_cfg = dict(nms=dict(type=nms))\n'
    )
    detector = ExportableDetector(small_detector(), (64, 96), with_nms=True)
    detector.model.test_cfg = Config.fromfile('function.py').test_cfg
    opened = OpenedFile(None, 1, json.loads(json.dumps(describe(detector))))
    monkeypatch.setattr('condconv_det.deploy.onnx_detector.open_onnx', lambda *_: opened)
    OnnxDetector('file.onnx', Config.fromfile('function.py').test_cfg, num_classes=5)


def test_keeps_the_trainings_config_and_its_own_beside_the_log(run_tool):
    dumped = Path('trained/config.py')
    dumped.parent.mkdir()
    dumped.write_bytes(Path('config.py').read_bytes())
    run_tool('test.py', str(dumped), 'nms.onnx', '--backend', 'onnx', '--work-dir', 'trained')
    assert dumped.read_bytes() == Path('config.py').read_bytes()
    (beside,) = dumped.parent.glob('*/vis_data/config.py')
    assert 'OnnxDetector' in beside.read_text()


def test_bad_files_are_named(run_tool, backend):
    Path('text.onnx').write_text('no model')
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], 'empty', [], [])), 'empty.onnx')
    for name, says in (
        ('nowhere.onnx', 'nowhere.onnx does not exist'),
        ('text.onnx', 'text.onnx is not an ONNX file that (ONNX Runtime|OpenVINO) takes'),
        ('empty.onnx', 'empty.onnx is not'),
        ('config.py', 'runs .onnx files of tools/export.py, got config.py'),
    ):
        with pytest.raises(SystemExit, match=f'error: .*{says}'):
            run_tool('test.py', 'config.py', name, '--backend', backend)


@pytest.mark.parametrize(
    'backend, package, found',
    [
        ('onnx', 'onnxruntime', None),
        ('openvino', 'openvino', None),
        ('openvino', 'openvino', SimpleNamespace(__version__='2024.6.0-17404')),
    ],
)
def test_a_runtime_that_is_missing_or_too_old_is_one_error_and_leaves_no_folder(
    run_tool, monkeypatch, backend, package, found
):
    monkeypatch.setitem(sys.modules, package, found)
    before = set(Path().rglob('*'))
    with pytest.raises(SystemExit, match=f'^error: --backend {backend} needs {package}'):
        run_tool('test.py', 'config.py', 'nms.onnx', '--backend', backend, '--work-dir', 'failed')
    assert set(Path().rglob('*')) == before


@pytest.mark.parametrize('option', [['--tta'], ['--launcher', 'pytorch'], ['--launcher=pytorch']])
def test_options_that_change_the_network_are_refused(run_tool, option):
    with pytest.raises(SystemExit, match=f'onnx does not go with {option[0].split("=")[0]}'):
        run_tool('test.py', 'config.py', 'nms.onnx', '--backend', 'onnx', *option)


def test_other_classes_and_larger_images_are_named(run_tool):
    for option, says in (
        ('model.bbox_head.num_classes=7', 'nms.onnx has 5 classes, the config 7'),
        (
            'test_dataloader.dataset.pipeline.1.scale=(128,128)',
            'an image of 128x128 does not fit the file, .* --size 64x96',
        ),
    ):
        with pytest.raises(SystemExit, match=says):
            run_tool(
                'test.py', 'config.py', 'nms.onnx', '--backend', 'onnx', '--cfg-options', option
            )
