"""Config files as a command line gets them, and the networks that they describe."""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from condconv_det.compat.checkpoints import CheckpointError
from condconv_det.data.leaf_datasets import leaf_datasets


def read_config(path: Path | str, options: Mapping[str, Any] | None = None) -> Config:
    """The config of a network.

    Args:
        path: of the file.
        options: overrides by dotted key, as `--cfg-options` gives them.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: it imports what is not installed.
        ValueError: it is not a config file, has no model, or does not take the options.
    """
    cfg = load_config(path, options)
    if 'model' not in cfg:
        raise ValueError(f'config {path} has no model: expected a detector or a classifier')
    return cfg


def load_config(path: Path | str, options: Mapping[str, Any] | None = None) -> Config:
    """Any config, also one without a network; else as `read_config`."""
    if not Path(path).is_file():
        raise FileNotFoundError(f'config {path} does not exist')
    with errors_named(f'config {path}'):
        try:
            cfg = Config.fromfile(path)
        # OSError: of a suffix that mmengine does not know; ValueError: of json
        except (SyntaxError, OSError, ValueError) as error:
            raise ValueError(f'{path} is not a config file: {error}') from error
        cfg.merge_from_dict(dict(options or {}))
    if cfg.get('default_scope', '') is None:  # as in mmdet's configs that name types by class
        cfg.default_scope = 'mmdet'
    return cfg


def first_dataset(cfg: Config) -> ConfigDict:
    """The test set, of several the first, taken out of what wraps it; empty if there is none."""
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or ConfigDict()
    return next(leaf_datasets(dataset))


def type_name(kind: str | Callable | None) -> str:
    """The name of a config's `type`, without its scope or module."""
    return kind.__name__ if callable(kind) else (kind or '').rpartition('.')[2]


def build_model(cfg: Config) -> nn.Module:
    """The network of a config, which is not changed, under its default scope, which stays set.

    Raises:
        ImportError: the network needs a package that is not installed.
        ValueError: the config names a type that is not there, or arguments that it does not take.
    """
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    with errors_named(f'config {cfg.filename}'):
        return MODELS.build(network_of(cfg))


def network_of(cfg: Config) -> ConfigDict:
    """A copy of a config's network, as mmengine's Runner builds it.

    A `data_preprocessor` beside the network, as in mmpretrain's configs, is its own if it has none.
    """
    network = copy.deepcopy(cfg.model)  # for mmdet's detectors write into their head's config
    if cfg.get('data_preprocessor'):
        network.setdefault('data_preprocessor', copy.deepcopy(cfg.data_preprocessor))
    return network


@contextmanager
def data_of(cfg: Config, split: str) -> Iterator[None]:
    """For code that builds a data set of a config: what is not on disk is named with the config.

    Args:
        split: 'train', 'val' or 'test'.

    Raises:
        FileNotFoundError: what the code did not find.
        ValueError: see `errors_named`.
    """
    try:
        with errors_named(f'config {cfg.filename}'):
            yield
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f'{error.filename or error} does not exist, which {split}_dataloader of config '
            f'{cfg.filename} names; paths count from the working directory, {Path.cwd()}'
        ) from error


@contextmanager
def errors_named(source: str) -> Iterator[None]:
    """For code that does what a file says: whatever this makes it raise becomes a ValueError.

    CheckpointError, ImportError, OSError and ValueError pass: their messages name what is wrong.

    Args:
        source: by which the error calls the file.
    """
    try:
        yield
    except (CheckpointError, ImportError, OSError, ValueError):
        raise
    except Exception as error:  # a config is Python, and what it builds checks little
        raise ValueError(f'{source}: {type(error).__name__}: {error}') from error
