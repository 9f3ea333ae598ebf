"""mmdet's and mmpretrain's own command lines, as their wheels ship them."""

import ast
import io
import runpy
import signal
import sys
from argparse import Namespace
from collections.abc import Callable
from contextlib import redirect_stderr
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .memory import keep_freed_memory
from .missing_files import missing_files

VERSIONS = dict(mmdet='3.3.0', mmpretrain='1.2.0')
MMENGINE_CONSTRUCTOR = 'DefaultOptimWrapperConstructor'


def run_openmmlab_tool(name: str, prepare: Callable[[str], None] = lambda package: None) -> None:
    """Runs a script of tools/ as the main program, on this program's arguments.

    The script is mmpretrain's where the arguments name a classifier's config, that is one with
    `default_scope = 'mmpretrain'`, and mmdet's otherwise. Arguments that neither takes, a
    config that does not exist, a question for help, a learning rate of experts that nothing would
    set, and files that a detector's config names and that do not exist are answered before
    anything heavy is imported.

    A training with `--resume` that has no checkpoint yet starts from the config's `load_from`, if
    that is set, where the scripts would forget it, and start from scratch; one that has some goes
    on from them, where mmpretrain's script would go on from `load_from`.

    Args:
        name: of the script.
        prepare: is called with 'mmdet' or 'mmpretrain', whose script it is, before the script runs.

    Raises:
        ModuleNotFoundError: the config is a classifier's and mmpretrain is not installed.
        FileNotFoundError: the package is installed without its tools.
    """
    args = sys.argv[1:]
    # The scripts' parsers differ; in both, the config is the first argument that names a file.
    config = next((arg for arg in args if arg.endswith('.py') and Path(arg).is_file()), None)
    _answer_at_once(name, config)
    package = _package(config)
    script = _script(package, name)
    if name == 'train.py':
        parsed, cfg = _read_config(script)
        _stop_at_ignored_rate(cfg)
        _keep_load_from(parsed, cfg)
    if package == 'mmdet':
        _stop_at_missing_files(script)
    prepare(package)

    import torch
    from mmengine.dist import utils as mmengine_dist

    if not torch.cuda.is_available():
        keep_freed_memory()
        mmengine_dist._init_dist_pytorch = _init_group_of_cpus
    # at once: a handler waits for the operation that runs, which may wait for another process
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    runpy.run_path(str(script), run_name='__main__')


def _script(package: str, name: str) -> Path:
    script = Path(find_spec(package).origin).parent / '.mim' / 'tools' / name
    if not script.is_file():
        raise FileNotFoundError(
            f'{script} does not exist: this {package} was installed without its tools; '
            f'install it with `pip install {package}=={VERSIONS[package]}`'
        )
    return script


def _answer_at_once(name: str, config: str | None) -> None:
    """Prints help, or what is wrong with the arguments, and exits; returns if all is well."""
    if config is None:
        named = _parse(_script('mmdet', name)).config
        if not Path(named).is_file():
            print(f'error: config {named} does not exist', file=sys.stderr)
            sys.exit(2)
        return
    if {'-h', '--help'} & set(sys.argv):
        return  # which of the scripts is asked depends on the config
    scripts = [_script(package, name) for package in VERSIONS if find_spec(package)]
    if not any(map(_takes_arguments, scripts)):
        _parse(scripts[0])


def _keep_load_from(args: Namespace, cfg: Any) -> None:
    """Of `--resume` and `load_from`, takes the one out of the arguments that does not apply."""
    if args.resume != 'auto' or not cfg.get('load_from'):
        return
    work_dir = Path(args.work_dir or cfg.get('work_dir') or f'work_dirs/{Path(args.config).stem}')
    if any(work_dir.glob('*.pth')) or (work_dir / 'last_checkpoint').exists():
        if 'load_from' in (args.cfg_options or {}):  # which mmpretrain's script takes last
            sys.argv += ['--cfg-options', 'load_from=None']
        return
    print(f'{work_dir} has no checkpoint to resume from: starting from {cfg.load_from}')
    sys.argv = [
        arg
        for before, arg in zip(['', *sys.argv], sys.argv)
        if arg not in ('--resume', '--resume=auto') and (before, arg) != ('--resume', 'auto')
    ]


def _stop_at_ignored_rate(cfg: Any) -> None:
    wrapper = cfg.get('optim_wrapper') or {}
    own = wrapper.get('constructor', MMENGINE_CONSTRUCTOR) != MMENGINE_CONSTRUCTOR
    if 'expert_lr_mult' in (wrapper.get('paramwise_cfg') or {}) and not own:
        sys.exit(
            f'error: {MMENGINE_CONSTRUCTOR} ignores optim_wrapper.paramwise_cfg.expert_lr_mult: '
            "set optim_wrapper.constructor='CondConvOptimWrapperConstructor'"
        )


def _stop_at_missing_files(script: Path) -> None:
    args, cfg = _read_config(script)
    training = script.name == 'train.py'
    if not training:
        cfg.load_from, splits = args.checkpoint, ('test',)
    else:
        splits = ('train', 'val') if cfg.get('val_cfg') else ('train',)
        if args.resume:  # from its last checkpoint, or the one named
            cfg.load_from = None if args.resume == 'auto' else args.resume
    missing = next(missing_files(cfg, splits, training), None)
    if missing is not None:
        sys.exit(f'error: {missing}')


def _read_config(script: Path) -> tuple[Namespace, Any]:
    """A script's arguments, and the config that they name and change."""
    from mmengine.config import Config

    args = _parse(script)
    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    return args, cfg


def _takes_arguments(script: Path) -> bool:
    try:
        with redirect_stderr(io.StringIO()):
            _parse(script)
    except SystemExit:
        return False
    return True


def _parse(script: Path) -> Namespace:
    """What a script's `parse_args` returns, called without most of its imports."""
    tree = ast.parse(script.read_text(), str(script))
    tree.body = [node for node in tree.body if _is_of_parser(node)]
    names: dict[str, Any] = {}
    exec(compile(tree, str(script), 'exec'), names)
    return names['parse_args']()


def _is_of_parser(node: ast.stmt) -> bool:
    """Whether it is `parse_args`, or imports something light."""
    if isinstance(node, ast.FunctionDef):
        return node.name == 'parse_args'
    if isinstance(node, ast.Import):
        return all(_is_light(alias.name) for alias in node.names)
    return isinstance(node, ast.ImportFrom) and _is_light(node.module or '')


def _is_light(module: str) -> bool:
    return module == 'mmengine.config' or module.partition('.')[0] in sys.stdlib_module_names


def _init_group_of_cpus(backend: str, init_backend: str = 'torch', **kwargs: Any) -> None:
    """What mmengine 0.10 does for `--launcher pytorch`, but that it picks a GPU even for gloo."""
    from torch.distributed import init_process_group

    init_process_group('gloo', **kwargs)


def _package(config: str | None) -> str:
    """'mmpretrain' or 'mmdet', whichever a config is for."""
    from mmengine.config import Config

    if config is None:
        return 'mmdet'  # which says what is missing
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
