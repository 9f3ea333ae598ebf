"""Trainings in processes of their own, which a test may kill; steps of their detector alone."""

import condconv_det  # noqa: F401  mmdet imports only after it

# isort: split
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
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from condconv_det.compat.checkpoints import load_from_local
from condconv_det.data.shapes import make_shapes

ROOT = Path(__file__).parents[2]
PATIENCE = 600  # seconds until what should have ended is taken for hanging
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
test_dataloader = dict(dataset=dict(data_root='{data}/'))
test_evaluator = dict(ann_file='{data}/annotations/test.json')
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
        self._process.join(PATIENCE)
        return self._process.exitcode

    def run(self, *args: str, **kwargs) -> int:
        self.start(*args, **kwargs)
        return self.wait()

    def wait_for_first_step(self) -> None:
        """Until CheckpointHook, in `before_train`, has logged where it will save."""
        until = time.monotonic() + PATIENCE
        while 'Checkpoints will be saved' not in self.output()[self._begin :]:
            assert self._process.is_alive() and time.monotonic() < until, self.output()
            time.sleep(0.01)

    def interrupt(self) -> int:
        """Ctrl+C, which a terminal sends to the process and its data loaders."""
        os.killpg(self._process.pid, signal.SIGINT)
        return self.wait()

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
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored by what runs in background
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


@pytest.fixture
def detector(training_config, settle) -> nn.Module:
    """The trainings' SSD in train mode, but for its norms, which are frozen.

    In double precision: rounding decides on which side of a ReLU's kink a value falls and which of
    two negatives is the harder one, and in float32 it does so within a few steps.
    """
    init_default_scope('mmdet')
    model = MODELS.build(Config.fromfile(training_config).model)
    model.init_weights()
    settle(model.backbone, torch.randn(4, 3, 128, 128))
    model.double().train()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    return model


@pytest.fixture
def batch():
    """batch(8) is 8 images of noise.

    All have boxes of the same places and sizes: SSD divides its losses by the number of matching
    anchors in a batch, so that only with equal numbers the mean over parts is that of the whole.
    """
    boxes = torch.tensor([[10, 10, 50, 60], [60, 40, 110, 90], [20, 20, 108, 108]]).float()

    def batch(images: int) -> dict[str, list]:
        samples = []
        for _ in range(images):
            sample = DetDataSample(metainfo=dict(img_shape=(128, 128), ori_shape=(128, 128)))
            sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.randint(5, (3,)))
            samples.append(sample)
        pixels = torch.randint(0, 256, (images, 3, 128, 128), dtype=torch.uint8)
        return dict(inputs=list(pixels), data_samples=samples)

    return batch


@pytest.fixture
def train_steps():
    """Trains and returns the last step's gradients, clipped if they are, and the weights."""

    def train_steps(
        model: nn.Module,
        batches: Sequence[dict[str, list]],
        wrapped: nn.Module | None = None,
        **optim_wrapper: object,
    ) -> dict[str, dict[str, torch.Tensor]]:
        optimizer = dict(type='SGD', lr=0.01, momentum=0.9)
        wrapper = build_optim_wrapper(model, dict(dict(optimizer=optimizer), **optim_wrapper))
        last = {}

        def keep_gradients(*_) -> None:
            last['gradients'] = {key: p.grad.clone() for key, p in model.named_parameters()}

        wrapper.optimizer.register_step_pre_hook(keep_gradients)
        for each in batches:
            (wrapped or model).train_step(each, wrapper)
        last['weights'] = {key: p.detach().clone() for key, p in model.named_parameters()}
        return last

    return train_steps
