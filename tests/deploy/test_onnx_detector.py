"""`tools/test.py --backend onnx` beside the same script with PyTorch."""

import pickle
from pathlib import Path

import onnx
import pytest
import torch

from condconv_det.data.shapes import make_shapes
from condconv_det.deploy import export_detector
from condconv_det.study.work_dirs import read_metrics


@pytest.fixture(scope='module')
def folder(small_detector, small_cfg, tmp_path_factory):
    """With data, config.py, trained.pth and files of it, for two images and, with NMS, for one."""
    folder = tmp_path_factory.mktemp('exported')
    make_shapes(folder / 'data/shapes', dict(train=1, val=1, test=5), size=96)
    torch.save(dict(state_dict=small_detector().state_dict()), folder / 'trained.pth')
    cfg = small_cfg('SSD')
    cfg.model.data_preprocessor.pad_size_divisor = 32
    cfg.test_dataloader.update(num_workers=0, batch_size=3)
    cfg.dump(folder / 'config.py')
    for name, batch, with_nms in (('two.onnx', 2, False), ('nms.onnx', 1, True)):
        export_detector(
            cfg, folder / 'trained.pth', folder / name, 'onnx', batch, (64, 96), with_nms
        )
    return folder


@pytest.fixture(autouse=True)
def _in_its_folder(folder, monkeypatch):
    monkeypatch.chdir(folder)


def predictions(run_tool, checkpoint, *options):
    run_tool('test.py', 'config.py', checkpoint, '--out', 'found.pkl', *options)
    found = pickle.loads(Path('found.pkl').read_bytes())
    return {each['img_id']: each['pred_instances'] for each in found}


def test_finds_what_pytorch_finds_also_in_smaller_images(run_tool):
    # batches of 3 and 2, in calls of 2
    for scale in ('(96,64)', '(80,40)'):
        options = ('--cfg-options', f'test_dataloader.dataset.pipeline.1.scale={scale}')
        expected = predictions(run_tool, 'trained.pth', *options)
        found = predictions(run_tool, 'two.onnx', '--backend', 'onnx', *options)
        assert found.keys() == expected.keys() and len(found) == 5
        for image, theirs in expected.items():
            ours = found[image]
            assert len(theirs['labels']) > 3
            # scores that are nearly equal may change places
            alike = ours['labels'][:, None] == theirs['labels']
            alike &= (ours['scores'][:, None] - theirs['scores']).abs() < 1e-4
            alike &= (ours['bboxes'][:, None] - theirs['bboxes']).abs().amax(-1) < 0.01
            assert alike.any(0).all() and alike.any(1).all()


def test_measures_a_file_with_nms_inside_as_pytorch(run_tool):
    run_tool('test.py', 'config.py', 'trained.pth', '--work-dir', 'pytorch')
    run_tool('test.py', 'config.py', 'nms.onnx', '--backend', 'onnx', '--work-dir', 'onnx')
    accuracies = [
        {key: value for key, value in read_metrics(Path(folder)).items() if 'bbox' in key}
        for folder in ('pytorch', 'onnx')
    ]
    assert accuracies[0] and accuracies[0] == accuracies[1]


def test_keeps_the_trainings_config_and_its_own_beside_the_log(run_tool):
    dumped = Path('trained/config.py')
    dumped.parent.mkdir()
    dumped.write_bytes(Path('config.py').read_bytes())
    run_tool('test.py', str(dumped), 'nms.onnx', '--backend', 'onnx', '--work-dir', 'trained')
    assert dumped.read_bytes() == Path('config.py').read_bytes()
    (beside,) = dumped.parent.glob('*/vis_data/config.py')
    assert 'OnnxDetector' in beside.read_text()


def test_bad_files_are_named(run_tool):
    Path('text.onnx').write_text('no model')
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], 'empty', [], [])), 'empty.onnx')
    for name, says in (
        ('nowhere.onnx', 'nowhere.onnx does not exist'),
        ('text.onnx', 'text.onnx is not an ONNX file that ONNX Runtime takes'),
        ('empty.onnx', 'empty.onnx is not'),
    ):
        with pytest.raises(SystemExit, match=f'error: .*{says}'):
            run_tool('test.py', 'config.py', name, '--backend', 'onnx')


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
