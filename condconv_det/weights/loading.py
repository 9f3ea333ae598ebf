"""mmengine's ways to load a checkpoint, made to load it whole or not at all.

mmengine 0.10 only warns of what a checkpoint lacks, of what matches nothing and of shapes that
differ, and trains on from random weights. Importing this module makes that an error for networks
with a part of this package, and for no others, and warns of converted weights in a backbone that
pads, normalises or activates otherwise than the one that they were trained in.
"""

import logging
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from mmengine.logging import print_log
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn

from condconv_det.compat.checkpoints import CheckpointError
from condconv_det.layers import Experts, RoutedBlock

from .activations import told_activations
from .fit import BACKBONES, check_fit, class_layers, listing, not_needed, unwrapped
from .settings import Setting, differing_settings
from .static import expert_names

# The key under which a state dict's `_metadata`, which mmengine hands on with the weights, say from
# where they are: `file`, its `prefixes`, the `prefix` that was taken, the `backbone` that they are
# for, the `activations` that route its experts. Plain data, for whoever saves the state dict again.
ORIGIN = 'condconv_det.origin'
MISSHAPEN = 'size mismatch for '  # how PyTorch's message begins

_left: WeakKeyDictionary[nn.Module, dict[str, set[str]]] = WeakKeyDictionary()

_plain_load_checkpoint = CheckpointLoader.load_checkpoint.__func__
_plain_load_state_dict = mmengine_checkpoint.load_state_dict


class PrefixError(CheckpointError, AssertionError):
    """A checkpoint has nothing under a prefix; mmengine's own error is an AssertionError."""


def load_checkpoint(
    cls: type, filename: str, map_location: Any = None, logger: str = 'current'
) -> Any:
    """mmengine's `CheckpointLoader.load_checkpoint`, whose weights remember their file."""
    checkpoint = _plain_load_checkpoint(cls, filename, map_location, logger)
    weights = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else None
    if not isinstance(weights, dict):
        return checkpoint
    meta = checkpoint.get('meta')
    meta = meta if isinstance(meta, dict) else {}
    origin = dict(
        file=str(filename),
        prefixes=sorted({str(key).partition('.')[0] + '.' for key in weights}),
        backbone=meta.get('backbone'),
        activations=_told(weights, meta),
    )
    marked = _marked(weights, weights, origin)
    if weights is checkpoint:
        return marked
    checkpoint['state_dict'] = marked
    return checkpoint


def load_with_prefix(
    prefix: str, filename: str, map_location: Any = None
) -> 'OrderedDict[str, Tensor]':
    """mmengine's `_load_checkpoint_with_prefix`: what a file has under a prefix, which is cut off.

    Raises:
        PrefixError: it has nothing there.
    """
    checkpoint = mmengine_checkpoint._load_checkpoint(filename, map_location)
    weights = checkpoint.get('state_dict', checkpoint)
    dotted = prefix if prefix.endswith('.') else f'{prefix}.'
    part = {key[len(dotted) :]: value for key, value in weights.items() if key.startswith(dotted)}
    origin = _origin(weights)
    if not part:
        raise PrefixError(
            f'checkpoint {filename} has nothing under the prefix {prefix!r}; '
            f'its prefixes are {listing(origin["prefixes"])}'
        )
    return _marked(part, weights, dict(origin, prefix=dotted))


def load_state_dict(
    module: nn.Module,
    state_dict: dict[str, Tensor],
    strict: bool = False,
    logger: logging.Logger | str | None = None,
) -> None:
    """mmengine's `load_state_dict`, in which all its ways to load a network end, with a check.

    Layers that depend on the number of classes keep their weights, with one warning, where the
    checkpoint has another number.

    Raises:
        CheckpointError: the network has a part of this package and the checkpoint does not fit it.
    """
    network = unwrapped(module)
    state_dict = _for_both(network, state_dict)
    own = network.state_dict()
    misshapen = {
        key for key in own.keys() & state_dict.keys() if _differ(own[key], state_dict[key])
    }
    missing: list[str] = []
    errors: list[str] = []

    def note(weights: Any, prefix: str, metadata: Any, strict: bool, *lists: list[str]) -> None:
        nonlocal missing, errors
        missing, _, errors = lists  # that modules fill once they have renamed what they rename

    noting = network._register_load_state_dict_pre_hook(note)
    try:
        _load_whole_or_not(module, network, state_dict, strict, logger)
    finally:
        noting.remove()
    lacking = {key for key in missing if not key.endswith('num_batches_tracked')}
    named = [error.removeprefix(MISSHAPEN) for error in errors if error.startswith(MISSHAPEN)]
    misshapen |= {error.partition(':')[0] for error in named}
    _left[network] = {'it lacks': lacking, 'shapes differ in': misshapen}


def left_by_loading(network: nn.Module) -> dict[str, set[str]]:
    """Names of the weights that the last loading of a network did not fill with a file's as is.

    They are, by the reason, those that the file lacks under all names that the network knows, and
    those of another shape there, among them kernels of which experts were made.
    """
    return _left.get(network, {})


def file_of(checkpoint: dict[str, Any]) -> str | None:
    """The file that a checkpoint was loaded from."""
    return _origin(checkpoint.get('state_dict', checkpoint)).get('file')


def _differ(own: Any, given: Any) -> bool:
    return isinstance(own, Tensor) and isinstance(given, Tensor) and own.shape != given.shape


def _load_whole_or_not(
    module: nn.Module,
    network: nn.Module,
    state_dict: dict[str, Tensor],
    strict: bool,
    logger: logging.Logger | str | None,
) -> None:
    if not any(isinstance(part, RoutedBlock | Experts) for part in network.modules()):
        return _plain_load_state_dict(module, state_dict, strict, logger)
    origin = _origin(state_dict)
    _check_activations(network, state_dict, origin)
    if not strict:
        state_dict = _fitting(network, state_dict, logger)
    try:
        _plain_load_state_dict(module, state_dict, strict, logger)
    except ValueError as error:  # of a layer's experts and routers
        raise CheckpointError(str(error)) from error
    if origin.get('backbone'):
        _warn_of_settings(network, origin, logger)


CheckpointLoader.load_checkpoint = classmethod(load_checkpoint)
mmengine_checkpoint._load_checkpoint_with_prefix = load_with_prefix
mmengine_checkpoint.load_state_dict = load_state_dict


def _origin(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    return (getattr(weights, '_metadata', None) or {}).get(ORIGIN, {})


def _marked(
    weights: Mapping[str, Tensor], source: Mapping[str, Tensor], origin: Mapping[str, Any]
) -> 'OrderedDict[str, Tensor]':
    """Weights with the versions of a source's modules, and with their origin."""
    marked = OrderedDict(weights)
    marked._metadata = OrderedDict(getattr(source, '_metadata', None) or {})
    marked._metadata[ORIGIN] = dict(origin)
    return marked


def _for_both(network: nn.Module, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """A detector's weights for student and teacher, as mmdet's SemiBaseDetector takes them."""
    if not (hasattr(network, 'student') and hasattr(network, 'teacher')):
        return state_dict
    from mmdet.models import SemiBaseDetector  # a backbone alone does without mmdet

    named = any('student' in key or 'teacher' in key for key in state_dict)
    if named or not isinstance(network, SemiBaseDetector):
        return state_dict
    origin = _origin(state_dict)
    both = [
        {f'{half}.{key}': value for half in ('teacher', 'student') for key, value in each.items()}
        for each in (state_dict, origin.get('activations', {}))
    ]
    return _marked(both[0], state_dict, dict(origin, activations=both[1]))


def _fitting(
    network: nn.Module, state_dict: Mapping[str, Tensor], logger: logging.Logger | str | None
) -> 'OrderedDict[str, Tensor]':
    """What of a checkpoint is for a network, so that mmengine has no reason to warn of the rest."""
    origin = _origin(state_dict)
    kept = class_layers(network, state_dict)
    try:
        check_fit(network, state_dict, kept)
    except CheckpointError as error:
        if 'file' not in origin:
            raise
        source = f'checkpoint {origin["file"]}'
        if 'prefix' in origin:
            source += f', prefix {origin["prefix"]!r} of {listing(origin["prefixes"])}'
        raise CheckpointError(f'{source}: {error}') from error
    if kept:
        print_log(
            f'another number of classes in the checkpoint: not loaded into {listing(kept)}',
            logger,
            logging.WARNING,
        )
    left_out = not_needed(network, state_dict)
    apart = tuple(f'{name}.' for name in kept)
    fitting = {
        key: value
        for key, value in state_dict.items()
        if key not in left_out and not key.startswith(apart)
    }
    own = network.state_dict()
    fitting.update((key, own[key]) for key in own if key.startswith(apart))
    return _marked(fitting, state_dict, origin)


def _told(weights: Mapping[Any, Any], meta: dict[str, Any]) -> dict[str, str]:
    """`told_activations` of what else a file may hold, none where they cannot be told."""
    # the wrapper of a network that was trained on several devices
    tensors = {
        str(key).removeprefix('module.'): value
        for key, value in weights.items()
        if isinstance(value, Tensor)
    }
    try:
        return told_activations(expert_names(tensors), meta)
    except ValueError:
        return {}


def _check_activations(
    network: nn.Module, state_dict: Mapping[str, Tensor], origin: Mapping[str, Any]
) -> None:
    """Raises CheckpointError if experts are for another routing than that of their layers.

    Experts for sigmoid routing mix to 2/E of their kernel where softmax routes them.
    """
    told, prefix = origin.get('activations', {}), origin.get('prefix', '')
    others = {
        name: (told[f'{prefix}{name}.weight'], layer.activation)
        for name, layer in network.named_modules()
        if isinstance(layer, Experts)
        and f'{name}.weight' in state_dict
        and told.get(f'{prefix}{name}.weight', layer.activation) != layer.activation
    }
    if others:
        theirs, ours = next(iter(others.values()))
        raise CheckpointError(
            f'checkpoint {origin["file"]} has experts for {theirs} routing, by the config in it, '
            f'and the network routes them by {ours}: {listing(others)}; '
            f'set routing=dict(activation={theirs!r}) in the cond_cfg'
        )


def _warn_of_settings(
    network: nn.Module, origin: Mapping[str, Any], logger: logging.Logger | str | None
) -> None:
    """Warns if a backbone is built otherwise than the one that its converted weights are for."""
    config, file = origin['backbone'], origin['file']
    for name, part in network.named_modules():
        # the file has its backbone under this name, and what loads is that or a part of a network
        place = name or origin.get('prefix', '').removesuffix('.')
        if not isinstance(part, BACKBONES) or place != 'backbone':
            continue
        try:
            settings = differing_settings(part, config)
        except Exception as error:  # another version's config, or another program's
            print_log(
                f'checkpoint {file}: its backbone cannot be built, so that it was not compared '
                f'with the config: {type(error).__name__}: {error}',
                logger,
                logging.WARNING,
            )
            return
        if settings:
            print_log(_described(part, file, settings), logger, logging.WARNING)


def _described(backbone: nn.Module, file: str, settings: Mapping[str, Setting]) -> str:
    differences = '; '.join(
        f'{key}, of {len(setting.layers)} layers: {_first(setting.layers)}'
        for key, setting in settings.items()
    )
    lines = ''.join(f'        {key}={_code(setting.value)},\n' for key, setting in settings.items())
    return (
        f'checkpoint {file} is of a network that computes something else than this '
        f'{type(backbone).__name__}, whose features will not be those of its weights. '
        f'They differ in {differences}. Set in the config\n'
        f'model = dict(\n    backbone=dict(\n{lines}    ),\n)'
    )


def _first(names: list[str]) -> str:
    """Three names in the network's order."""
    more = f' and {len(names) - 3} more' if len(names) > 3 else ''
    return ', '.join(names[:3]) + more


def _code(value: Any) -> str:
    """A value as configs write it."""
    if isinstance(value, dict):
        return f'dict({", ".join(f"{key}={_code(item)}" for key, item in value.items())})'
    return repr(value)
