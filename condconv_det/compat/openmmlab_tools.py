"""mmdet's and mmpretrain's own command lines, as their wheels ship them."""

import runpy
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dist import utils as mmengine_dist

VERSIONS = dict(mmdet='3.3.0', mmpretrain='1.2.0')


def run_openmmlab_tool(name: str) -> None:
    """Runs a script of tools/ as the main program, on this program's arguments.

    The script is mmpretrain's where the arguments name a classifier's config, that is one with
    `default_scope = 'mmpretrain'`, and mmdet's otherwise.

    Raises:
        ModuleNotFoundError: the config is a classifier's and mmpretrain is not installed.
        FileNotFoundError: the package is installed without its tools.
    """
    package = _package(sys.argv[1:])
    script = Path(find_spec(package).origin).parent / '.mim' / 'tools' / name
    if not script.is_file():
        raise FileNotFoundError(
            f'{script} does not exist: this {package} was installed without its tools; '
            f'install it with `pip install {package}=={VERSIONS[package]}`'
        )
    if not torch.cuda.is_available():
        mmengine_dist._init_dist_pytorch = _init_group_of_cpus
    runpy.run_path(str(script), run_name='__main__')


def _init_group_of_cpus(backend: str, init_backend: str = 'torch', **kwargs: Any) -> None:
    """What mmengine 0.10 does for `--launcher pytorch`, but that it picks a GPU even for gloo."""
    torch.distributed.init_process_group('gloo', **kwargs)


def _package(args: Sequence[str]) -> str:
    """'mmpretrain' or 'mmdet', whichever the config among the arguments is for."""
    # The scripts' parsers differ; in both, the config is the first argument that names a file.
    config = next((arg for arg in args if arg.endswith('.py') and Path(arg).is_file()), None)
    if config is None:
        return 'mmdet'  # which says what is missing, or prints its help
    try:
        scope = Config.fromfile(config).get('default_scope')
    except ModuleNotFoundError as error:  # mmengine's, for a base in a package that is not there
        if not str(error).startswith('mmpretrain '):
            raise
        scope = 'mmpretrain'
    if scope != 'mmpretrain':
        return 'mmdet'
    if find_spec('mmpretrain') is None:
        raise ModuleNotFoundError(
            f'{config} is the config of a classifier, which needs mmpretrain; install it with '
            "`pip install -e '.[classification]'`"
        )
    return 'mmpretrain'
