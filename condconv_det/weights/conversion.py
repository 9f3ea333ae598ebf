"""Other people's checkpoints into ours."""

import copy
import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from condconv_det.compat.checkpoints import CheckpointError
from condconv_det.layers import CondConv2d

from .files import check_apart, read_checkpoint, write_checkpoint
from .fit import check_fit, listing
from .names import rename
from .sources import Source, find_source

TOLERANCE = 1e-3
PREFIX = 'backbone.'


@dataclass(frozen=True)
class Conversion:
    """What a checkpoint became.

    Args:
        state_dict: by mmpretrain's names, `backbone.` and `head.`; of a detector, all it had.
        backbone: config of the backbone that the weights are for.
        difference: of its output from the library's network, see `largest_difference`; None where
            the library is not installed.
    """

    state_dict: dict[str, Tensor]
    backbone: dict
    difference: float | None


def convert_file(
    source_file: Path, dest: Path, library: str, arch: str, num_experts: int | None = None
) -> Conversion:
    """Converts a checkpoint file and writes what mmengine loads, with its origin in `meta`.

    Args:
        source_file: .safetensors or .pth.
        dest: .pth to write; nothing is written unless all went well.
        library, arch, num_experts: as in `convert`.

    Raises:
        FileNotFoundError: there is no source file.
        CheckpointError, ValueError: as in `convert`, the file is damaged or holds no weights, or
            `dest` is the source file.
    """
    state_dict, meta = read_checkpoint(source_file)
    check_apart(source_file, dest)
    conversion = convert(state_dict, library, arch, num_experts)
    origin = dict(
        library=library,
        arch=arch,
        file=Path(source_file).name,
        sha256=hashlib.sha256(Path(source_file).read_bytes()).hexdigest(),
        largest_difference=conversion.difference,
    )
    kept = {key: meta[key] for key in ('dataset_meta',) if key in meta}
    write_checkpoint(
        dest, conversion.state_dict, dict(kept, origin=origin, backbone=conversion.backbone)
    )
    return conversion


def convert(
    state_dict: dict[str, Tensor], library: str, arch: str, num_experts: int | None = None
) -> Conversion:
    """Converts a library's weights, and runs both networks on a random image to see it done.

    Args:
        state_dict: of the library's network.
        library, arch: one of `SOURCES`.
        num_experts: makes static weights experts, where `cond_cfg` routes by default.

    Raises:
        ValueError: there is no such library or network, or it has experts already.
        CheckpointError: the weights are of another network, or ours computes something else than
            the library's.
    """
    source = find_source(library, arch)
    backbone = source.backbone
    network = MODELS.build(backbone)
    own, rest = translate(state_dict, source, network)
    if num_experts is not None:
        if 'cond_cfg' in backbone:
            raise ValueError(f'{library} {arch} has experts already: {backbone["cond_cfg"]}')
        backbone = {**backbone, 'cond_cfg': dict(num_experts=num_experts)}
        network = MODELS.build(backbone)
    network.load_state_dict(own, strict=False)  # old files lack num_batches_tracked
    difference = _difference_from_original(source, state_dict, network, rest)
    if difference is not None and not difference <= TOLERANCE:  # it may be not a number
        raise CheckpointError(
            f'{backbone["type"]} computes something else than {library} {arch} from these weights: '
            f'they differ by {difference:.2g} of the largest value, allowed is {TOLERANCE:g}'
        )
    converted = {PREFIX + key: value for key, value in network.state_dict().items()} | rest
    return Conversion(converted, backbone, difference)


def translate(
    state_dict: dict[str, Tensor], source: Source, network: nn.Module
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A library's weights under our names: the backbone's, and what else there is.

    Args:
        state_dict: of the library's network.
        source: the library's entry in the table.
        network: our backbone, of `source.backbone`.

    Raises:
        CheckpointError: the weights are of another network.
    """
    own, rest = _split(state_dict, source)
    if source.names is not None:
        own = rename(own, source.names, network)
    own = _unfold_experts(own, network)
    check_fit(network, own)
    return own, rest


def _split(
    state_dict: dict[str, Tensor], source: Source
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The backbone's weights, and all others under the names that they keep."""
    if any(key.startswith(PREFIX) for key in state_dict):
        own = {k.removeprefix(PREFIX): v for k, v in state_dict.items() if k.startswith(PREFIX)}
        return own, {k: v for k, v in state_dict.items() if not k.startswith(PREFIX)}
    own, rest = {}, {}
    ours = dict(zip(source.classifier, source.our_classifier))
    for key, value in state_dict.items():
        module, _, leaf = key.rpartition('.')
        if module in ours:
            # timm's MobileNetV3 has a 1x1 convolution among its linear layers
            rest[f'{ours[module]}.{leaf}'] = value.flatten(1) if value.dim() == 4 else value
        else:
            own[key] = value
    return own, rest


def _unfold_experts(state_dict: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """timm's experts are rows of a matrix."""
    unfolded = dict(state_dict)
    for name, layer in network.named_modules():
        rows = state_dict.get(f'{name}.weight')
        if isinstance(layer, CondConv2d) and rows is not None and rows.dim() == 2:
            if rows.shape == layer.weight.flatten(1).shape:
                unfolded[f'{name}.weight'] = rows.reshape(layer.weight.shape)
    return unfolded


@torch.no_grad()
def _difference_from_original(
    source: Source, state_dict: dict[str, Tensor], network: nn.Module, rest: dict[str, Tensor]
) -> float | None:
    """How far our network's output is from the original's; None if that can't be built."""
    layers = [
        (rest[f'{name}.weight'].double(), rest[f'{name}.bias'].double())
        for name in source.our_classifier
        if f'{name}.weight' in rest
    ]
    widths = [layers[0][0].shape[1], *(len(bias) for _, bias in layers)] if layers else []
    try:
        original = source.build(widths)
    except ImportError:
        return None
    _load_original(original, source, state_dict)
    # in float64, where a difference is one of the networks and not of rounding
    original, network = original.double(), copy.deepcopy(network).double()
    for each in (original, network):
        each.eval()
    seen = {}
    original.get_submodule(source.features).register_forward_hook(
        lambda module, given, output: seen.update(features=output)
    )
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, source.side, source.side, dtype=torch.float64, generator=generator)
    logits = original(image)
    features = seen['features']
    theirs = [features[-1] if isinstance(features, tuple) else features]
    ours = [network(image)[-1]]
    if layers:
        theirs.append(logits)
        ours.append(_classify(ours[0], layers))
    # torch's maximum, unlike Python's, is not a number where one of them is not
    return torch.tensor([largest_difference(*pair) for pair in zip(ours, theirs)]).max().item()


def _load_original(original: nn.Module, source: Source, state_dict: dict[str, Tensor]) -> None:
    """Loads the library's own network, of a detector its backbone alone."""
    prefix = PREFIX if source.features == 'backbone' else ''
    if prefix and not any(key.startswith(prefix) for key in state_dict):
        state_dict = {prefix + key: value for key, value in state_dict.items()}
    if not source.classifier:
        state_dict = {k: v for k, v in state_dict.items() if k.startswith(prefix)}
    state_dict = OrderedDict(state_dict)
    # versions of modules, which safetensors does not keep and torchvision's MnasNet asks for
    state_dict._metadata = original.state_dict()._metadata
    missing, unexpected = original.load_state_dict(state_dict, strict=False)
    absent = [
        key
        for key in missing
        if not key.endswith('num_batches_tracked')
        and key.rpartition('.')[0] not in source.classifier
    ]
    if absent or unexpected:
        raise CheckpointError(
            f'the checkpoint is not one of {source.package} {source.arch}: it lacks '
            f'{listing(absent) or "nothing"} and has {listing(unexpected) or "nothing"} besides'
        )


def _classify(features: Tensor, layers: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Logits [B, classes] as mmpretrain's heads compute them; MobileNetV3's has two layers."""
    x = features.mean((2, 3))
    for weight, bias in layers[:-1]:
        x = F.hardswish(F.linear(x, weight, bias))
    return F.linear(x, *layers[-1])


def largest_difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference of two tensors, as a share of the largest value of the second.

    It is not a number where the second holds zeros alone.
    """
    return ((ours - theirs).abs().max() / theirs.abs().max()).item()
