"""What today's stack needs in order to run; each part goes when its reason does."""

import warnings
from importlib import import_module
from types import ModuleType

from . import mmcv_ext
from .after_import import Mend, after_import


def install() -> None:
    """Makes mmdet run on torchvision's kernels, load and resume safely, take annotations for data
    and name broken files.

    Imports mmengine without its runner, which is neither torch nor mmdet: what they need waits
    until they are imported.
    """
    # mmengine 0.10 needs it; setup.py holds setuptools back for as long.
    warnings.filterwarnings('ignore', 'pkg_resources is deprecated')
    mmcv_ext.install()
    from . import data_errors, external_configs, plain_files

    external_configs.install()
    plain_files.install()
    data_errors.install()
    after_import('mmengine.runner.checkpoint', _mend_by('checkpoints'))
    after_import('mmengine.runner.runner', _mend_by('resume'))
    after_import('mmengine.optim.optimizer.builder', _mend_by('fused_optimizers'))
    after_import('mmengine.fileio.file_client', _hush)


def _hush(file_client: ModuleType) -> None:
    """Drops the warnings that `FileClient` will be deprecated: mmengine's own hooks use it."""
    file_client.print_log = lambda *_, **__: None


def _mend_by(name: str) -> Mend:
    """By a file of this folder that imports torch."""
    return lambda module: import_module(f'{__name__}.{name}').mend(module)
