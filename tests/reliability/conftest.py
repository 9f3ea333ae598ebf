"""Trainings in processes of their own, which a test may kill."""

import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing import get_context
from pathlib import Path

import mmdet.apis  # noqa: F401  once here, not in each fork
import pytest
import torch

from condconv_det.compat.checkpoints import load_from_local
from condconv_det.data.shapes import make_shapes

ROOT = Path(__file__).parents[2]
CONFIG = """
_base_ = '{root}/configs/shapes/ssd128_mobilenet-v1-0.5-condconv-e8_1xb8-5e_shapes.py'

channels = (64, 128, 256, 128, 64)
model = dict(
    backbone=dict(widen_factor=0.25, cond_cfg=dict(num_experts=2)),
    neck=dict(in_channels=channels[:3], out_channels=channels, conv_cfg=dict(num_experts=2)),
    bbox_head=dict(in_channels=channels),
)
train_dataloader = dict(batch_size=4, num_workers=2, dataset=dict(data_root='{data}/'))
val_dataloader = dict(dataset=dict(data_root='{data}/'))
val_evaluator = dict(ann_file='{data}/annotations/val.json')
train_cfg = dict(max_epochs=2)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=1))
custom_hooks = [
    dict(type='EpochSeedHook'),
    dict(type='FiniteLossHook'),
    dict(type='EMAHook'),
]
randomness = dict(seed=7)
"""


class Training:
    """tools/train.py on a small SSD with EMA: 2 epochs of 3 steps; keeps newest and best."""

    def __init__(self, config: Path, work_dir: Path) -> None:
        self.config, self.work_dir = config, work_dir
        self.log = work_dir.with_suffix('.log')

    def start(
        self, *args: str, options: Sequence[str] = (), before: Callable[[], None] | None = None
    ) -> None:
        """Runs `before` and the training in a fork of this process."""
        self._begin = len(self.output())
        work_dir = ('--work-dir', str(self.work_dir))
        cfg_options = ('--cfg-options', *options) if options else ()
        self._process = get_context('fork').Process(
            target=_train, args=((self.config, *work_dir, *args, *cfg_options), self.log, before)
        )
        self._process.start()

    def wait(self) -> int:
        """The exit status, negative for a signal's number."""
        self._process.join(120)
        return self._process.exitcode

    def run(self, *args: str, **kwargs) -> int:
        self.start(*args, **kwargs)
        return self.wait()

    def wait_for_first_step(self) -> None:
        """Until CheckpointHook, in `before_train`, has logged where it will save."""
        until = time.monotonic() + 60
        while 'Checkpoints will be saved' not in self.output()[self._begin :]:
            assert self._process.is_alive() and time.monotonic() < until, self.output()
            time.sleep(0.01)

    def kill(self) -> int:
        """Kills the process and its data loaders."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # it had ended
        return self.wait()

    def output(self) -> str:
        return self.log.read_text() if self.log.exists() else ''

    def weights(self, name: str = 'epoch_2.pth') -> dict[str, torch.Tensor]:
        """All that a checkpoint has of weights: EMA's, the network's, the optimizer's moments."""
        checkpoint = load_from_local(str(self.work_dir / name))
        weights = {**checkpoint['state_dict']}
        weights |= {f'plain {key}': value for key, value in checkpoint['ema_state_dict'].items()}
        for number, state in checkpoint['optimizer']['state'].items():
            weights |= {f'optimizer {number} {key}': value for key, value in state.items()}
        return weights


def _train(args: Sequence[str], log: Path, before: Callable[[], None] | None) -> None:
    os.setpgrp()
    file = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    # by line, so that the log holds all that a killed process printed
    sys.stdout, sys.stderr = os.fdopen(1, 'w', 1), os.fdopen(2, 'w', 1)
    sys.argv = ['train.py', *map(str, args)]
    if before is not None:
        before()
    runpy.run_path(str(ROOT / 'tools' / 'train.py'), run_name='__main__')


@pytest.fixture(scope='session')
def training_config(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('reliability')
    make_shapes(folder / 'shapes', dict(train=12, val=4, test=1), size=128)
    config = folder / 'small.py'
    config.write_text(CONFIG.format(root=ROOT, data=folder / 'shapes'))
    return config


@pytest.fixture
def training(training_config, tmp_path) -> Training:
    return Training(training_config, tmp_path / 'work')


@pytest.fixture(scope='module')
def uninterrupted(training_config, tmp_path_factory) -> Training:
    training = Training(training_config, tmp_path_factory.mktemp('uninterrupted') / 'work')
    assert training.run() == 0, training.output()
    return training


@pytest.fixture
def assert_same_weights():
    def assert_same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
        assert found.keys() == expected.keys()
        assert [key for key in found if not torch.equal(found[key], expected[key])] == []

    return assert_same
