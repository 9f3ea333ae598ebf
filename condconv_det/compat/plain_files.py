"""Annotation files that are data: a pickle, or a tag in YAML, could run code.

mmengine 0.10 reads both with loaders that build any object. Needed until it does not.
"""

from types import ModuleType
from typing import Any

import yaml
from mmengine.fileio import load
from mmengine.fileio.handlers import YamlHandler, file_handlers

from .after_import import after_import
from .data_errors import AnnotationError


def install() -> None:
    """Makes mmengine's YAML loader safe, and its and mmdet's base data sets refuse pickles, once
    these are imported.

    Data sets that load files by themselves do not refuse them. Some could not: the published files
    of CIFAR, OpenImages and RefCOCO are pickles.
    """
    file_handlers['yaml'] = file_handlers['yml'] = _PlainYamlHandler()
    after_import('mmengine.dataset.base_dataset', _mend)
    after_import('mmdet.datasets.base_det_dataset', _mend)


def _mend(data_set: ModuleType) -> None:
    data_set.load = _load_plain


class _PlainLoader(yaml.SafeLoader):
    """Plain data, and the tuples that a config has when mmengine writes it."""


_PlainLoader.add_constructor(
    'tag:yaml.org,2002:python/tuple',
    lambda loader, node: tuple(loader.construct_sequence(node, deep=True)),
)


class _PlainYamlHandler(YamlHandler):
    def load_from_fileobj(self, file: Any, **kwargs: Any) -> Any:
        return super().load_from_fileobj(file, Loader=_PlainLoader)


def _load_plain(file: Any, *args: Any, **kwargs: Any) -> Any:
    """mmengine's `load` for annotations and proposals."""
    if str(file).endswith(('.pkl', '.pickle')):
        raise AnnotationError(
            f'annotation file {file} is a pickle, which could run code when loaded: '
            'convert it to json'
        )
    return load(file, *args, **kwargs)
