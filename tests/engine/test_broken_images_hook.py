import logging
import re
from types import SimpleNamespace

import pytest
import torch
from mmdet.datasets import CocoDataset
from mmengine.dataset import BaseDataset, RepeatDataset
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from torch import nn

from condconv_det.compat.data_errors import ImageError
from condconv_det.data.shapes import CLASSES, make_shapes
from condconv_det.engine import SkipBrokenImagesHook
from condconv_det.engine.broken_images_hook import _plain_prepare_data

NUM_IMAGES = 8


@pytest.fixture(autouse=True)
def _leave_nothing_behind(monkeypatch):
    """The runners' scope, and the hook of a run that stopped, end with each test."""
    monkeypatch.setattr(DefaultScope, '_instance_dict', {})
    monkeypatch.setattr(BaseDataset, 'prepare_data', _plain_prepare_data)


@pytest.fixture
def root(tmp_path):
    make_shapes(tmp_path / 'shapes', dict(train=NUM_IMAGES), size=64)
    return tmp_path / 'shapes'


def break_images(root, *numbers):
    """Each in another way; returns their names."""
    paths = [root / 'train' / f'{number:06d}.jpg' for number in numbers]
    for index, path in enumerate(paths):
        content = path.read_bytes()
        path.unlink()
        if index % 3:
            path.write_bytes(content[: index % 3 * 300 - 300])
    return {path.name for path in paths}


class Network(BaseModel):
    """Keeps the names of the images that it sees."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.seen = []

    def forward(self, inputs, data_samples, mode):
        self.seen += [sample.img_path.split('/')[-1] for sample in data_samples]
        return dict(loss=self.weight.square())


def make_runner(root, train_cfg, num_workers=0, sampler='DefaultSampler', **hook):
    DefaultScope.get_instance('test', scope_name='mmdet')
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='PackDetInputs', meta_keys=['img_path']),
    ]
    return Runner(
        Network(),
        str(root / 'work'),
        train_dataloader=dict(
            dataset=dict(
                type='RepeatDataset',
                times=1,
                dataset=dict(
                    type='CocoDataset',
                    data_root=str(root),
                    ann_file='annotations/train.json',
                    data_prefix=dict(img='train/'),
                    metainfo=dict(classes=CLASSES),
                    pipeline=pipeline,
                ),
            ),
            sampler=dict(type=sampler, shuffle=False),
            batch_size=2,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
        ),
        train_cfg=train_cfg,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(skip=dict(type='SkipBrokenImagesHook', **hook), checkpoint=None),
        default_scope='mmdet',
        experiment_name=root.parent.name,
    )


def warnings_of(runner):
    """Lines of the log that count broken images, and those that name one."""
    log = next(
        handler.baseFilename
        for handler in runner.logger.handlers
        if isinstance(handler, logging.FileHandler)
    )
    with open(log) as file:
        text = file.read()
    counts = [int(n) for n in re.findall(r'(\d+) times another image was drawn', text)]
    return counts, re.findall(
        r'^  image .*/(\d+.jpg) cannot be read: .+ \((\d+) times\)', text, re.M
    )


EPOCHS = dict(by_epoch=True, max_epochs=3)
ITERATIONS = dict(by_epoch=False, max_iters=4 * NUM_IMAGES // 2)


@pytest.mark.parametrize('num_workers', [0, pytest.param(2, marks=pytest.mark.long)])
def test_other_images_are_drawn_and_each_epoch_counts_and_names(root, num_workers):
    broken = break_images(root, 1, 4, 5)
    runner = make_runner(root, EPOCHS, num_workers)
    runner.train()
    assert len(runner.model.seen) == 3 * NUM_IMAGES
    assert not broken & set(runner.model.seen)
    counts, named = warnings_of(runner)
    assert len(counts) == 3 and min(counts) >= 3
    assert {name for name, _ in named} == broken
    assert sum(counts) == sum(int(times) for _, times in named)


@pytest.mark.parametrize('num_workers', [0, 1])
def test_training_that_counts_iterations_goes_on_too(root, num_workers):
    broken = break_images(root, 0)
    runner = make_runner(root, ITERATIONS, num_workers, sampler='InfiniteSampler')
    runner.train()
    assert not broken & set(runner.model.seen)
    ((count,), ((name, _),)) = warnings_of(runner)
    assert count >= 4 and {name} == broken


def test_whole_images_are_all_seen_and_nothing_is_logged(root):
    runner = make_runner(root, EPOCHS)
    runner.train()
    assert len(set(runner.model.seen)) == NUM_IMAGES
    assert warnings_of(runner) == ([], [])


@pytest.mark.parametrize('num_workers', [0, 1])
def test_a_set_of_broken_images_stops_the_training(root, num_workers):
    break_images(root, *range(NUM_IMAGES))
    runner = make_runner(root, EPOCHS, num_workers, max_in_a_row=5)
    with pytest.raises(ImageError, match='image .* cannot be read: .*; nor could the 4 .* before'):
        runner.train()


def coco(root, **kwargs):
    return CocoDataset(
        data_root=str(root),
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        pipeline=[dict(type='LoadImageFromFile')],
        **kwargs,
    )


def test_in_validation_and_test_a_broken_image_stops(root):
    SkipBrokenImagesHook()
    break_images(root, 0)
    dataset = coco(root, test_mode=True)
    advice = f'check_dataset.py {root}/annotations/train.json --images {root}/train/ --decode --fix'
    with pytest.raises(ImageError, match=f'000000.jpg cannot be read: .*; `python tools/{advice}'):
        dataset[0]


@pytest.mark.parametrize('stage', ['val', 'test'])
def test_there_it_stops_without_test_mode_too(root, stage):
    hook = SkipBrokenImagesHook()
    break_images(root, 0)
    dataset = coco(root)
    assert dataset[0]['img_path'] != f'{root}/train/000000.jpg'
    loader = SimpleNamespace(dataset=RepeatDataset(dataset, 1))
    getattr(hook, f'before_{stage}')(SimpleNamespace(**{f'{stage}_dataloader': loader}))
    with pytest.raises(ImageError, match='000000.jpg cannot be read'):
        dataset[0]


def test_after_the_run_a_broken_image_stops_as_before(root):
    make_runner(root, EPOCHS).train()
    assert BaseDataset.prepare_data is _plain_prepare_data


def test_the_run_of_another_hook_does_not_end_it(root):
    broken = break_images(root, 0)
    first, second = make_runner(root, EPOCHS), make_runner(root, EPOCHS)
    for runner in (first, second):
        runner.train()
        assert runner.model.seen and not broken & set(runner.model.seen)


def test_the_end_of_a_run_leaves_the_hook_of_another_in_place():
    first, second = SkipBrokenImagesHook(), SkipBrokenImagesHook()
    first.after_run(None)
    assert BaseDataset.prepare_data is not _plain_prepare_data
    second.after_run(None)
    assert BaseDataset.prepare_data is _plain_prepare_data


def test_an_argument_out_of_range_is_named():
    with pytest.raises(ValueError, match='max_in_a_row must be at least 1, got 0'):
        SkipBrokenImagesHook(max_in_a_row=0)
