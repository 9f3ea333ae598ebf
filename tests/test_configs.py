"""Every config in configs/, run on miniatures of its data set."""

import copy
import functools
import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner
from mmpretrain.structures import DataSample

from condconv_det.analysis import measure_config
from condconv_det.layers import CondConv2d, CondLinear

CONFIGS = Path(__file__).parents[1] / 'configs'
NO_NETWORKS = ('_base_', 'studies')
ALL = sorted(path for path in CONFIGS.glob('*/*.py') if path.parent.name not in NO_NETWORKS)
CLASSIFIERS = [path for path in ALL if path.stem.endswith(('_in1k', '-crops'))]
ROUTED = [path for path in ALL if '-condconv-e' in path.name]
# A static twin differs by the switch alone, so that one of them is enough.
COCO = [
    path for path in ALL
    if path.stem.endswith('_coco') and (path in ROUTED or 'ssd300_mobilenet-v1_' in path.stem)
]  # fmt: skip
SWITCHES = ('backbone.cond_cfg', 'neck.conv_cfg', 'bbox_head.cond_cfg', 'head.cond_cfg')
# A batch of 1,024 for 20,000 steps becomes one of two for one or two steps.
SMALL = {
    'train_dataloader.batch_size': 2,
    **{
        f'{split}_dataloader.{key}': value
        for split in ('train', 'val', 'test')
        for key, value in dict(num_workers=0, persistent_workers=False).items()
    },
}


# These show what the others do, which takes minutes.
SHORT = (
    'ssd300_mobilenet-v1-0.5-condconv-e8_8xb128-20k_coco',
    'mobilenet-v1-condconv-e8_8xb32_in1k',
)


def some_long(paths):
    for path in paths:
        marks = () if path.stem in SHORT else pytest.mark.long
        yield pytest.param(path, marks=marks, id=name(path))


def name(path):
    return f'{path.parent.name}/{path.stem}'


@functools.cache
def _read_once(path):
    return Config.fromfile(path)


def read(path):
    return copy.deepcopy(_read_once(path))


def static_twin(path):
    return path.with_name(re.sub('-condconv-e[0-9]+(-head|-everywhere)?', '', path.name))


def shrink(transforms, factor=5):
    """Makes the images of a pipeline smaller, and so of one that it holds."""
    for transform in transforms:
        for key in ('scale', 'img_scale', 'crop_size', 'size'):
            if key in transform:
                transform[key] = tuple(side // factor for side in transform[key])
        shrink(transform.get('transforms', []), factor)


def small(path):
    """The config at a cost that a test can bear; SSD keeps the image size its strides are for."""
    cfg = read(path)
    cfg.merge_from_dict(SMALL)
    if 'max_iters' in cfg.train_cfg:
        cfg.train_cfg.max_iters = 1
    else:
        cfg.train_cfg.max_epochs = 1
    if 'times' in cfg.train_dataloader.dataset:
        cfg.train_dataloader.dataset.times = 1
    test_cfg = cfg.model.test_cfg
    test_cfg.get('rcnn', test_cfg).score_thr = 0.0  # untrained, nothing scores
    cfg.model.backbone.pop('init_cfg', None)  # published weights, which a test does not download
    if path.parent.name != 'ssd':
        pipelines = [
            loader.dataset.pipeline for loader in (cfg.train_dataloader, cfg.val_dataloader)
        ]
        for hook in cfg.get('custom_hooks', []):
            pipelines.append(hook.get('switch_pipeline', []))
        for pipeline in pipelines:
            shrink(pipeline)
        shrink(cfg.model.data_preprocessor.get('batch_augments') or [])
    return cfg


@pytest.mark.parametrize('path', some_long(COCO))
def test_coco_config_trains_every_parameter_and_validates(path, coco_root, tmp_path, monkeypatch):
    monkeypatch.chdir(coco_root)
    cfg = small(path)
    cfg.work_dir = str(tmp_path)
    cfg.default_hooks.checkpoint.interval = 1000  # half a gigabyte each
    runner = Runner.from_cfg(cfg)
    without_gradient = {
        key: value for key, value in runner.model.named_parameters() if value.requires_grad
    }
    for key, value in list(without_gradient.items()):
        value.register_post_accumulate_grad_hook(lambda _, key=key: without_gradient.pop(key, None))
    runner.train()
    assert not without_gradient
    metrics = runner.val_loop.run()
    # after a step or two RTMDet may find no box of positive area, and then there is no mAP
    assert 'coco/bbox_mAP' in metrics or path.parent.name == 'rtmdet'


@pytest.mark.parametrize('path', some_long(path for path in CLASSIFIERS if path in ROUTED))
def test_a_classifiers_config_trains_every_expert_and_predicts(path):
    cfg = read(path)
    init_default_scope('mmpretrain')
    model = MODELS.build(cfg.model)
    images = torch.randn(4, 3, 64, 64)
    samples = [DataSample().set_gt_label(label % 3) for label in range(4)]
    model(images, samples, mode='loss')['loss'].backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    experts = [layer for layer in model.modules() if isinstance(layer, CondConv2d | CondLinear)]
    assert experts and all(layer.weight.grad.flatten(1).any(1).all() for layer in experts)
    model.eval()
    assert model(images, mode='predict')[0].pred_score.shape == (cfg.model.head.num_classes,)


@pytest.mark.parametrize('path', ALL, ids=name)
def test_every_config_has_the_hooks_of_this_package(path):
    base = 'condconv_cls.py' if path in CLASSIFIERS else 'condconv_det.py'
    hooks = read(CONFIGS / '_base_' / base).custom_hooks
    assert all(hook in read(path).custom_hooks for hook in hooks)


def test_each_routed_config_has_a_static_twin_and_each_static_one_a_routed():
    assert {static_twin(path) for path in ROUTED} == set(ALL) - set(ROUTED)


@pytest.mark.parametrize('path', ROUTED, ids=name)
def test_a_routed_config_differs_from_its_static_twin_by_the_switch(path):
    num_experts = int(re.search('-condconv-e([0-9]+)', path.name)[1])
    routed, static = read(path), read(static_twin(path))
    switched = 0
    for switch in SWITCHES:
        part, key = switch.split('.')
        value = routed.model.get(part, ConfigDict()).pop(key, None)
        plain = static.model.get(part, ConfigDict()).pop(key, None)
        if value != plain:
            switched += 1
            assert value.num_experts == num_experts
            assert plain is None or plain.type == 'Conv2dAdaptivePadding'
    assert switched >= 1
    if '-head_' in path.name:  # whose kernels move as the static ones do
        assert routed.optim_wrapper.pop('constructor') == 'CondConvOptimWrapperConstructor'
        assert routed.optim_wrapper.pop('paramwise_cfg').expert_lr_mult == 'matched'
    assert routed.to_dict() == static.to_dict()


@functools.cache
def cost(path, **overrides):
    cfg = read(path)
    cfg.merge_from_dict(overrides)
    return measure_config(cfg)


def multiply_adds(path, **overrides):
    return cost(path, **overrides).multiply_adds / 1e6


# FACTS of the paper's detectors, recounted with TensorFlow's 90 classes: millions of multiply-adds
PAPER_COCO = {
    'ssd300_mobilenet-v1-0.5': (352.2, 363.0),
    'ssd300_mobilenet-v1-0.75': (728.0, 752.4),
    'ssd300_mobilenet-v1': (1237, 1280),
}
# The paper's ImageNet networks at 224x224, with 8 experts (4 where named): static, CondConv
PAPER_IMAGENET = {
    'mobilenet-v1': (567, 600),
    'mobilenet-v2': (301, 329),
    'mnasnet-a1': (312, 325),
    'resnet50': (4093, 4213),
    'efficientnet-b0': (391, 413),
    'efficientnet-b0-e4': (391, 402),
    'efficientnet-b0-depth': (None, 614),
}


@pytest.mark.parametrize(
    'stem',
    [
        pytest.param(stem, marks=() if stem.endswith('0.5') else pytest.mark.long)
        for stem in PAPER_COCO
    ],
)
def test_multiply_adds_on_coco_are_the_papers(stem, shapes_alone):
    paths = [f'{stem}_8xb128-20k_coco.py', f'{stem}-condconv-e8_8xb128-20k_coco.py']
    for path, paper in zip(paths, PAPER_COCO[stem]):
        ours = multiply_adds(CONFIGS / 'ssd' / path, **{'model.bbox_head.num_classes': 90})
        assert abs(ours / paper - 1) < 0.01


@pytest.mark.parametrize(
    'stem',
    [
        pytest.param(stem, marks=() if stem.startswith('mobilenet') else pytest.mark.long)
        for stem in PAPER_IMAGENET
    ],
)
def test_multiply_adds_on_imagenet_are_the_papers(stem, shapes_alone):
    # the published figures of EfficientNet count 5M more than the convolutions
    tolerance = 0.02 if 'efficientnet' in stem else 0.01
    paper_static, paper_routed = PAPER_IMAGENET[stem]
    experts = 4 if stem.endswith('-e4') else 8
    stem = stem.removesuffix('-e4')
    routed = multiply_adds(CONFIGS / 'imagenet' / f'{stem}-condconv-e{experts}_8xb32_in1k.py')
    assert abs(routed / paper_routed - 1) < tolerance
    if paper_static is not None:
        static = multiply_adds(CONFIGS / 'imagenet' / f'{stem}_8xb32_in1k.py')
        assert abs(static / paper_static - 1) < tolerance
        assert abs((routed - static) / (paper_routed - paper_static) - 1) < 0.05


@pytest.mark.parametrize(
    'stem, parameters',
    [
        ('efficientnet-b0-condconv-e4', 13_314_116),
        ('efficientnet-b0-condconv-e8', 24_013_284),
        ('efficientnet-b0-depth-condconv-e8', 39_715_968),
    ],
)
def test_parameters_on_imagenet_are_timms(stem, parameters, shapes_alone):
    assert cost(CONFIGS / 'imagenet' / f'{stem}_8xb32_in1k.py').parameters == parameters
