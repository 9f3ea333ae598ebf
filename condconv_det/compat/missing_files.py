"""Files that a detector's config names and that are not there, told before a run begins.

mmdet 3.x asks for them one by one, behind hundreds of lines of log.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config

STARTS = 'model.backbone.init_cfg.checkpoint'  # what the configs of tools/new_config.py start from


def missing_files(cfg: Config, splits: tuple[str, ...], training: bool) -> Iterator[str]:
    """Says of each file that a run would not find what it is, where it is named, what to do.

    Files elsewhere than on the local disk, and annotations that are no json, are not looked for.

    Args:
        cfg: the config, with its `trained_by`, the commands that make the checkpoint from which its
            backbone starts, if it has them.
        splits: whose data sets and evaluators the run reads.
        training: whether parts of the network start from checkpoints.
    """
    if cfg.get('load_from') and _is_missing(cfg.load_from):
        yield f'checkpoint {cfg.load_from} does not exist'
    if training:
        for key, part in _parts(cfg.get('model'), 'model'):
            name = part.get('checkpoint')
            kind = part.get('type')
            is_start = kind == 'Pretrained' or getattr(kind, '__name__', '') == 'PretrainedInit'
            if isinstance(name, str) and is_start and _is_missing(name):
                key = f'{key}.checkpoint'
                yield f'checkpoint {name} ({key}) does not exist' + _how_to_train(cfg, key)
    for split in splits:
        for place in (f'{split}_dataloader', f'{split}_evaluator'):
            for key, part in _parts(cfg.get(place), place):
                yield from _missing_annotations(key, part)


def _parts(value: Any, key: str) -> Iterator[tuple[str, dict]]:
    """The dicts in a config's value, itself too, by their keys."""
    if isinstance(value, dict):
        yield key, value
        for name, part in value.items():
            yield from _parts(part, f'{key}.{name}')
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from _parts(part, f'{key}.{number}')


def _is_missing(name: str) -> bool:
    return '://' not in name and not Path(os.path.expanduser(name)).exists()


def _how_to_train(cfg: Config, key: str) -> str:
    commands = cfg.get('trained_by')
    if key != STARTS or not commands:
        return ''
    lines = '\n  '.join(['; these commands make it:', *commands])
    return f'{lines}\nor start from scratch: write the config by new_config.py --weights none'


def _missing_annotations(key: str, part: dict) -> Iterator[str]:
    name, root = part.get('ann_file'), part.get('data_root') or ''
    if not isinstance(name, str) or not name.endswith('.json') or part.get('backend_args'):
        return
    path = os.path.join(root, name)
    if _is_missing(path):
        said = f'annotation file {path} ({key}.ann_file) does not exist'
        if not os.path.isabs(path):
            roots = f'data_root, {root!r}, which counts from ' * bool(root)
            said += f'; ann_file counts from {roots}the working folder, {Path.cwd()}'
        yield said
