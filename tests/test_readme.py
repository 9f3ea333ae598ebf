"""What the README shows, run as it stands there."""

import re
from pathlib import Path

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData

from condconv_det import CondConv2d

ROOT = Path(__file__).parents[1]
SNIPPETS = re.findall(r'```python\n(.+?)```', (ROOT / 'README.md').read_text(), flags=re.DOTALL)


@pytest.fixture
def config(tmp_path):
    """Loads a snippet as a config file in a folder of its own."""

    def load(snippet):
        path = tmp_path / 'config.py'
        path.write_text(snippet)
        init_default_scope('mmdet')
        return Config.fromfile(path)

    return load


def routed_layers(model):
    return [name for name, layer in model.named_modules() if isinstance(layer, CondConv2d)]


def test_experts_in_the_head_move_as_static_kernels_do(config):
    cfg = config(SNIPPETS[0])
    model = MODELS.build(cfg.model)
    layers = routed_layers(model)
    assert layers and all(name.startswith('bbox_head.') for name in layers)
    cfg.optim_wrapper.optimizer.lr = 0.8
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    rates = {id(weight): group['lr'] for group in groups for weight in group['params']}
    layer = model.get_submodule(layers[0])
    assert rates[id(layer.weight)] == pytest.approx(0.4)  # SGD's 4/E
    assert rates[id(layer.router.fc.weight)] == pytest.approx(0.08)


def test_one_line_switches_a_backbone(config):
    model = MODELS.build(config(SNIPPETS[1]).model)
    assert routed_layers(model.backbone)


def test_conv_cfg_switches_any_other_detector(config):
    cfg = config(SNIPPETS[2])
    cfg.model.backbone.init_cfg = None  # no download
    model = MODELS.build(cfg.model)
    routed = [layer for layer in model.neck.modules() if isinstance(layer, CondConv2d)]
    assert routed

    size = dict(img_shape=(64, 64), pad_shape=(64, 64), batch_input_shape=(64, 64))
    sample = DetDataSample(metainfo=size)
    sample.gt_instances = InstanceData(
        bboxes=torch.tensor([[8.0, 8.0, 40.0, 40.0]]), labels=torch.tensor([3])
    )
    losses = model.loss(torch.randn(2, 3, 64, 64), [sample, sample])
    model.parse_losses(losses)[0].backward()
    for layer in routed:
        assert layer.weight.grad.abs().sum() > 0
        assert layer.router.fc.weight.grad.abs().sum() > 0


def test_the_layer_stands_alone():
    names = dict(x=torch.randn(2, 64, 9, 9))
    exec(SNIPPETS[3], names)
    assert names['y'].shape == (2, 128, 9, 9)
