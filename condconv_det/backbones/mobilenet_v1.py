"""MobileNetV1, static or CondConv.

Papers: MobileNets (https://arxiv.org/abs/1704.04861, table 1) and CondConv
(https://arxiv.org/abs/1904.04971, section 4.1).
"""

from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmengine.registry import MODELS
from torch import Tensor

from condconv_det.layers import RoutedBlock, RoutedSequential, route_blocks, run_routed

from .staged import KAIMING, StagedBackbone, check_stages, check_widen_factor, fast_same

# Stages by stride: (channels at width 1, stride, separable blocks). 13 blocks in all.
STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 2, 6), (1024, 2, 2))
# The placement whose multiply-adds are those the paper states, with the classifier: 569M -> 600M.
PAPER_START = 7


class SeparableBlock(RoutedBlock):
    """Depthwise 3x3, then pointwise 1x1, each with norm and activation.

    Args:
        in_channels, out_channels, stride: of the block.
        conv_cfg, norm_cfg, act_cfg: as in `ConvModule`.
        with_cp: whether to recompute the block in backward rather than keep what it computed.
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
    ) -> None:
        super().__init__()
        self.with_cp = with_cp
        layer_cfg = dict(conv_cfg=fast_same(conv_cfg, stride), norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.depthwise_conv = ConvModule(
            in_channels, in_channels, 3, stride, 1, groups=in_channels, **layer_cfg
        )
        self.pointwise_conv = ConvModule(in_channels, out_channels, 1, **layer_cfg)

    def forward_layers(self, x: Tensor, routing: Tensor | None) -> tuple[Tensor, Tensor | None]:
        x, routing = run_routed(self.depthwise_conv, x, routing)
        return run_routed(self.pointwise_conv, x, routing)


@MODELS.register_module()
class CondConvMobileNetV1(StagedBackbone):
    """MobileNetV1 as a detector's backbone; with `cond_cfg`, its CondConv version.

    Args:
        widen_factor: multiplies every channel count.
        out_indices: stages (0 to 4, at strides 2, 4, 8, 16, 32) whose output is returned. Stages 3
            and 4 end in blocks 11 and 13, which SSD taps. Stages after the last one are not built.
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
        init_cfg: dict | list[dict] | None = KAIMING,
        cond_cfg: dict | None = None,
    ) -> None:
        check_stages(out_indices, frozen_stages, len(STAGES))
        check_widen_factor(widen_factor, round(32 * widen_factor))
        super().__init__([i + 1 for i in out_indices], frozen_stages, norm_eval, init_cfg)
        layer_cfg = dict(conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg)
        in_channels = round(32 * widen_factor)
        self.add_layer('conv1', ConvModule(3, in_channels, 3, 2, 1, **layer_cfg))
        blocks: list[SeparableBlock] = []
        for index, (channels, stride, num_blocks) in enumerate(STAGES[: max(out_indices) + 1]):
            out_channels = round(channels * widen_factor)
            stage = []
            for block_stride in (stride, *[1] * (num_blocks - 1)):
                stage.append(
                    SeparableBlock(
                        in_channels, out_channels, block_stride, with_cp=with_cp, **layer_cfg
                    )
                )
                in_channels = out_channels
            self.add_layer(f'layer{index + 1}', RoutedSequential(*stage))
            blocks += stage
        self._freeze_stages()
        route_blocks(self, blocks, cond_cfg, default_start=PAPER_START)
