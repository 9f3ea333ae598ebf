"""The command lines that train and test, on a small set of shapes."""

import os
import re
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch
from mmdet.visualization import DetLocalVisualizer
from mmengine.runner.checkpoint import CheckpointLoader

from condconv_det.compat import openmmlab_tools
from condconv_det.compat.memory import keep_freed_memory
from condconv_det.data.shapes import make_shapes

CONFIG = (
    Path(__file__).parents[2]
    / 'configs/shapes/ssd128_mobilenet-v1-0.5-condconv-e8_1xb8-5e_shapes.py'
)
CHANNELS = '(64,128,256,128,64)'
QUICK = [
    'train_dataloader.batch_size=4',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'val_dataloader.num_workers=0',
    'val_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=0',
    'model.backbone.widen_factor=0.25',
    'model.neck.in_channels=(64,128,256)',
    f'model.neck.out_channels={CHANNELS}',
    f'model.bbox_head.in_channels={CHANNELS}',
]


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shapes')
    make_shapes(folder / 'data' / 'shapes', dict(train=12, val=6, test=6), size=128)
    return folder


@pytest.fixture(autouse=True)
def _in_its_folder(shapes, monkeypatch):
    monkeypatch.chdir(shapes)


def test_trains_resumes_tests_and_draws(run_tool, capsys, monkeypatch):
    options = ['--work-dir', 'work', '--cfg-options', *QUICK]
    monkeypatch.delenv('THP_MEM_ALLOC_ENABLE', raising=False)
    run_tool('train.py', CONFIG, *options, 'train_cfg.max_epochs=1')
    asked = os.environ.get('THP_MEM_ALLOC_ENABLE')
    assert bool(asked) == (keep_freed_memory() and not torch.cuda.is_available())
    first = CheckpointLoader.load_checkpoint('work/epoch_1.pth')
    assert 'Epoch(train) [1]' in capsys.readouterr().out

    run_tool('train.py', CONFIG, '--resume', *options, 'train_cfg.max_epochs=2')
    out = capsys.readouterr().out
    assert 'resumed epoch: 1' in out
    assert 'Epoch(train) [1]' not in out and 'Epoch(train) [2]' in out
    second = CheckpointLoader.load_checkpoint('work/epoch_2.pth')
    assert (first['meta']['iter'], second['meta']['iter']) == (3, 6)

    written = []
    plain = DetLocalVisualizer.draw_texts
    monkeypatch.setattr(
        DetLocalVisualizer,
        'draw_texts',
        lambda self, texts, *args, **kwargs: (
            written.append(texts) or plain(self, texts, *args, **kwargs)
        ),
    )
    shown = ['--show-dir', 'pictures', *options, 'default_hooks.visualization.score_thr=0.01']
    by_domain = ['test_evaluator.type=GroupedCocoMetric', 'test_evaluator.group_by=domain']
    # this config says resume=True; the test needs weights alone
    run_tool('test.py', f'work/{CONFIG.name}', 'work/epoch_2.pth', *shown, *by_domain)
    out = capsys.readouterr().out
    assert 'resumed epoch' not in out
    assert 'bbox_mAP_copypaste' in out
    assert {'domain_mAP', 'domain_mAP_fog'} <= set(re.findall(r'coco/(domain_mAP\w*): ', out))
    pictures = list(Path('work').glob('*/pictures/*.jpg'))
    assert len(pictures) == 6
    # true boxes left, detections right
    assert cv2.imread(str(pictures[0])).shape == (128, 256, 3)
    # with a class, the detections with a score too
    assert {re.sub(r'^[a-z]+', 'class', text) for text in written} > {'class'}
    assert all(re.fullmatch(r'[a-z]+( 0\.\d\d)?', text) for text in written)


@pytest.mark.parametrize(
    'option, says',
    [
        ('model.bbox_head.num_classes=3', 'num_classes=3, but the data set names 5 classes'),
        ('model.backbone.cond_cfg.start=14', 'cond_cfg.start must be the number of a block'),
        ('model.backbone.cond_cfg.num_experts=0', 'num_experts must be an integer of at least 1'),
        ('model.backbone.cond_cfg.expert=8', r"cond_cfg has unknown keys \['expert'\]"),
    ],
)
def test_bad_input_is_named(run_tool, option, says):
    with pytest.raises((ValueError, OSError), match=says):
        run_tool('train.py', CONFIG, '--work-dir', 'failed', '--cfg-options', *QUICK, option)


def test_a_rate_of_experts_that_nothing_would_set_is_one_error_before_the_run(run_tool):
    option = 'optim_wrapper.paramwise_cfg.expert_lr_mult=matched'
    with pytest.raises(SystemExit, match='^error: DefaultOptimWrapperConstructor ignores'):
        run_tool('train.py', CONFIG, '--cfg-options', option)


def test_files_that_are_not_there_are_one_error_before_the_run(run_tool):
    for arguments, says in (
        (['train.py', CONFIG, '--cfg-options', 'load_from=no.pth'], 'checkpoint no.pth does not'),
        (['train.py', CONFIG, '--resume', 'no.pth'], 'checkpoint no.pth does not exist'),
        (['test.py', CONFIG, 'no.pth'], 'checkpoint no.pth does not exist'),
        (
            ['train.py', CONFIG, '--cfg-options', 'train_dataloader.dataset.ann_file=no.json'],
            r'file data/shapes/no.json \(train_dataloader.dataset.ann_file\) does not exist',
        ),
    ):
        with pytest.raises(SystemExit, match=f'^error: .*{says}'):
            run_tool(*arguments)


@pytest.mark.parametrize('option', ['-h', '--help'])
def test_help_names_the_backend_and_what_the_script_takes(run_tool, capsys, option):
    with pytest.raises(SystemExit):
        run_tool('test.py', option)
    out = capsys.readouterr().out
    assert '--backend {pytorch,onnx,openvino}' in out and '--show-dir' in out


def test_sigterm_ends_a_training_at_once(run_tool, monkeypatch):
    """Also one that waits for other processes, which would keep a handler of Python's waiting."""
    handlers = []
    script = SimpleNamespace(
        run_path=lambda *_, **__: handlers.append(signal.getsignal(signal.SIGTERM))
    )
    monkeypatch.setattr(openmmlab_tools, 'runpy', script)
    before = signal.getsignal(signal.SIGTERM)
    run_tool('train.py', CONFIG)
    assert handlers == [signal.SIG_DFL]
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize('resume', [['--resume'], ['--resume', 'auto'], ['--resume=auto']])
def test_resume_goes_on_from_the_newest_checkpoint_or_else_from_load_from(
    run_tool, monkeypatch, tmp_path, resume
):
    given = []
    script = SimpleNamespace(run_path=lambda *_, **__: given.append(sys.argv[1:]))
    monkeypatch.setattr(openmmlab_tools, 'runpy', script)
    start = tmp_path / 'start.pth'
    start.touch()
    options = ['--work-dir', str(tmp_path / 'work'), '--cfg-options', f'load_from={start}']
    run_tool('train.py', CONFIG, *resume, *options)
    run_tool('train.py', CONFIG, *resume, *options[:2])
    (tmp_path / 'work').mkdir()
    (tmp_path / 'work' / 'epoch_1.pth').touch()
    run_tool('train.py', CONFIG, *resume, *options)
    config = str(CONFIG)
    assert given == [
        [config, *options],
        [config, *resume, *options[:2]],
        [config, *resume, *options, '--cfg-options', 'load_from=None'],
    ]
