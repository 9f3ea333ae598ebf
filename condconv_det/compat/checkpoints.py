"""Loads checkpoints that mmengine wrote, and nothing that could run code.

mmengine 0.10 keeps its log history in a checkpoint, and how a schedule anneals, as objects that
torch >= 2.6 refuses under `weights_only`; older torch loads any object at all. Needed until
mmengine stores plain data.
"""

import codecs
import collections
import os
import pickle
import re
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.config import ConfigDict
from mmengine.logging import HistoryBuffer
from torch import serialization
from torch._weights_only_unpickler import _get_allowed_globals

HAS_SAFE_GLOBALS = hasattr(serialization, 'get_unsafe_globals_in_checkpoint')  # torch >= 2.6
# Stands for the class OneCycleParamScheduler, so that a pickle cannot call it.
_ONE_CYCLE = object()


class CheckpointError(RuntimeError):
    """A checkpoint that is damaged, holds more than weights and plain data, or does not fit."""


def mend(checkpoint: ModuleType) -> None:
    """Makes mmengine.runner.checkpoint's loaders safe."""
    register = checkpoint.CheckpointLoader.register_scheme
    if HAS_SAFE_GLOBALS:
        serialization.add_safe_globals(
            [(value, name) for name, value in _mmengine_globals().items()]
        )
    else:  # where mmengine's other loaders would run what a pickle says
        prefixes = ['pavi://', r'(\S+\:)?s3://', r'(\S+\:)?petrel://']
        register(prefixes, loader=_refuse_remote, force=True)
    if hasattr(checkpoint, '_safe_torch_load'):
        # onedl-mmengine's, which loads without protection what weights_only refuses
        checkpoint._safe_torch_load = _load_weights_only
    register(prefixes='', loader=load_from_local, force=True)
    checkpoint.load_url = load_from_url


def load_from_local(filename: str, map_location: Any = None) -> Any:
    """What a checkpoint file holds.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is not a whole checkpoint, or holds an object of a class that is
            neither a tensor, plain data nor of mmengine's log history or schedules.
    """
    path = os.path.expanduser(filename)
    if not os.path.isfile(path):
        raise FileNotFoundError(f'checkpoint {path} does not exist')
    check_records(path)
    return _load(path, map_location)


def check_records(path: str, weights: bool = True) -> None:
    """Compares a checkpoint's records with their checksums, which torch writes but never reads.

    A file in the format before torch 1.6 has none and passes.

    Args:
        weights: whether to read the tensors too, not only what describes them.

    Raises:
        CheckpointError: the file was cut or altered.
    """
    with open(path, 'rb') as file:
        if file.read(4) != b'PK\x03\x04':
            return
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if weights or '/data/' not in name:
                    with archive.open(name) as record:
                        while record.read(2**20):  # raises at the end of an altered record
                            pass
    except Exception as error:  # zipfile promises no list of what a damaged file may raise
        raise _not_whole(path, error) from error


def read_training_meta(path: str) -> dict | None:
    """What a checkpoint says of its training (`epoch`, `iter`, `time`); reads no weights.

    None if it holds weights alone, as the best one does, or is of another program: no training of
    mmengine's can go on from it.

    Raises:
        CheckpointError: the file is damaged, as far as that shows without reading the weights.
    """
    check_records(path, weights=False)
    checkpoint = _load(path, 'cpu', mmap=zipfile.is_zipfile(path))
    if not (isinstance(checkpoint, dict) and {'meta', 'optimizer'} <= checkpoint.keys()):
        return None
    meta = checkpoint['meta']
    if not (isinstance(meta, dict) and isinstance(meta.get('iter'), int)):
        return None
    # mmcv's, of before mmengine, wrote words
    return meta if re.fullmatch(r'\d{8}_\d{6}', str(meta.get('time'))) else None


def _load(path: str, map_location: Any, **kwargs: Any) -> Any:
    try:
        if HAS_SAFE_GLOBALS:
            return torch.load(path, map_location, weights_only=True, **kwargs)
        return torch.load(path, map_location, pickle_module=_RESTRICTED_PICKLE, **kwargs)
    except pickle.UnpicklingError as error:
        refused = _refused_classes(path, error)
        if refused:
            raise CheckpointError(
                f'checkpoint {path} holds {", ".join(refused)}, which could run code when loaded: '
                "only tensors, plain data and mmengine's log history and schedules are accepted"
            ) from None
        # torch's own message advises to turn the protection off
        raise CheckpointError(
            f'checkpoint {path} is not a whole checkpoint: torch.save did not write it so'
        ) from error
    except Exception as error:  # nor does pickle promise a list
        raise _not_whole(path, error) from error


def _not_whole(path: str, error: Exception) -> CheckpointError:
    reason = ' '.join([f'{type(error).__name__}:', *str(error).splitlines()[:1]])
    return CheckpointError(f'checkpoint {path} is not a whole checkpoint: {reason}')


def load_from_url(
    url: str, model_dir: str | None = None, map_location: Any = None, progress: bool = True
) -> Any:
    """Downloads a checkpoint, unless it was before, and loads it as `load_from_local` does."""
    folder = Path(model_dir or os.path.join(torch.hub.get_dir(), 'checkpoints'))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / os.path.basename(urlparse(url).path)
    if not path.exists():
        torch.hub.download_url_to_file(url, str(path), progress=progress)
    return load_from_local(str(path), map_location)


def _refuse_remote(filename: str, map_location: Any = None) -> None:
    raise CheckpointError(
        f'checkpoint {filename} is not loaded with torch < 2.6: download it and name the file'
    )


def _load_weights_only(file: Any, map_location: Any = None, weights_only: Any = None) -> Any:
    return torch.load(file, map_location, weights_only=True)


def _mmengine_globals() -> dict[str, Any]:
    """What mmengine's checkpoints name beyond torch's own list, by the names numpy 1 and 2 use."""
    numeric_dtypes = [type(np.dtype(code)) for code in np.typecodes['AllInteger'] + '?efd']
    by_value = {cls: f'{cls.__module__}.{cls.__name__}' for cls in numeric_dtypes}
    named = {name: value for value, name in by_value.items()}
    named |= {
        'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
        'mmengine.config.config.ConfigDict': ConfigDict,  # a dict in metainfo
        'mmengine.optim.scheduler.param_scheduler.OneCycleParamScheduler': _ONE_CYCLE,
        'builtins.getattr': _statistic_or_annealing,
        '_codecs.encode': codecs.encode,
        'collections.Counter': collections.Counter,  # MultiStepLR's milestones
        'numpy.ndarray': np.ndarray,
        'numpy.dtype': np.dtype,
    }
    reconstruct, (scalar, _) = np.array([]).__reduce__()[0], np.float64(0).__reduce__()
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        named |= {f'{module}._reconstruct': reconstruct, f'{module}.scalar': scalar}
    return named


def _statistic_or_annealing(owner: Any, name: str) -> Any:
    """Stands for `getattr`, by which pickle finds a log's statistics and OneCycleLR's annealing."""
    if owner is _ONE_CYCLE and name in ('_annealing_cos', '_annealing_linear'):
        from mmengine.optim import OneCycleParamScheduler  # waits for this module's importer

        return getattr(OneCycleParamScheduler, name)
    if owner is not HistoryBuffer or name.startswith('_'):
        raise pickle.UnpicklingError(f'Unsupported global: GLOBAL getattr({owner!r}, {name!r})')
    return getattr(owner, name)


class _RestrictedUnpickler(pickle.Unpickler):
    """Finds the globals that `weights_only` knows and mmengine's, and no others."""

    def find_class(self, module: str, name: str) -> Any:
        module = {'__builtin__': 'builtins', 'copy_reg': 'copyreg'}.get(module, module)
        allowed = {**_get_allowed_globals(), **_mmengine_globals()}
        if f'{module}.{name}' in allowed:
            return allowed[f'{module}.{name}']
        raise pickle.UnpicklingError(f'Unsupported global: GLOBAL {module}.{name}')


# torch.load takes a module in place of pickle.
_RESTRICTED_PICKLE = SimpleNamespace(
    __name__='restricted_pickle',
    Unpickler=_RestrictedUnpickler,
    load=lambda file, **kwargs: _RestrictedUnpickler(file, **kwargs).load(),
)


def _refused_classes(path: str, error: pickle.UnpicklingError) -> list[str]:
    """Names of the classes for which a file was refused; empty if it is merely damaged."""
    if HAS_SAFE_GLOBALS:
        try:
            refused = serialization.get_unsafe_globals_in_checkpoint(path)
        except Exception:  # a damaged file, or one in the format before torch 1.6
            refused = []
        if refused:
            return sorted(refused)
    return re.findall(r'GLOBAL ([\w.]+(?:\(.*\))?)', str(error))
