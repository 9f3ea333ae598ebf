"""Whether a checkpoint fits a network, so that nothing loads halfway."""

import re
from collections.abc import Collection, Iterable

from mmengine.model import BaseTTAModel, is_model_wrapper
from torch import Tensor, nn

from condconv_det import backbones
from condconv_det.compat.checkpoints import CheckpointError
from condconv_det.layers import Experts, RoutedBlock

BACKBONES = tuple(getattr(backbones, name) for name in backbones.__all__)
LISTED = 10
STAGE = re.compile(r'(layers?\.?)(\d+)\.')
LAST_STAGE = 'conv2.'
# Of mmdet's caffe-style ResNet-50, `detectron2/resnet50_caffe`; Detectron and mmdet leave it out.
CAFFE_BIAS = 'conv1.bias'
# Of a whole network, in a checkpoint from which a bare backbone loads.
CLASSIFIER = ('fc.', 'classifier.', 'head.')
# Layers of boxes, such as `bbox_head.retina_reg` and `bbox_head.reg_convs.0.2`.
REGRESSION = re.compile(r'(.*[._])?reg(_|\.|$)')
# Parts of AutoAssign, PointRend, Seesaw and EQL loss, all of whose weights may depend on the number
# of classes, and a weight that has an entry for each class.
OF_CLASSES = dict(
    CenterPrior='mean',
    MaskPointHead='fc_logits.bias',
    SeesawLoss='cum_samples',
    EQLV2Loss='pos_grad',
)
ROUTER = re.compile(r'(.*\.)?router\.')


def unwrapped(model: nn.Module) -> nn.Module:
    """The network in wrappers for several devices and for test-time augmentation."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


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


def not_needed(network: nn.Module, state_dict: Collection[str]) -> set[str]:
    """Keys of a checkpoint that are for a backbone of this package, which does not need them.

    They are of stages that `out_indices` leaves out or, where the backbone is the whole network, of
    a classifier.
    """
    found = set()
    for name, part in network.named_modules():
        if isinstance(part, BACKBONES):
            prefix = name and f'{name}.'
            theirs = [key.removeprefix(prefix) for key in state_dict if key.startswith(prefix)]
            found |= {prefix + key for key in _beyond(theirs, part.state_dict(), bare=not prefix)}
    return found


def class_layers(network: nn.Module, state_dict: dict[str, Tensor]) -> list[str]:
    """Names of the layers whose shape differs by the number of classes alone.

    Such a layer has A outputs for each class, of a module that holds it and has `num_classes`, the
    background maybe among them, or SeesawLoss's two of objectness, or YOLOv3's box and objectness,
    `num_attrib` in all. In the checkpoint it has A outputs for each of some other number. One of
    boxes alone depends on the classes only in a head whose regression is not agnostic of them: else
    another number of anchors would pass for another one of classes. `OF_CLASSES` are other parts
    that depend on them.
    """
    names = []
    # a layer that several stages share, as Deformable DETR's, is in the file under each name
    for name, layer in network.named_modules(remove_duplicate=False):
        leaf = OF_CLASSES.get(type(layer).__name__)
        given = state_dict.get(f'{name}.{leaf or "weight"}')
        if leaf and given is not None and len(given) != len(layer.state_dict()[leaf]):
            names.append(name)
        if not isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding) or given is None:
            continue
        kernel_axes = 4 if isinstance(layer, nn.Conv2d) else 2
        theirs, own = given.shape[-kernel_axes:], layer.weight.shape[-kernel_axes:]
        counts, agnostic = _classes(network, name)
        if agnostic and REGRESSION.match(name):
            continue
        if len(theirs) == len(own) and theirs[0] != own[0] and theirs[1:] == own[1:]:
            if any(own[0] % count == 0 and theirs[0] % (own[0] // count) == 0 for count in counts):
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
    if leaf == 'weight' and isinstance(network.get_submodule(layer), Experts):
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
    unexpected = [
        key
        for key in theirs - own.keys() - _beyond(theirs, own, bare=not prefix)
        if not _is_new_router(key, own)
        and not (key == CAFFE_BIAS and isinstance(backbone, backbones.CondConvResNet))
    ]
    return [
        *(('the checkpoint lacks', prefix + key) for key in missing),
        *(('the network has no', prefix + key) for key in unexpected),
    ]


def _beyond(theirs: Collection[str], own: Collection[str], bare: bool) -> set[str]:
    """Those of a checkpoint's keys for a backbone that are of stages after its last one.

    Args:
        theirs, own: keys without prefix.
        bare: whether the backbone is the whole network, so that a classifier's keys are, too.
    """
    last = max(int(match[2]) for match in map(STAGE.match, own) if match)
    has_last = any(name.startswith(LAST_STAGE) for name in own)

    def is_beyond(key: str) -> bool:
        match = STAGE.match(key)
        if match:
            return int(match[2]) > last
        return (key.startswith(LAST_STAGE) and not has_last) or (
            bare and key.startswith(CLASSIFIER)
        )

    return {key for key in theirs if is_beyond(key)}


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


def _classes(network: nn.Module, name: str) -> tuple[tuple[int, ...], bool]:
    """Of the innermost module around a layer that has a number of classes: how many outputs may be
    for each place, none without such a module, and whether its boxes are the same for all classes.
    """
    while name:
        name = name.rpartition('.')[0]
        part = network.get_submodule(name)
        classes = getattr(part, 'num_classes', None)
        if isinstance(classes, int) and classes > 0:
            counts = classes, classes + 1, getattr(part, 'num_attrib', classes)
            loss = getattr(part, 'loss_cls', None)
            if getattr(loss, 'custom_cls_channels', False):  # SeesawLoss
                counts += (loss.get_cls_channels(classes),)
            return counts, getattr(part, 'reg_class_agnostic', True)
    return (), True


def _prefix_hint(own: Collection[str], theirs: Collection[str]) -> str:
    prefixes = {key.partition('.')[0] for key in theirs}
    for prefix in sorted(prefixes):
        if any(f'{prefix}.{key}' in theirs for key in own):
            return f"; load it with prefix='{prefix}.'"
    return ''
