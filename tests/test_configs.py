"""Every config in configs/, run on miniatures of its data set."""

from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner import Runner

from condconv_det.analysis import measure_cost

CONFIGS = Path(__file__).parents[1] / 'configs'
SSD = sorted((CONFIGS / 'ssd').glob('*.py'))
ALL = sorted(path for path in CONFIGS.glob('*/*.py') if path.parent.name != '_base_')
ROUTED = [path for path in ALL if '-condconv-e8' in path.name]
# A batch of 1,024 for 20,000 steps becomes one of two for one step; nothing else changes.
ONE_SMALL_STEP = {
    'train_cfg.max_iters': 1,
    'train_dataloader.batch_size': 2,
    'train_dataloader.num_workers': 0,
    'train_dataloader.persistent_workers': False,
    'val_dataloader.num_workers': 0,
    'val_dataloader.persistent_workers': False,
    'test_dataloader.num_workers': 0,
    'test_dataloader.persistent_workers': False,
}


def name(path):
    return f'{path.parent.name}/{path.stem}'


@pytest.mark.parametrize('path', SSD, ids=name)
def test_coco_config_trains_validates_and_tests(path, coco_root, tmp_path, monkeypatch):
    monkeypatch.chdir(coco_root)
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(ONE_SMALL_STEP)
    cfg.work_dir = str(tmp_path)
    runner = Runner.from_cfg(cfg)
    before = {key: value.clone() for key, value in runner.model.state_dict().items()}
    runner.train()
    moved = [
        key for key, parameter in runner.model.named_parameters()
        if not torch.equal(parameter, before[key])
    ]  # fmt: skip
    assert len(moved) == len(list(runner.model.parameters()))
    assert (tmp_path / 'iter_1.pth').exists()
    assert 'coco/bbox_mAP' in runner.test()


def test_there_are_six_coco_configs_and_each_routed_one_has_a_static_twin():
    assert len(SSD) == 6
    assert {path.with_name(path.name.replace('-condconv-e8', '')) for path in ROUTED} == set(
        ALL
    ) - set(ROUTED)


@pytest.mark.parametrize('path', ROUTED, ids=name)
def test_a_routed_config_differs_from_its_static_twin_by_the_switch_alone(path):
    routed = Config.fromfile(path)
    static = Config.fromfile(path.with_name(path.name.replace('-condconv-e8', '')))
    assert routed.model.backbone.pop('cond_cfg') == dict(num_experts=8)
    assert routed.model.neck.pop('conv_cfg') == dict(type='CondConv2d', num_experts=8)
    assert static.model.neck.pop('conv_cfg') == dict(type='Conv2dAdaptivePadding')
    assert routed.to_dict() == static.to_dict()


# FACTS of the paper's detectors, recounted with TensorFlow's 90 classes: millions of multiply-adds
PAPER = {
    '-0.5_8xb128': 352.2,
    '-0.5-condconv-e8': 363.0,
    '-0.75_8xb128': 728.0,
    '-0.75-condconv-e8': 752.4,
    'v1_8xb128': 1237,
    'v1-condconv-e8': 1280,
}


@pytest.mark.parametrize('part', PAPER)
def test_multiply_adds_are_the_papers(part):
    (path,) = (path for path in SSD if part in path.name)
    cfg = Config.fromfile(path)
    cfg.model.bbox_head.num_classes = 90
    init_default_scope('mmdet')
    cost = measure_cost(MODELS.build(cfg.model), torch.zeros(1, 3, 300, 300), mode='tensor')
    assert abs(cost.multiply_adds / (PAPER[part] * 1e6) - 1) < 0.01
