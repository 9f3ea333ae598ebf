"""The scripts for several processes, with two of them on the CPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from condconv_det.data.shapes import make_shapes

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/shapes/ssd128_mobilenet-v1-0.5-condconv-e8_1xb8-5e_shapes.py'
OPTIONS = [
    '--work-dir',
    'work',
    '--cfg-options',
    # mmengine wraps for a GPU unless told otherwise
    'model_wrapper_cfg.type=MMDistributedDataParallel',
    'model_wrapper_cfg.device_ids=None',
    'train_cfg.max_epochs=1',
    'train_dataloader.batch_size=4',
    'default_hooks.logger.interval=1',
]


@pytest.fixture
def run(tmp_path):
    make_shapes(tmp_path / 'data' / 'shapes', dict(train=16, val=4, test=4), size=64)
    path = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'

    def run(script, *args):
        return subprocess.run(
            [ROOT / 'tools' / script, CONFIG, *args, *OPTIONS],
            cwd=tmp_path,
            env={**os.environ, 'PATH': path, 'PORT': '29571'},
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.long
def test_two_processes_train_and_test(run):
    trained = run('dist_train.sh', '2')
    assert trained.returncode == 0, trained.stderr
    # 16 images in batches of 4, over two processes: two steps
    assert 'Epoch(train) [1][2/2]' in trained.stdout
    assert 'Saving checkpoint at 1 epochs' in trained.stdout

    tested = run('dist_test.sh', 'work/epoch_1.pth', '2')
    assert tested.returncode == 0, tested.stderr
    assert 'bbox_mAP_copypaste' in tested.stdout
