"""Checkpoint files: any library's are read, ours are written."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condconv_det.compat.checkpoints import CheckpointError, load_from_local
from condconv_det.data.whole_files import written_whole


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The weights in a checkpoint, and its `meta`, empty if it has none.

    What MMDetection 2 and its early 3 call CLASSES is `dataset_meta['classes']` in it, too.

    Args:
        path: .safetensors, or what torch.save wrote: a state dict, or a dict that holds one as
            `state_dict` or `model`.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged, or holds anything but tensors by name.
    """
    path = Path(path)
    if path.suffix == '.safetensors':
        content = _read_safetensors(path)
    else:
        content = load_from_local(str(path), 'cpu')
    meta = content.get('meta', {}) if isinstance(content, dict) else {}
    weights = content
    for key in ('state_dict', 'model'):
        if isinstance(weights, dict) and isinstance(weights.get(key), dict):
            weights = weights[key]
    if (
        not isinstance(weights, dict)
        or not weights
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in weights.items())
    ):
        raise CheckpointError(f'checkpoint {path} does not hold weights, tensors by their names')
    # the wrapper of a network that was trained on several devices
    weights = {key.removeprefix('module.'): value for key, value in weights.items()}
    return weights, with_dataset_meta(meta if isinstance(meta, dict) else {})


def with_dataset_meta(meta: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint's `meta`, in which `dataset_meta` has the names of this day.

    mmdet writes a list of a data set whose parts differ, maybe in colours alone: it is the first
    where all have the same classes, and none where they do not.
    """
    named = meta.get('dataset_meta')
    if not named and 'CLASSES' in meta:
        named = dict(classes=meta['CLASSES'])
    if not named:
        return meta
    first, *others = [
        {key.lower(): value for key, value in part.items()}
        for part in (named if isinstance(named, list) else [named])
    ]
    classes, *of_others = [tuple(part.get('classes') or ()) for part in (first, *others)]
    if any(names != classes for names in of_others):
        return {key: value for key, value in meta.items() if key != 'dataset_meta'}
    return {**meta, 'dataset_meta': first}


def write_checkpoint(path: Path, state_dict: dict[str, Tensor], meta: dict[str, Any]) -> None:
    """Writes a checkpoint as mmengine reads it; it is there whole or not at all.

    Raises:
        ValueError: the file's name does not end in .pth.
    """
    path = Path(path)
    if path.suffix != '.pth':
        raise ValueError(f'a checkpoint is written as .pth, got {path}')
    # a clone, for torch.save keeps all of a tensor of which this is a part
    content = dict(meta=meta, state_dict={key: value.clone() for key, value in state_dict.items()})
    with written_whole(path) as partial:
        torch.save(content, partial)


def check_apart(source: Path, dest: Path) -> None:
    """Raises ValueError if a file is to be written over the one that it is made from."""
    if Path(dest).exists() and Path(dest).samefile(source):
        raise ValueError(f'{dest} would be written over {source}, from which it is made')


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as error:
        raise ImportError(f'{path} needs safetensors: pip install safetensors') from error
    if not path.is_file():
        raise FileNotFoundError(f'checkpoint {path} does not exist')
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f'checkpoint {path} is not a whole checkpoint: {error}') from error
