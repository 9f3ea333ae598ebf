"""What the README shows, run as it stands there."""

import re
from pathlib import Path

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
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


def test_one_line_switches_a_backbone(config):
    model = MODELS.build(config(SNIPPETS[0]).model)
    assert any(isinstance(layer, CondConv2d) for layer in model.backbone.modules())


def test_experts_in_every_layer(config):
    model = MODELS.build(config(SNIPPETS[1]).model)
    static = [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, torch.nn.Conv2d) and not isinstance(layer, CondConv2d)
    ]
    assert static == ['backbone.conv1.conv']  # the stem


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
