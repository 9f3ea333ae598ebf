"""The table of deployed forms, from a small detector and two images."""

import re
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from benchmarks import deployed
from condconv_det.data.shapes import make_shapes

CONFIG = Path(__file__).parents[2] / (
    'configs/shapes/ssd128_mobilenet-v1-0.5-condconv-e8_1xb8-5e_shapes.py'
)
CHANNELS = (64, 128, 256, 128, 64)
SMALL = {
    'model.backbone.widen_factor': 0.25,
    'model.neck.in_channels': CHANNELS[:3],
    'model.neck.out_channels': CHANNELS,
    'model.bbox_head.in_channels': CHANNELS,
    'test_dataloader.num_workers': 0,
    'test_dataloader.persistent_workers': False,
}


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A small detector's, in the folder of its images and of its checkpoint."""
    monkeypatch.chdir(tmp_path)
    make_shapes(Path('data/shapes'), dict(train=1, val=1, test=2), size=128)
    cfg = Config.fromfile(CONFIG)
    cfg.merge_from_dict(SMALL)
    cfg.dump('small.py')
    init_default_scope('mmdet')
    torch.save(MODELS.build(cfg.model).state_dict(), 'small.pth')
    return 'small.py'


def test_each_way_to_deploy_has_its_size_its_error_and_its_score(config, capsys):
    deployed.main([config, 'small.pth'])
    lines = capsys.readouterr().out.splitlines()
    rows = [re.fullmatch(r'\| (.+) \| ([\d.]+) \| (.+) \| \d\.\d{3} \|', line) for line in lines]
    rows = {row[1]: (float(row[2]), float(row[3])) for row in rows if row}
    assert list(rows) == [
        'as trained',
        'folded',
        'folded, bfloat16 experts',
        'folded, float16 experts',
    ]
    trained, folded, bfloat16, float16 = rows.values()
    assert trained[1] == 0 < folded[1] < float16[1] < bfloat16[1] < 0.1
    assert bfloat16[0] == float16[0] < 0.6 * folded[0]
