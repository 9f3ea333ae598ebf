"""From a library's parameter names to ours, by rules.

A network is read as a row of parts: the stem, the blocks, the last convolution. Its library names
the convolutions of a part and their norms in some way; in what order a part runs them is known for
both sides, and which part a name belongs to is told by the numbers in it.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from mmcv.cnn import ConvModule
from torch import Tensor, nn

from condconv_det.compat.checkpoints import CheckpointError
from condconv_det.layers import RoutedBlock

from .fit import listing

Pair = tuple[str, str]
NUMBER = re.compile(r'\d+')
# The layers of a block that are no convolution with a norm: their patterns, and our names.
BESIDE = {
    r'se\.conv_reduce|\d\.fc1': 'se.conv1.conv',
    r'se\.conv_expand|\d\.fc2': 'se.conv2.conv',
    'routing_fn': 'router.fc',
}


@dataclass(frozen=True)
class Names:
    """How a library names the modules of a network of blocks.

    Args:
        block: pattern of what the names of a block's modules start with.
        layouts: each the (convolution, norm) pairs of one kind of block, in the order in which it
            runs them, without that start.
        outside: the (convolution, norm) pairs outside the blocks: the stem and the last
            convolution, which not every network has.
    """

    block: str
    layouts: tuple[tuple[Pair, ...], ...]
    outside: tuple[Pair, ...]


# An inverted residual comes without expansion in the first block.
TIMM = Names(
    block=r'blocks\.\d+\.\d+\.',
    layouts=(
        (('conv_dw', 'bn1'), ('conv_pw', 'bn2')),
        (('conv_pw', 'bn1'), ('conv_dw', 'bn2'), ('conv_pwl', 'bn3')),
        (('conv', 'bn1'),),  # MobileNetV3's last convolution
    ),
    outside=(('conv_stem', 'bn1'), ('conv_head', 'bn2')),
)
# timm's MobileNetV3 has a layer of its classifier in that place.
TIMM_V3 = Names(TIMM.block, TIMM.layouts, outside=(('conv_stem', 'bn1'),))
TORCHVISION_V2 = Names(
    block=r'features\.\d+\.conv\.',
    layouts=(
        (('0.0', '0.1'), ('1', '2')),
        (('0.0', '0.1'), ('1.0', '1.1'), ('2', '3')),
    ),
    outside=(('features.0.0', 'features.0.1'), ('features.18.0', 'features.18.1')),
)
_TORCHVISION_LAYOUTS = (
    (('0.0', '0.1'), ('1.0', '1.1')),
    (('0.0', '0.1'), ('2.0', '2.1')),  # with squeeze-and-excitation between the two
    (('0.0', '0.1'), ('1.0', '1.1'), ('2.0', '2.1')),
    (('0.0', '0.1'), ('1.0', '1.1'), ('3.0', '3.1')),
)


def torchvision_names(block: str, last: int) -> Names:
    """torchvision's MobileNetV3 and EfficientNet, whose last convolution is `features.{last}`."""
    return Names(
        block,
        _TORCHVISION_LAYOUTS,
        outside=tuple((f'features.{part}.0', f'features.{part}.1') for part in (0, last)),
    )


TORCHVISION_MNASNET = Names(
    # the first block's layers are the network's own
    block=r'layers\.(?=[3467]$)|layers\.\d+\.\d+\.layers\.',
    layouts=(
        (('3', '4'), ('6', '7')),
        (('0', '1'), ('3', '4'), ('6', '7')),
    ),
    outside=(('layers.0', 'layers.1'), ('layers.14', 'layers.15')),
)
MMPRETRAIN_V2 = Names(
    block=r'layer\d+\.\d+\.conv\.',
    layouts=(
        (('0.conv', '0.bn'), ('1.conv', '1.bn')),
        (('0.conv', '0.bn'), ('1.conv', '1.bn'), ('2.conv', '2.bn')),
    ),
    outside=(('conv1.conv', 'conv1.bn'), ('conv2.conv', 'conv2.bn')),
)


def rename(state_dict: dict[str, Tensor], names: Names, network: nn.Module) -> dict[str, Tensor]:
    """A library's state dict under the names of one of our backbones.

    Args:
        state_dict: of the library's network, without its classifier.
        names: how the library names its modules.
        network: ours.

    Raises:
        CheckpointError: a module has a name of another network, or the network has another number
            of blocks or of convolutions in one.
    """
    table = {}
    theirs = _their_parts({_module(key) for key in state_dict}, names)
    ours = _our_parts(network)
    if [len(part.layers) for part in theirs] != [len(part.layers) for part in ours]:
        raise CheckpointError(
            f'the checkpoint has {_count(theirs)}, {type(network).__name__} has {_count(ours)}'
        )
    for their, our in zip(theirs, ours):
        for (conv, norm), (our_conv, our_norm) in zip(their.layers, our.layers):
            table[their.prefix + conv] = our.prefix + our_conv
            table[their.prefix + norm] = our.prefix + our_norm
        for name, our_name in their.beside.items():
            table[their.prefix + name] = our.prefix + our_name
    return {
        table[_module(key)] + key[len(_module(key)) :]: value for key, value in state_dict.items()
    }


@dataclass(frozen=True)
class _Part:
    """The stem, a block or the last convolution: its modules' names after their common start."""

    prefix: str
    layers: Sequence[Pair]
    beside: dict[str, str] = field(default_factory=dict)


def _their_parts(modules: set[str], names: Names) -> list[_Part]:
    outside = [_Part('', [pair]) for pair in names.outside if pair[0] in modules]
    inside: dict[str, set[str]] = defaultdict(set)
    unknown = []
    for module in modules - {name for pair in names.outside for name in pair}:
        match = re.match(names.block, module)
        if match:
            inside[match[0]].add(module[match.end() :])
        else:
            unknown.append(module)
    if unknown:
        raise CheckpointError(f'the checkpoint has layers of another network: {listing(unknown)}')
    blocks = [
        _their_block(prefix, inside[prefix], names)
        for prefix in sorted(inside, key=lambda prefix: [int(n) for n in NUMBER.findall(prefix)])
    ]
    return [*outside[:1], *blocks, *outside[1:]]


def _their_block(prefix: str, modules: set[str], names: Names) -> _Part:
    beside = {
        module: ours
        for module in modules
        for pattern, ours in BESIDE.items()
        if re.fullmatch(pattern, module)
    }
    for layout in names.layouts:
        if {name for pair in layout for name in pair} == modules - set(beside):
            return _Part(prefix, layout, beside)
    raise CheckpointError(
        f'the checkpoint has a block of another network: {prefix} with {listing(modules)}'
    )


def _our_parts(network: nn.Module) -> list[_Part]:
    parts: list[_Part] = []
    for name, module in network.named_modules():
        if isinstance(module, RoutedBlock):
            convs = [key for key, child in module.named_children() if isinstance(child, ConvModule)]
            parts.append(_Part(f'{name}.', [(f'{key}.conv', f'{key}.bn') for key in convs]))
        elif isinstance(module, ConvModule) and not any(
            part.prefix and name.startswith(part.prefix) for part in parts
        ):
            parts.append(_Part('', [(f'{name}.conv', f'{name}.bn')]))
    return parts


def _module(key: str) -> str:
    return key.rpartition('.')[0]


def _count(parts: list[_Part]) -> str:
    """Of the stem, the blocks and the last convolution."""
    return f'{sum(len(part.layers) for part in parts)} convolutions in {len(parts)} parts'
