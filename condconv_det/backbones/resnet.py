"""ResNet, static or CondConv.

Papers: ResNet (https://arxiv.org/abs/1512.03385, table 1) and CondConv
(https://arxiv.org/abs/1904.04971, section 4.1).
"""

from collections.abc import Sequence

from mmdet.models.backbones.resnet import BasicBlock, Bottleneck, ResNet
from mmdet.models.layers import ResLayer
from mmengine.registry import MODELS
from torch import Tensor

from condconv_det.layers import RoutedBlock, RoutedSequential, route_blocks, run_routed

from .staged import check_arch, check_stages, drop_stages_after, run_stages

# The last three residual blocks, downsampling convolution too: the placement whose multiply-adds
# are those the paper states for ResNet-50, 4089M -> 4209M.
PAPER_BLOCKS = 3


def _identity(block: BasicBlock | Bottleneck, x: Tensor, routing: Tensor | None) -> Tensor:
    """The shortcut: x itself, or what the layers of `downsample` make of it."""
    for layer in block.downsample or ():
        x, routing = run_routed(layer, x, routing)
    return x


class RoutedBasicBlock(RoutedBlock, BasicBlock):
    """mmdet's `BasicBlock`, with its arguments and parameter names, that can be routed."""

    def forward_layers(self, x: Tensor, routing: Tensor | None) -> tuple[Tensor, Tensor | None]:
        identity = _identity(self, x, routing)
        out, routing = run_routed(self.conv1, x, routing)
        out = self.relu(self.norm1(out))
        out, routing = run_routed(self.conv2, out, routing)
        return self.relu(self.norm2(out) + identity), routing


class RoutedBottleneck(RoutedBlock, Bottleneck):
    """mmdet's `Bottleneck`, with its arguments and parameter names, that can be routed.

    Plugins and deformable convolutions stay plain.
    """

    def forward_layers(self, x: Tensor, routing: Tensor | None) -> tuple[Tensor, Tensor | None]:
        identity = _identity(self, x, routing)
        out, routing = run_routed(self.conv1, x, routing)
        out = self._plugins(self.relu(self.norm1(out)), 'after_conv1_plugin_names')
        out, routing = run_routed(self.conv2, out, routing)
        out = self._plugins(self.relu(self.norm2(out)), 'after_conv2_plugin_names')
        out, routing = run_routed(self.conv3, out, routing)
        out = self._plugins(self.norm3(out), 'after_conv3_plugin_names')
        return self.relu(out + identity), routing

    def _plugins(self, x: Tensor, names: str) -> Tensor:
        return self.forward_plugin(x, getattr(self, names)) if self.with_plugins else x


class RoutedResLayer(RoutedSequential, ResLayer):
    """mmdet's `ResLayer`, a stage, of blocks that can be routed."""


@MODELS.register_module()
class CondConvResNet(ResNet):
    """mmdet's `ResNet`, with its arguments and parameter names; with `cond_cfg`, CondConv.

    Arguments after the first are given by name.

    Args:
        depth: 18, 34, 50, 101 or 152.
        num_stages, out_indices: as in mmdet; stages after the last of `out_indices` are not kept,
            so that no parameter goes unused.
        frozen_stages: the stem (0) and the first stages that do not train; -1 for none.
        cond_cfg: `dict(num_experts, start, share='layer' | 'block' | 'network', routing=dict())`,
            see `CondCfg`; by default the last three of all residual blocks (16 in ResNet-50) are
            routed, or, in a C4 detector, the last three that are built. None is the static network.
        kwargs: mmdet's other arguments.

    Shapes:
        [B, 3, H, W] -> a tuple of [B, C, H/stride, W/stride].

    Raises:
        ValueError: an argument is out of range.
    """

    arch_settings = {
        depth: (RoutedBasicBlock if block is BasicBlock else RoutedBottleneck, num_blocks)
        for depth, (block, num_blocks) in ResNet.arch_settings.items()
    }

    def __init__(
        self,
        depth: int,
        *,
        num_stages: int = 4,
        out_indices: Sequence[int] = (0, 1, 2, 3),
        frozen_stages: int = -1,
        zero_init_residual: bool = True,
        init_cfg: dict | list[dict] | None = None,
        cond_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        check_arch('depth', depth, self.arch_settings)
        check_stages(out_indices, frozen_stages, num_stages)
        self.zeroes_last_norm = zero_init_residual and init_cfg is None
        super().__init__(
            depth,
            num_stages=num_stages,
            out_indices=out_indices,
            frozen_stages=frozen_stages,
            zero_init_residual=zero_init_residual,
            init_cfg=init_cfg,
            **kwargs,
        )
        drop_stages_after(self, self.res_layers, max(out_indices))
        blocks = [block for name in self.res_layers for block in getattr(self, name)]
        default_start = sum(self.arch_settings[depth][1]) - PAPER_BLOCKS + 1
        route_blocks(self, blocks, cond_cfg, default_start)

    def make_res_layer(self, block: type, **kwargs) -> RoutedResLayer:
        """One stage, as in mmdet, of blocks that can be routed."""
        if self.zeroes_last_norm:  # which mmdet does for its own block classes alone
            last_norm = 'norm2' if issubclass(block, BasicBlock) else 'norm3'
            kwargs['init_cfg'] = dict(type='Constant', val=0, override=dict(name=last_norm))
        return RoutedResLayer(block, **kwargs)

    def train(self, mode: bool = True) -> 'CondConvResNet':
        super().train(mode)
        return self  # mmdet's returns None, and so would `eval()`

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(x) if self.deep_stem else self.relu(self.norm1(self.conv1(x)))
        x = self.maxpool(x)
        return run_stages([getattr(self, name) for name in self.res_layers], self.out_indices, x)
