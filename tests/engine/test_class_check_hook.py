import tempfile
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from mmengine.model import BaseModel, BaseTTAModel
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from torch import nn

from condconv_det import CondConv2d
from condconv_det.compat.checkpoints import CheckpointError
from condconv_det.engine import ClassCheckHook


@pytest.mark.parametrize('stage', ['train', 'val', 'test'])
def test_before_each_stage_its_own_data_are_checked(stage):
    model = nn.Module()
    model.bbox_head = nn.Module()
    model.bbox_head.num_classes = 2
    runner = SimpleNamespace(model=model)
    for name in ('train', 'val', 'test'):
        classes = ('cat', 'dog', 'cow') if name == stage else ('cat', 'dog')
        dataset = SimpleNamespace(metainfo=dict(classes=classes))
        setattr(runner, f'{name}_dataloader', SimpleNamespace(dataset=dataset))
    hook = ClassCheckHook()
    for name in {'train', 'val', 'test'} - {stage}:
        getattr(hook, f'before_{name}')(runner)
    with pytest.raises(ValueError, match='num_classes=2, .* 3 classes: cat, dog, cow'):
        getattr(hook, f'before_{stage}')(runner)


class Detector(BaseModel):
    def __init__(self, num_experts=0):
        super().__init__()
        conv = partial(CondConv2d, num_experts=num_experts) if num_experts else nn.Conv2d
        self.bbox_head = nn.Sequential(conv(3, 4, 1), nn.BatchNorm2d(4))
        self.bbox_head.num_classes = 2

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.bbox_head(inputs)


class FlipTTAModel(BaseTTAModel):
    def merge_preds(self, data_samples_list):
        return data_samples_list[0]


def checked(model, checkpoint, classes=('cat', 'dog')):
    """A runner whose hook has seen the checkpoint that is to be tested."""
    dataset = SimpleNamespace(metainfo=dict(classes=classes))
    loader = SimpleNamespace(dataset=dataset)
    runner = SimpleNamespace(
        model=model,
        test_dataloader=loader,
        val_dataloader=loader,
        train_dataloader=loader,
        cfg={},  # its load_from need not be what was loaded
    )
    with tempfile.TemporaryDirectory() as folder:
        path = f'{folder}/epoch_3.pth'
        torch.save(checkpoint, path)
        checkpoint = CheckpointLoader.load_checkpoint(path)
    hook = ClassCheckHook()
    hook.after_load_checkpoint(runner, checkpoint)
    mmengine_checkpoint._load_checkpoint_to_model(model, checkpoint)  # as the runner goes on
    return hook, runner


def of(model, classes=('cat', 'dog')):
    return dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=classes)))


def test_a_checkpoint_of_the_network_and_its_classes_is_tested():
    model = Detector(num_experts=2)
    wrapped = {f'module.{name}': value for name, value in model.state_dict().items()}
    uncounted = {name: value for name, value in model.state_dict().items() if 'num_b' not in name}
    for checkpoint in (of(model), model.state_dict(), wrapped, uncounted):
        hook, runner = checked(model, checkpoint)
        hook.before_test(runner)
    hook, runner = checked(FlipTTAModel(model), of(model))
    hook.before_test(runner)


@pytest.mark.parametrize('stage', ['val', 'test'])
def test_static_weights_are_not_measured_as_the_routed_networks(stage):
    hook, runner = checked(Detector(num_experts=2), of(Detector()))
    with pytest.raises(CheckpointError, match='epoch_3.pth .* shapes differ in bbox_head.0.weight'):
        getattr(hook, f'before_{stage}')(runner)


def test_nor_is_a_head_for_another_number_of_classes():
    checkpoint = of(Detector())
    checkpoint['state_dict']['bbox_head.0.weight'] = torch.zeros(6, 3, 1, 1)
    hook, runner = checked(Detector(), checkpoint)
    with pytest.raises(CheckpointError, match='shapes differ in bbox_head.0.weight'):
        hook.before_test(runner)


class Renaming(Detector):
    """Knows a layer by an older name, as mmdet's FCOS does."""

    def _load_from_state_dict(self, state_dict, prefix, *args):
        for name in [name for name in state_dict if '.fcos_norm.' in name]:
            state_dict[name.replace('fcos_norm', '1')] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args)


@pytest.mark.parametrize('num_experts', [0, 2])
def test_names_that_the_network_changes_while_it_loads_are_known(num_experts):
    model = Renaming(num_experts)
    weights = Renaming(num_experts).state_dict()
    older = {name.replace('.1.', '.fcos_norm.'): value for name, value in weights.items()}
    hook, runner = checked(model, dict(state_dict=older))
    hook.before_test(runner)
    older['bbox_head.fcos_norm.bias'] = torch.zeros(6)
    del older['bbox_head.fcos_norm.weight']
    hook, runner = checked(model, dict(state_dict=older))
    with pytest.raises(CheckpointError, match=r'it lacks .*\.1.weight; shapes .*\.1.bias$'):
        hook.before_test(runner)


@pytest.mark.parametrize('older', [False, True])
def test_nor_one_that_was_trained_for_other_classes(older):
    model = Detector()
    checkpoint = of(model)
    if older:
        checkpoint['meta'] = dict(CLASSES=('cat', 'dog'))
    hook, runner = checked(model, checkpoint, classes=('cat', 'cow'))
    with pytest.raises(CheckpointError, match="class 1 is 'dog' there and 'cow' here"):
        hook.before_test(runner)


def test_detectors_that_find_words_are_tested_on_other_classes():
    model = Detector()
    model.language_model = nn.Module()  # as Grounding DINO's and GLIP's
    model.bbox_head.num_classes = 256
    hook, runner = checked(model, of(model), classes=('cow', 'cat', 'horse'))
    hook.before_test(runner)
    hook, runner = checked(model, of(model))
    parts = [SimpleNamespace(metainfo=dict(classes=(name,))) for name in ('cow', 'cat')]
    runner.test_dataloader.dataset = SimpleNamespace(datasets=parts)  # as ODinW's
    hook.before_test(runner)


def test_one_is_compared_with_the_classes_of_parts_that_differ_in_colours():
    model = Detector()
    checkpoint = of(model)
    checkpoint['meta']['dataset_meta'] = [
        dict(classes=('cat', 'dog'), palette=each) for each in 'ab'
    ]
    for classes in (('cat', 'dog'), ('cat', 'cow')):
        hook, runner = checked(model, checkpoint, classes)
        part = runner.test_dataloader.dataset
        runner.test_dataloader.dataset = SimpleNamespace(datasets=[part], metainfo=[part.metainfo])
        if classes == ('cat', 'dog'):
            hook.before_test(runner)
        else:
            with pytest.raises(CheckpointError, match="class 1 is 'dog' there and 'cow' here"):
                hook.before_test(runner)


def test_nor_an_exported_file_that_was():
    network = Detector()
    network.file, network.dataset_meta = 'trained.onnx', dict(classes=['dog', 'cat'])
    _, runner = checked(network, of(network))
    with pytest.raises(CheckpointError, match="trained.onnx was trained .* 'dog' there and 'cat'"):
        ClassCheckHook().before_test(runner)  # which no checkpoint was loaded into


def test_after_a_training_what_it_started_from_does_not_matter():
    hook, runner = checked(Detector(num_experts=2), of(Detector()))
    hook.before_train(runner)
    hook.before_val(runner)
    hook.before_test(runner)
