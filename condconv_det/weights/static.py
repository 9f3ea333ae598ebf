"""The static network in the middle of a routed one.

Where all experts weigh the same, 1/2 after a sigmoid or 1/E after a softmax, a layer is an ordinary
one with the kernel `sum_e W_e / 2` or `sum_e W_e / E`. For a checkpoint that came from static
weights this gives them back, see `layers.static_weights`.
"""

from pathlib import Path

import torch
from torch import Tensor

from condconv_det.compat.checkpoints import CheckpointError
from condconv_det.layers.router import ACTIVATIONS

from .files import read_checkpoint, write_checkpoint
from .fit import ROUTER

CONVOLUTION, LINEAR = 5, 3  # axes of a weight that holds experts


def static_file(source_file: Path, dest: Path, activation: str = 'sigmoid') -> int:
    """Writes a routed network's checkpoint as a static one; the optimizer's state stays behind.

    Args:
        source_file: .pth of a detector, classifier or backbone.
        dest: .pth to write.
        activation: as in `static_weights`.

    Returns:
        How many layers had experts.

    Raises:
        FileNotFoundError: there is no source file.
        CheckpointError, ValueError: as in `static_weights`, or the file is damaged.
    """
    routed, meta = read_checkpoint(source_file)
    static = static_weights(routed, activation)
    kept = {key: meta[key] for key in ('dataset_meta',) if key in meta}
    write_checkpoint(
        dest, static, dict(kept, static_of=Path(source_file).name, activation=activation)
    )
    return sum(value.shape != routed[key].shape for key, value in static.items())


def static_weights(state_dict: dict[str, Tensor], activation: str = 'sigmoid') -> dict[str, Tensor]:
    """A routed network's state dict with one kernel for each layer's experts, and no routers.

    Args:
        state_dict: of a routed network; experts [E, *kernel].
        activation: of its routers, 'sigmoid' or 'softmax'.

    Raises:
        ValueError: the activation is neither.
        CheckpointError: there are no experts.
    """
    if activation not in ACTIVATIONS:
        raise ValueError(f'activation must be one of {ACTIVATIONS}, got {activation!r}')
    static = {key: value for key, value in state_dict.items() if not ROUTER.match(key)}
    routed = [key for key in static if _holds_experts(key, state_dict)]
    if not routed:
        raise CheckpointError('the checkpoint has no experts: it is static already')
    for key in routed:
        experts = static[key]
        weight = 0.5 if activation == 'sigmoid' else 1 / len(experts)
        static[key] = (weight * experts.sum(0, dtype=torch.float64)).to(experts)
    return static


def _holds_experts(key: str, state_dict: dict[str, Tensor]) -> bool:
    layer, _, leaf = key.rpartition('.')
    if leaf != 'weight':
        return False
    # a routed linear layer has a router of its own, a convolution may share one
    return state_dict[key].dim() == CONVOLUTION or (
        state_dict[key].dim() == LINEAR and f'{layer}.router.fc.weight' in state_dict
    )
