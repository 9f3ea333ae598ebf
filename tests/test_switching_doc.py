"""The worked diffs of docs/switching.md, applied as they stand there."""

import re
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from condconv_det.layers import CondConv2d

PAGE = (Path(__file__).parents[1] / 'docs' / 'switching.md').read_text()
DIFFS = re.findall(r'```diff\n(.+?)```', PAGE, flags=re.DOTALL)
ROUTED_PARTS = ('backbone', 'backbone', 'neck')


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
