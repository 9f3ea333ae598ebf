"""The worked diffs of docs/switching.md, applied as they stand there."""

import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from condconv_det.layers import CondConv2d

PAGE = (Path(__file__).parents[1] / 'docs' / 'switching.md').read_text()
DIFFS = re.findall(r'```diff\n(.+?)```', PAGE, flags=re.DOTALL)
ROUTED_PARTS = ('backbone', 'backbone', 'neck')
NECKS = dict(
    FPN=dict(num_outs=4),
    PAFPN=dict(num_outs=4),
    YOLOXPAFPN=dict(num_csp_blocks=1),
    CSPNeXtPAFPN=dict(num_csp_blocks=1),
)


def test_there_are_three():
    assert len(DIFFS) == len(ROUTED_PARTS)


@pytest.mark.parametrize('diff, part', zip(DIFFS, ROUTED_PARTS), ids=range(len(DIFFS)))
def test_a_worked_diff_routes_the_part_it_names(diff, part, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text('\n'.join(line[1:] for line in diff.splitlines()))
    cfg = Config.fromfile(config)
    cfg.model.backbone.pop('init_cfg', None)  # no download
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    routed = {
        name.split('.')[0] for name, layer in model.named_modules() if isinstance(layer, CondConv2d)
    }
    assert routed == {part}


@pytest.mark.parametrize('name', NECKS)
def test_the_page_says_of_a_neck_whether_some_of_it_stays_plain(name):
    init_default_scope('mmdet')
    conv_cfg = dict(type='CondConv2d', num_experts=2)
    options = dict(in_channels=[8, 8, 8], out_channels=8, conv_cfg=conv_cfg)
    neck = MODELS.build(dict(type=name, **options, **NECKS[name]))
    plain = [
        layer
        for layer in neck.modules()
        if isinstance(layer, nn.Conv2d) and not isinstance(layer, CondConv2d)
    ]
    rows = [line.split('|') for line in PAGE.splitlines() if line.count('|') == 4]
    (row,) = [row for row in rows if re.search(rf'\b{name}\b', row[2])]
    assert bool(row[3].strip()) == bool(plain)
