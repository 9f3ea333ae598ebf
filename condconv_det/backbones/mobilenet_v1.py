"""MobileNetV1, static or CondConv.

Papers: MobileNets (https://arxiv.org/abs/1704.04861, table 1) and CondConv
(https://arxiv.org/abs/1904.04971, section 4.1).
"""

from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, Sequential
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from condconv_det.layers import CondCfg, RoutedConvModule

# Stages by stride: (channels at width 1, stride, separable blocks). 13 blocks in all.
STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 2, 6), (1024, 2, 2))
NUM_BLOCKS = sum(blocks for _, _, blocks in STAGES)
# The placement whose multiply-adds are those the paper states: 569M -> 600M at 224.
PAPER_START = 7


class SeparableBlock(BaseModule):
    """Depthwise 3x3, then pointwise 1x1, each with norm and activation.

    Args:
        in_channels, out_channels, stride: of the block.
        conv_cfg: both convolutions' `conv_cfg`, unless they are routed.
        norm_cfg, act_cfg: as in `ConvModule`.
        with_cp: whether to recompute the block in backward rather than keep what it computed.
        cond: how both convolutions are routed; None for a static block.

    Shapes:
        x [B, Cin, H, W], routing [B, E] or None -> [B, Cout, H/stride, W/stride]. Only blocks that
        share the network's router take routing.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        conv_cfg: dict | None,
        norm_cfg: dict,
        act_cfg: dict,
        with_cp: bool = False,
        cond: CondCfg | None = None,
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        self.routed = cond is not None
        self.router = cond.router(in_channels) if self.routed and cond.share == 'block' else None
        padding = 1
        if conv_cfg is not None and conv_cfg['type'] == 'Conv2dAdaptivePadding':
            # At stride 1 "same" is one zero on every side, which costs no copy of the input.
            conv_cfg, padding = (None, 1) if stride == 1 else (conv_cfg, 'same')
        if self.routed:
            conv_cfg = cond.conv_cfg()
        layer_cfg = dict(conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.depthwise_conv = RoutedConvModule(
            in_channels, in_channels, 3, stride, padding, groups=in_channels, **layer_cfg
        )
        self.pointwise_conv = RoutedConvModule(in_channels, out_channels, 1, **layer_cfg)

    def forward(self, x: Tensor, routing: Tensor | None = None) -> Tensor:
        if self.with_cp and x.requires_grad:
            return checkpoint(self._forward, x, routing, use_reentrant=False)
        return self._forward(x, routing)

    def _forward(self, x: Tensor, routing: Tensor | None) -> Tensor:
        if self.router is not None:
            routing = self.router(x)
        return self.pointwise_conv(self.depthwise_conv(x, routing), routing)


@MODELS.register_module()
class CondConvMobileNetV1(BaseModule):
    """MobileNetV1 as a detector's backbone; with `cond_cfg`, its CondConv version.

    Args:
        widen_factor: multiplies every channel count.
        out_indices: stages (0 to 4, at strides 2, 4, 8, 16, 32) whose output is returned. Stages 3
            and 4 end in blocks 11 and 13, which SSD taps.
        frozen_stages: the stem (0) and the first stages that do not train; -1 for none.
        conv_cfg: of the static convolutions. The default pads as TensorFlow does; None pads by one
            on every side.
        norm_cfg, act_cfg, norm_eval, with_cp, init_cfg: as in mmdet's MobileNetV2.
        cond_cfg: `dict(num_experts, start=7, share='layer' | 'block' | 'network', routing=dict())`,
            see `CondCfg`; blocks `start` to 13 are routed. None is the static network.

    Shapes:
        [B, 3, H, W] -> a tuple of [B, C, H/stride, W/stride].

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        widen_factor: float = 1.0,
        out_indices: Sequence[int] = (1, 2, 3, 4),
        frozen_stages: int = -1,
        conv_cfg: dict | None = dict(type='Conv2dAdaptivePadding'),
        norm_cfg: dict = dict(type='BN'),
        act_cfg: dict = dict(type='ReLU6'),
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = (
            dict(type='Kaiming', layer='Conv2d'),
            dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
        ),
        cond_cfg: dict | None = None,
    ) -> None:
        super().__init__(list(init_cfg) if isinstance(init_cfg, tuple) else init_cfg)
        stem_channels = round(32 * widen_factor)
        if stem_channels < 1:
            raise ValueError(f'widen_factor must leave at least one channel, got {widen_factor}')
        if not out_indices or not set(out_indices) <= set(range(len(STAGES))):
            raise ValueError(f'out_indices must be among 0 to {len(STAGES) - 1}, got {out_indices}')
        if frozen_stages not in range(-1, len(STAGES) + 1):
            raise ValueError(f'frozen_stages must be in -1 to {len(STAGES)}, got {frozen_stages}')
        cond = CondCfg.parse(cond_cfg, NUM_BLOCKS, PAPER_START)
        self.out_indices = tuple(out_indices)
        self.frozen_stages = frozen_stages
        self.norm_eval = norm_eval

        self.conv1 = ConvModule(
            3, stem_channels, 3, 2, 1, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg
        )
        self.router = None
        self.stages = [f'layer{number}' for number in range(1, len(STAGES) + 1)]
        in_channels, block_number = stem_channels, 0
        for name, (channels, first_stride, num_blocks) in zip(self.stages, STAGES):
            out_channels = round(channels * widen_factor)
            blocks = []
            for stride in (first_stride, *[1] * (num_blocks - 1)):
                block_number += 1
                routed = cond is not None and block_number >= cond.start
                if routed and cond.share == 'network' and self.router is None:
                    self.router = cond.router(in_channels)
                blocks.append(
                    SeparableBlock(
                        in_channels,
                        out_channels,
                        stride,
                        conv_cfg,
                        norm_cfg,
                        act_cfg,
                        with_cp,
                        cond if routed else None,
                    )
                )
                in_channels = out_channels
            self.add_module(name, Sequential(*blocks))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.conv1(x)
        outs, routing = [], None
        for index, name in enumerate(self.stages):
            for block in getattr(self, name):
                if self.router is not None and block.routed and routing is None:
                    routing = self.router(x)
                x = block(x, routing)
            if index in self.out_indices:
                outs.append(x)
        return tuple(outs)

    def train(self, mode: bool = True) -> 'CondConvMobileNetV1':
        super().train(mode)
        self._freeze_stages()
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def _freeze_stages(self) -> None:
        frozen: list[nn.Module] = [self.conv1] if self.frozen_stages >= 0 else []
        frozen += [getattr(self, name) for name in self.stages[: max(self.frozen_stages, 0)]]
        for module in frozen:
            module.eval()
            module.requires_grad_(False)
