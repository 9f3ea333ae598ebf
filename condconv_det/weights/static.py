"""The static network in the middle of a routed one.

Where all experts weigh the same, 1/2 after a sigmoid or 1/E after a softmax, a layer is an ordinary
one with the kernel `sum_e W_e / 2` or `sum_e W_e / E`. For a checkpoint that came from static
weights this gives them back, see `layers.static_weights`.
"""

from pathlib import Path

import torch
from torch import Tensor

from condconv_det.compat.checkpoints import CheckpointError
from condconv_det.layers.cond_conv2d import OWN_ROUTER
from condconv_det.layers.router import check_activation

from .activations import UnreadableConfig, told_activations
from .files import check_apart, read_checkpoint, write_checkpoint
from .fit import ROUTER, listing

CONVOLUTION, LINEAR = 5, 3  # axes of a weight that holds experts


def static_file(source_file: Path, dest: Path, activation: str | None = None) -> dict[str, str]:
    """Writes a routed network's checkpoint as a static one; the optimizer's state stays behind.

    Args:
        source_file: .pth of a detector, classifier or backbone.
        dest: .pth to write.
        activation: of the routers, 'sigmoid' or 'softmax'; None is what the config in the
            checkpoint says, layer by layer, and 'sigmoid' where it says nothing.

    Returns:
        The activation for each layer's experts, by their name.

    Raises:
        FileNotFoundError: there is no source file.
        ValueError: the activation is neither, or another one than the config in the checkpoint
            says; the config does not tell which of two a layer has, or cannot be read and no
            activation is given; or `dest` is the source file.
        CheckpointError: there are no experts, or the file is damaged.
    """
    routed, meta = read_checkpoint(source_file)
    check_apart(source_file, dest)
    keys = expert_names(routed)
    try:
        told = told_activations(keys, meta)
    except UnreadableConfig:
        if activation is None:
            raise
        told = {}
    others = [key for key in told if activation not in (None, told[key])]
    if others:
        raise ValueError(
            f'{source_file} was trained with {told[others[0]]} routing, by the config in it, of '
            f'{listing(others)}; got activation {activation!r}'
        )
    default = activation or OWN_ROUTER['activation']
    check_activation(default)
    activations = dict.fromkeys(keys, default) | told
    static = _mix(routed, activations)
    kept = {key: meta[key] for key in ('dataset_meta',) if key in meta}
    names = ', '.join(sorted(set(activations.values())))
    write_checkpoint(dest, static, dict(kept, static_of=Path(source_file).name, activation=names))
    return activations


def static_weights(state_dict: dict[str, Tensor], activation: str = 'sigmoid') -> dict[str, Tensor]:
    """A routed network's state dict with one kernel for each layer's experts, and no routers.

    Args:
        state_dict: of a routed network; experts [E, *kernel].
        activation: of its routers, 'sigmoid' or 'softmax'.

    Raises:
        ValueError: the activation is neither.
        CheckpointError: there are no experts.
    """
    check_activation(activation)
    return _mix(state_dict, dict.fromkeys(expert_names(state_dict), activation))


def _mix(state_dict: dict[str, Tensor], activations: dict[str, str]) -> dict[str, Tensor]:
    """`static_weights` by the activation for each layer's experts."""
    if not activations:
        raise CheckpointError('the checkpoint has no experts: it is static already')
    static = {key: value for key, value in state_dict.items() if not ROUTER.match(key)}
    for key, activation in activations.items():
        experts = static[key]
        weight = 0.5 if activation == 'sigmoid' else 1 / len(experts)
        static[key] = (weight * experts.sum(0, dtype=torch.float64)).to(experts)
    return static


def expert_names(state_dict: dict[str, Tensor]) -> list[str]:
    """The names of all experts, such as 'backbone.conv1.conv.weight'."""
    return [key for key in state_dict if _holds_experts(key, state_dict)]


def _holds_experts(key: str, state_dict: dict[str, Tensor]) -> bool:
    layer, _, leaf = key.rpartition('.')
    if leaf != 'weight':
        return False
    # a routed linear layer has a router of its own, a convolution may share one
    return state_dict[key].dim() == CONVOLUTION or (
        state_dict[key].dim() == LINEAR and f'{layer}.router.fc.weight' in state_dict
    )
