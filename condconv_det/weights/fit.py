"""Whether a checkpoint fits a network, so that nothing loads halfway.

mmengine 0.10 only warns of what a checkpoint lacks, of what matches nothing and of shapes that
differ, and trains on from random weights. Importing this module makes that an error for networks
with a part of this package, and for no others.
"""

import logging
import re
from collections import OrderedDict
from collections.abc import Collection, Iterable

from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import checkpoint as mmengine_checkpoint
from torch import Tensor, nn

from condconv_det import backbones
from condconv_det.compat.checkpoints import CheckpointError
from condconv_det.layers import CondConv2d, CondLinear, RoutedBlock

BACKBONES = tuple(getattr(backbones, name) for name in backbones.__all__)
LISTED = 10
STAGE = re.compile(r'(layers?\.?)(\d+)\.')
LAST_STAGE = 'conv2.'
# Of a whole network, in a checkpoint from which a bare backbone loads.
CLASSIFIER = ('fc.', 'classifier.', 'head.')
ROUTER = re.compile(r'(.*\.)?router\.')

_plain_load_state_dict = mmengine_checkpoint.load_state_dict


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
    network = module
    while is_model_wrapper(network) or isinstance(network, BaseTTAModel):
        network = network.module
    ours = any(
        isinstance(part, RoutedBlock | CondConv2d | CondLinear) for part in network.modules()
    )
    if strict or not ours:
        return _plain_load_state_dict(module, state_dict, strict, logger)
    kept = class_layers(network, state_dict)
    check_fit(network, state_dict, kept)
    if kept:
        print_log(
            f'another number of classes in the checkpoint: not loaded into {listing(kept)}',
            logger,
            logging.WARNING,
        )
        state_dict = _with_own_weights(network, state_dict, kept)
    try:
        _plain_load_state_dict(module, state_dict, strict, logger)
    except ValueError as error:  # of a layer's experts and routers
        raise CheckpointError(str(error)) from error


mmengine_checkpoint.load_state_dict = load_state_dict


def check_fit(
    network: nn.Module, state_dict: dict[str, Tensor], apart: Collection[str] = ()
) -> None:
    """Checks a checkpoint against a network; what experts and routers lack their layers check.

    Static kernels fit experts. A backbone of this package must get all it has; what else the
    checkpoint has for it must belong to stages that `out_indices` does not need or, where the
    backbone is the whole network, to a classifier. Other parts may lack anything.

    Args:
        network: detector, classifier or backbone.
        state_dict: of the checkpoint.
        apart: names of modules that are not looked at.

    Raises:
        CheckpointError: it lists, up to ten of each kind, what does not fit.
    """
    own = network.state_dict()
    if not own.keys() & state_dict.keys():
        raise CheckpointError(
            f'nothing in the checkpoint is for {type(network).__name__}: it has '
            f'{listing(state_dict)}; the network has {listing(own)}{_prefix_hint(own, state_dict)}'
        )
    apart = tuple(f'{name}.' for name in apart)
    problems = [
        _misfit(network, key, list(state_dict[key].shape), list(value.shape))
        for key, value in own.items()
        if key in state_dict and not key.startswith(apart)
    ]
    for name, part in network.named_modules():
        if isinstance(part, BACKBONES):
            problems += _missing_and_unexpected(part, name and f'{name}.', state_dict)
    kinds: dict[str, list[str]] = {}
    for kind, key in filter(None, problems):
        kinds.setdefault(kind, []).append(key)
    if kinds:
        lines = [f'  {kind}: {listing(keys)}' for kind, keys in kinds.items()]
        raise CheckpointError(
            '\n'.join([f'the checkpoint does not fit {type(network).__name__}', *lines])
        )


def class_layers(network: nn.Module, state_dict: dict[str, Tensor]) -> list[str]:
    """Names of the layers whose shape differs by the number of classes alone.

    Such a layer has A outputs for each class, of a module that holds it and has `num_classes`, the
    background maybe among them, and in the checkpoint A outputs for each of some other number.
    """
    names = []
    for name, layer in network.named_modules():
        given = state_dict.get(f'{name}.weight')
        if not isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding) or given is None:
            continue
        kernel_axes = 4 if isinstance(layer, nn.Conv2d) else 2
        theirs, own = given.shape[-kernel_axes:], layer.weight.shape[-kernel_axes:]
        classes = _num_classes(network, name)
        if classes and len(theirs) == len(own) and theirs[0] != own[0] and theirs[1:] == own[1:]:
            if any(
                own[0] % count == 0 and theirs[0] % (own[0] // count) == 0
                for count in (classes, classes + 1)
            ):
                names.append(name)
    return names


def listing(names: Iterable[str]) -> str:
    """The first ten names in alphabetical order, and how many there are besides."""
    names = sorted(names)
    more = f' and {len(names) - LISTED} more' if len(names) > LISTED else ''
    return ', '.join(names[:LISTED]) + more


def _misfit(
    network: nn.Module, key: str, theirs: list[int], ours: list[int]
) -> tuple[str, str] | None:
    """The kind of problem and the key, if a tensor of one shape can't load as one of another."""
    if theirs == ours:
        return None
    layer, _, leaf = key.rpartition('.')
    if leaf == 'weight' and isinstance(network.get_submodule(layer), CondConv2d | CondLinear):
        if theirs == ours[1:]:
            return None
        if theirs[1:] == ours[1:]:
            return f'the checkpoint has {theirs[0]} experts, the network {ours[0]}', key
    elif theirs[1:] == ours:
        return 'the checkpoint has experts here, the network has none: another cond_cfg', key
    kind = 'shapes differ (checkpoint, network), so they are of different architectures'
    return kind, f'{key} {theirs} {ours}'


def _missing_and_unexpected(
    backbone: nn.Module, prefix: str, state_dict: dict[str, Tensor]
) -> list[tuple[str, str]]:
    own = backbone.state_dict()
    theirs = {key.removeprefix(prefix) for key in state_dict if key.startswith(prefix)}
    added = _added_to_resnet(backbone)
    missing = [
        key
        for key in own.keys() - theirs
        if not key.endswith('.num_batches_tracked')
        and not key.startswith(added)
        and not _is_new_router(key, theirs)
    ]
    stages = [match for match in map(STAGE.match, own) if match]
    last = max(int(match[2]) for match in stages)
    unexpected = [
        key
        for key in theirs - own.keys()
        if not _is_beyond(key, last, own)
        and not (not prefix and key.startswith(CLASSIFIER))
        and not _is_new_router(key, own)
    ]
    return [
        *(('the checkpoint lacks', prefix + key) for key in missing),
        *(('the network has no', prefix + key) for key in unexpected),
    ]


def _is_beyond(key: str, last: int, own: Collection[str]) -> bool:
    """Whether a key belongs to a stage after the backbone's last one."""
    match = STAGE.match(key)
    if match:
        return int(match[2]) > last
    return key.startswith(LAST_STAGE) and not any(name.startswith(LAST_STAGE) for name in own)


def _is_new_router(key: str, others: Collection[str]) -> bool:
    """Whether a key is of a router that the other side lacks; static weights have none."""
    match = ROUTER.match(key)
    return bool(match) and not any(other.startswith(match[0]) for other in others)


def _added_to_resnet(backbone: nn.Module) -> tuple[str, ...]:
    """Starts of what mmdet adds to a ResNet, which published weights never have."""
    added = []
    for name, block in backbone.named_modules():
        if isinstance(block, RoutedBlock):
            for place in (1, 2, 3):
                plugins = getattr(block, f'after_conv{place}_plugin_names', [])
                added += [f'{name}.{plugin}.' for plugin in plugins]
            if getattr(block, 'with_dcn', False):
                added.append(f'{name}.conv2.conv_offset.')
    return tuple(added)


def _num_classes(network: nn.Module, name: str) -> int | None:
    """Of the innermost module around a layer that has a number of classes."""
    while name:
        name = name.rpartition('.')[0]
        classes = getattr(network.get_submodule(name), 'num_classes', None)
        if isinstance(classes, int) and classes > 0:
            return classes
    return None


def _with_own_weights(
    network: nn.Module, state_dict: dict[str, Tensor], layers: Collection[str]
) -> 'OrderedDict[str, Tensor]':
    apart = tuple(f'{name}.' for name in layers)
    mixed = OrderedDict(
        (key, value) for key, value in state_dict.items() if not key.startswith(apart)
    )
    mixed.update(
        (key, value) for key, value in network.state_dict().items() if key.startswith(apart)
    )
    mixed._metadata = getattr(state_dict, '_metadata', OrderedDict())
    return mixed


def _prefix_hint(own: Collection[str], theirs: Collection[str]) -> str:
    prefixes = {key.partition('.')[0] for key in theirs}
    for prefix in sorted(prefixes):
        if any(f'{prefix}.{key}' in theirs for key in own):
            return f"; load it with prefix='{prefix}.'"
    return ''
