"""Classifiers of crops by the same command lines as detectors, and the detectors they start."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner.checkpoint import CheckpointLoader

from condconv_det.compat import openmmlab_tools
from condconv_det.compat.data_errors import ImageError
from condconv_det.data.crops import crop_objects
from condconv_det.data.shapes import make_shapes

CONFIGS = Path(__file__).parents[2] / 'configs'
CONFIG = CONFIGS / 'shapes/mobilenet-v1-0.5-condconv-e8_1xb32-10e_shapes-crops.py'
DETECTORS = [
    CONFIGS / 'shapes/ssd128_mobilenet-v1-0.5-condconv-e8_1xb8-5e_shapes.py',
    CONFIGS / 'bccd/ssd300_mobilenet-v1-0.5-condconv-e8_1xb8-60e_bccd.py',
]
QUICK = [
    'model.backbone.widen_factor=0.25',
    'model.backbone.cond_cfg.num_experts=2',
    'model.head.in_channels=256',
    'train_cfg.max_epochs=1',
    'train_dataloader.batch_size=16',
    *(
        f'{split}_dataloader.{option}'
        for split in ('train', 'val', 'test')
        for option in ('num_workers=0', 'persistent_workers=False')
    ),
]


@pytest.fixture(scope='module')
def crops(tmp_path_factory):
    folder = tmp_path_factory.mktemp('crops')
    splits = dict(train=8, val=4, test=4)
    for split, path in make_shapes(folder / 'shapes', splits, size=64).items():
        crop_objects(path, folder / 'shapes' / split, folder / 'data' / 'shapes-crops')
    return folder


@pytest.fixture
def own_crops(crops, tmp_path, monkeypatch):
    """A copy of the crops to spoil, in the current folder."""
    shutil.copytree(crops / 'data', tmp_path / 'data')
    monkeypatch.chdir(tmp_path)
    return tmp_path / 'data' / 'shapes-crops'


def test_a_classifier_trains_resumes_and_is_tested(crops, run_tool, capsys, monkeypatch):
    monkeypatch.chdir(crops)
    options = ['--work-dir', 'work', '--cfg-options', *QUICK]
    run_tool('train.py', CONFIG, '--no-pin-memory', *options)  # as mmpretrain's script alone can
    out = capsys.readouterr().out
    assert 'Epoch(train) [1]' in out and 'Epoch(val) [1]' in out
    first = CheckpointLoader.load_checkpoint('work/epoch_1.pth')

    run_tool('train.py', CONFIG, '--resume', *options, 'train_cfg.max_epochs=2')
    out = capsys.readouterr().out
    assert 'resumed epoch: 1' in out
    assert 'Epoch(train) [1]' not in out and 'Epoch(train) [2]' in out
    second = CheckpointLoader.load_checkpoint('work/epoch_2.pth')
    assert second['meta']['iter'] == 2 * first['meta']['iter'] > 0

    dump = ['--out', 'metrics.json', '--out-item', 'metrics']  # likewise
    run_tool('test.py', CONFIG, 'work/epoch_2.pth', *dump, *options)
    out = capsys.readouterr().out
    metrics = json.loads(Path('metrics.json').read_text())
    assert f'accuracy/top1: {metrics["accuracy/top1"]:.4f}' in out
    assert 'accuracy/top5: 100.0' in out  # of five classes


@pytest.mark.parametrize('detector', DETECTORS, ids=lambda path: path.stem)
def test_a_detector_starts_from_the_classifiers_backbone(detector, tmp_path):
    classifier_cfg, cfg = Config.fromfile(CONFIG), Config.fromfile(detector)
    init_default_scope('mmpretrain')
    classifier = MODELS.build(classifier_cfg.model)
    classifier.init_weights()
    for value in classifier.state_dict().values():
        if value.is_floating_point():
            value *= 1.1  # norms' weights, too, differ from a detector's own
    torch.save(dict(state_dict=classifier.state_dict()), tmp_path / 'classifier.pth')

    cfg.merge_from_dict(
        {
            'model.backbone.init_cfg.type': 'Pretrained',
            'model.backbone.init_cfg.checkpoint': str(tmp_path / 'classifier.pth'),
            'model.backbone.init_cfg.prefix': 'backbone.',
        }
    )
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    model.init_weights()
    started, learned = model.backbone.state_dict(), classifier.backbone.state_dict()
    assert started.keys() == learned.keys()
    assert all(torch.equal(started[key], learned[key]) for key in learned)

    # and sees in an image what the classifier saw: colours, mean, deviation and norms are the same
    image = dict(inputs=[torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)], data_samples=None)
    sees, saw = (
        net.eval().backbone(net.data_preprocessor(image)['inputs'])[-1]
        for net in (model, classifier)
    )
    assert sees.any() and torch.equal(sees, saw)


def test_an_unreadable_crop_is_named(own_crops, run_tool):
    path = sorted((own_crops / 'val' / 'star').iterdir())[0]
    path.write_bytes(b'no picture')
    with pytest.raises(ImageError, match=f'image .*{path.name} cannot be read'):
        run_tool('train.py', CONFIG, '--cfg-options', *QUICK)


def test_an_empty_class_folder_is_named_in_the_log(own_crops, run_tool, capsys):
    for path in (own_crops / 'train' / 'star').iterdir():
        path.unlink()
    run_tool('train.py', CONFIG, '--cfg-options', *QUICK)
    out = capsys.readouterr().out
    assert out.count('Found no valid file in the folder star.') == 1


def test_a_missing_class_folder_is_an_error(own_crops, run_tool):
    shutil.rmtree(own_crops / 'train' / 'star')
    with pytest.raises(AssertionError, match=r'subfolders \(4\).* specified classes \(5\)'):
        run_tool('train.py', CONFIG, '--cfg-options', *QUICK)


@pytest.mark.parametrize(
    'option, says',
    [
        ('model.head.num_classes=4', 'CondConvClsHead has num_classes=4, but the data set names 5'),
        (
            'train_dataloader.dataset.dataset.metainfo.classes=(circle,square,cross,star,triangle)',
            'train has the class folders circle, cross, square.*names circle, square, cross',
        ),
    ],
)
def test_classes_that_do_not_match_are_named(own_crops, run_tool, option, says):
    with pytest.raises(ValueError, match=says):
        run_tool('train.py', CONFIG, '--cfg-options', *QUICK, option)


@pytest.mark.parametrize('base', ["_base_ = 'mmpretrain::_base_/default_runtime.py'", ''])
def test_a_missing_mmpretrain_is_one_error(base, run_tool, tmp_path, monkeypatch):
    config = tmp_path / 'config.py'
    config.write_text(f"{base}\ndefault_scope = 'mmpretrain'")
    for module in ('mmengine.config.config', 'condconv_det.compat.external_configs'):
        monkeypatch.setattr(f'{module}.is_installed', lambda name: name != 'mmpretrain')
    find_spec = openmmlab_tools.find_spec
    monkeypatch.setattr(
        openmmlab_tools, 'find_spec', lambda name: find_spec(name) if name == 'mmdet' else None
    )
    with pytest.raises(ModuleNotFoundError, match=r'classifier.*pip install .*\[classification\]'):
        run_tool('train.py', config)


def test_help_without_a_config_is_mmdets_own(run_tool, capsys):
    with pytest.raises(SystemExit):
        run_tool('train.py', '--help')
    assert 'Train a detector' in capsys.readouterr().out
