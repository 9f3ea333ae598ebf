"""`_base_ = 'condconv_det::...'`: this package's configs, from wherever it is installed.

mmengine 0.10 has a fixed list of packages that configs may inherit from, and seeks the modules that
such a config names in a registry of the package's name; ours are in mmdet's.
"""

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE

_plain_get_cfg_path = Config._get_cfg_path


def install() -> None:
    """Adds this package to mmengine's list; repeatable."""
    MODULE2PACKAGE['condconv_det'] = 'condconv_det'
    Config._get_cfg_path = staticmethod(_get_cfg_path)


def _get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
    path, scope = _plain_get_cfg_path(cfg_path, filename)
    return path, None if scope == 'condconv_det' else scope
