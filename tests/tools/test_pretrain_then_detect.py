"""The script that pretrains a backbone on crops and detects with it, on a miniature of BCCD."""

import json
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from mmengine.runner.checkpoint import CheckpointLoader
from PIL import Image

SCRIPT = Path(__file__).parents[2] / 'tools' / 'pretrain_then_detect.py'
# Small networks, and no processes for so few images.
BOTH = [
    'model.backbone.widen_factor=0.25',
    'model.backbone.cond_cfg.num_experts=2',
    *(
        f'{split}_dataloader.{option}'
        for split in ('train', 'val', 'test')
        for option in ('num_workers=0', 'persistent_workers=False')
    ),
]
CLASSIFIER = [*BOTH, 'model.head.in_channels=256']
CHANNELS = '(64,128,256,128,64)'
DETECTOR = [
    *BOTH,
    'model.neck.in_channels=(64,128,256)',
    f'model.neck.out_channels={CHANNELS}',
    f'model.bbox_head.in_channels={CHANNELS}',
]


@pytest.fixture
def bccd(tmp_path):
    """A folder with two images a split in data/bccd, each with a cell of each kind."""
    data = tmp_path / 'data' / 'bccd'
    for folder in ('annotations', 'JPEGImages'):
        (data / folder).mkdir(parents=True)
    boxes = {'Platelets': [5, 5, 15, 15], 'RBC': [30, 30, 30, 30], 'WBC': [70, 50, 80, 60]}
    rng = np.random.default_rng(0)
    for split in ('train', 'val', 'test'):
        images, annotations = [], []
        for number in (1, 2):
            image = dict(id=number, file_name=f'{split}{number}.jpg', width=160, height=120)
            images.append(image)
            pixels = rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(data / 'JPEGImages' / image['file_name'])
            for category, box in enumerate(boxes.values(), 1):
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=number,
                        category_id=category,
                        bbox=box,
                        area=box[2] * box[3],
                        iscrowd=0,
                    )
                )
        categories = [dict(id=i, name=name) for i, name in enumerate(boxes, 1)]
        coco = dict(images=images, annotations=annotations, categories=categories)
        (data / 'annotations' / f'{split}.json').write_text(json.dumps(coco))
    return tmp_path


@pytest.fixture
def run_script(monkeypatch, forget_runs):
    """Runs the script and its tools in this process; returns the tools' names and arguments."""

    def run(*args):
        calls = []
        run_elsewhere = subprocess.run

        def run_here(command, **options):
            if command[0] != sys.executable:
                return run_elsewhere(command, **options)
            calls.append(command[1:])
            if Path(command[1]).stem != 'crop_objects':
                options = DETECTOR if 'ssd300' in command[2] else CLASSIFIER
                command += [*(() if '--cfg-options' in command else ['--cfg-options']), *options]
            with monkeypatch.context() as patch:
                patch.setattr(sys, 'argv', command[1:])
                patch.setenv('LOCAL_RANK', '0')
                forget_runs()
                try:
                    runpy.run_path(command[1], run_name='__main__')
                except SystemExit as end:
                    return SimpleNamespace(returncode=end.code)
            return SimpleNamespace(returncode=0)

        with monkeypatch.context() as patch:
            patch.setattr(subprocess, 'run', run_here)
            patch.setattr(sys, 'argv', [str(SCRIPT), *args])
            runpy.run_path(str(SCRIPT), run_name='__main__')
        return [Path(call[0]).stem for call in calls]

    return run


@pytest.mark.long
def test_it_trains_both_detectors_alike_and_goes_on_where_it_ended(
    bccd, run_script, monkeypatch, capsys
):
    monkeypatch.chdir(bccd)
    args = ('--out', 'out', '--epochs', '1', '--classifier-epochs', '1')
    trained = ['train', 'test', 'train', 'test', 'test', 'train', 'test', 'test']
    assert run_script(*args) == ['crop_objects', *trained]
    out = capsys.readouterr().out
    assert out.count('load backbone. in model from: out/classifier-1e_seed0/epoch_1.pth') == 1
    table = out[out.index('| SSD300 from') :]
    assert table.count('| scratch |') == table.count('| classifier-1e |') == 2
    for png in ('mAP.png', 'loss.png'):
        assert Path('out', png).read_bytes().startswith(b'\x89PNG')
    steps = [
        CheckpointLoader.load_checkpoint(path.read_text())['meta']['iter']
        for path in Path('out').glob('ssd300-*/last_checkpoint')
    ]
    assert steps == [1, 1]

    # as if the second detector's training had been cut short
    (last,) = Path('out').glob('ssd300-from-classifier-1e_*/last_checkpoint')
    last.unlink()
    assert run_script(*args) == ['crop_objects', 'train']
    assert capsys.readouterr().out.endswith(table)


def test_without_the_data_it_says_where_they_come_from(tmp_path, run_script, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match='data/bccd.*does not exist; docs/measured/results.md'):
        run_script()
