from pathlib import Path

from mmengine.config import Config

import condconv_det  # noqa: F401

CONFIGS = Path(__file__).parents[2] / 'configs'


def test_our_configs_are_those_beside_the_package_that_is_imported(tmp_path):
    path, scope = Config._get_cfg_path('condconv_det::_base_/condconv_det.py', 'mine.py')
    assert Path(path).samefile(CONFIGS / '_base_' / 'condconv_det.py') and scope is None
    mine = tmp_path / 'mine.py'
    mine.write_text("_base_ = 'condconv_det::_base_/own/data.py'")
    assert (
        Config.fromfile(mine).to_dict() == Config.fromfile(CONFIGS / '_base_/own/data.py').to_dict()
    )
