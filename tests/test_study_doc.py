"""What docs/study.md shows, read as it stands there."""

import re
from pathlib import Path

from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

from condconv_det.study.plan import Study

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / 'docs' / 'study.md').read_text()
STUDY, CONFIG = re.findall(r'```python\n(.+?)```', PAGE, flags=re.DOTALL)


def test_the_study_file_is_one(tmp_path):
    path = tmp_path / 'study.py'
    path.write_text(STUDY.replace("'../", f"'{ROOT}/configs/"))
    arms = Study.fromfile(path).arms
    assert arms['e8_low-lr'].cfg.optim_wrapper.optimizer.lr == 1e-3
    assert arms['e8_from-static'].baseline == arms['static_from-static'].name
    assert set(re.findall(r'^\| `(\w+)`', PAGE, flags=re.MULTILINE)) >= {'config', 'baseline'}


def test_a_config_takes_back_what_differs_from_a_plain_kernel(tmp_path):
    base = ROOT / 'configs/shapes/ssd128_mobilenet-v1-0.5-condconv-e8_1xb8-5e_shapes.py'
    path = tmp_path / 'config.py'
    path.write_text(f'_base_ = {str(base)!r}\n{CONFIG}')
    cfg = Config.fromfile(path)
    init_default_scope('mmdet')
    wrapper = build_optim_wrapper(MODELS.build(cfg.model), cfg.optim_wrapper)
    assert {group['lr'] for group in wrapper.optimizer.param_groups} == {4e-3, 1e-3}
    assert {group['weight_decay'] for group in wrapper.optimizer.param_groups} == {0.05, 0.2}
