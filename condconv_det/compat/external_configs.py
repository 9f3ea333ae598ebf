"""`_base_ = 'condconv_det::...'`: this package's configs, from wherever it is installed.

mmengine 0.10 has a fixed list of packages that configs may inherit from, and seeks the modules that
such a config names in a registry of the package's name; ours are in mmdet's. It also reads all of
a package's metafiles, which takes seconds, to find each config that is inherited from it.
"""

from pathlib import Path

from mmengine.config import Config
from mmengine.config.utils import MODULE2PACKAGE
from mmengine.utils import get_installed_path, is_installed

_plain_get_cfg_path = Config._get_cfg_path


def install() -> None:
    """Adds this package to mmengine's list and finds configs by their path."""
    MODULE2PACKAGE['condconv_det'] = 'condconv_det'
    Config._get_cfg_path = staticmethod(_get_cfg_path)


def _get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
    scope, external, name = cfg_path.partition('::')
    package = MODULE2PACKAGE.get(scope)
    if external and package and is_installed(package):
        path = Path(get_installed_path(package), '.mim', 'configs', name)
        if path.is_file():
            return str(path), None if scope == 'condconv_det' else scope
    return _plain_get_cfg_path(cfg_path, filename)  # not external, or its error
