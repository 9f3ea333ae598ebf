"""What the backbones have in common that mmdet has no class for."""

from collections.abc import Collection, Iterable, Sequence

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from condconv_det.layers import run_routed

KAIMING = (
    dict(type='Kaiming', layer='Conv2d'),
    dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
)


def check_stages(
    out_indices: Sequence[int],
    frozen_stages: int,
    num_stages: int,
    least_frozen: int = -1,
    most_frozen: int | None = None,
) -> None:
    """Raises ValueError unless both arguments are among a backbone's stages.

    Args:
        out_indices: among 0 to num_stages - 1, not empty.
        frozen_stages: least_frozen, which freezes nothing, to most_frozen, num_stages by default.
        num_stages: of the whole network.
    """
    known = isinstance(out_indices, Collection) and set(out_indices) <= set(range(num_stages))
    if not known or not out_indices:
        raise ValueError(
            f'out_indices must be a tuple of stages among 0 to {num_stages - 1}, got {out_indices}'
        )
    most_frozen = num_stages if most_frozen is None else most_frozen
    if frozen_stages not in range(least_frozen, most_frozen + 1):
        raise ValueError(
            f'frozen_stages must be in {least_frozen} to {most_frozen}, got {frozen_stages}'
        )


def check_arch(name: str, arch: str | int, known: Iterable) -> None:
    """Raises ValueError unless an argument, such as `arch`, is one of the known values."""
    if arch not in known:
        raise ValueError(f'{name} must be one of {sorted(known)}, got {arch!r}')


def check_widen_factor(widen_factor: float, least_channels: float) -> None:
    """Raises ValueError unless some channel is left of the narrowest layer."""
    if widen_factor <= 0 or least_channels < 1:
        raise ValueError(f'widen_factor must leave at least one channel, got {widen_factor}')


def drop_stages_after(network: nn.Module, stages: list[str], last: int) -> None:
    """Removes the stages of a network of mmdet's that none of its outputs needs.

    Args:
        network: whose `frozen_stages` counts the stages that remain.
        stages: their names, in order; those that are removed leave the list.
        last: index of the last one that is needed.
    """
    for name in stages[last + 1 :]:
        delattr(network, name)
    del stages[last + 1 :]
    network.frozen_stages = min(network.frozen_stages, len(stages))


def fast_same(conv_cfg: dict | None, stride: int) -> dict | None:
    """The `conv_cfg` of a block's convolutions, which are padded by half their kernel.

    At stride 1 that is TensorFlow's "same", without the copy of the input which mmcv's
    `Conv2dAdaptivePadding` makes.
    """
    if stride == 1 and conv_cfg is not None and conv_cfg['type'] == 'Conv2dAdaptivePadding':
        return None
    return conv_cfg


def run_stages(
    stages: Iterable[nn.Module], out_indices: Collection[int], x: Tensor
) -> tuple[Tensor, ...]:
    """Runs a backbone's stages, routing weights beside the features; returns some of their maps.

    Args:
        stages: rows of blocks, blocks or layers.
        out_indices: of the stages whose output is returned.
        x: [B, C, H, W].
    """
    outs, routing = [], None
    for index, stage in enumerate(stages):
        x, routing = run_routed(stage, x, routing)
        if index in out_indices:
            outs.append(x)
    return tuple(outs)


class StagedBackbone(BaseModule):
    """A stem and the stages after it; subclasses add them, in order, with `add_layer`.

    Args:
        out_layers: which of the layers' outputs are returned; the stem is 0.
        frozen_stages: the last layer that does not train; the stem is 0, and -1 is none.
        norm_eval: whether norms keep their statistics in training.
        init_cfg: as in mmengine's BaseModule.

    Shapes:
        [B, 3, H, W] -> a tuple of [B, C, H/stride, W/stride].
    """

    def __init__(
        self,
        out_layers: Sequence[int],
        frozen_stages: int,
        norm_eval: bool,
        init_cfg: dict | list[dict] | tuple[dict, ...] | None,
    ) -> None:
        super().__init__(list(init_cfg) if isinstance(init_cfg, tuple) else init_cfg)
        self.layers: list[str] = []
        self.out_layers = frozenset(out_layers)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

    def add_layer(self, name: str, layer: nn.Module) -> None:
        """Adds the next layer."""
        self.add_module(name, layer)
        self.layers.append(name)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return run_stages([getattr(self, name) for name in self.layers], self.out_layers, x)

    def train(self, mode: bool = True) -> 'StagedBackbone':
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze_stages(self) -> None:
        for name in self.layers[: self.frozen_stages + 1]:
            layer = getattr(self, name)
            layer.eval()
            layer.requires_grad_(False)
