"""MobileNetV2, static or CondConv.

Papers: MobileNetV2 (https://arxiv.org/abs/1801.04381, table 2) and CondConv
(https://arxiv.org/abs/1904.04971, section 4.1).
"""

from collections.abc import Sequence

from mmdet.models.backbones import MobileNetV2
from mmengine.registry import MODELS
from torch import Tensor

from condconv_det.layers import RoutedSequential, route_blocks

from .inverted_residual import RoutedInvertedResidual
from .staged import check_stages, check_widen_factor, drop_stages_after, run_stages

# Blocks 6 to 17, the last 1x1 convolution and the classifier: the placement whose multiply-adds and
# parameters are those published for it, 300.8M -> 328.2M and routing, 27.5M parameters.
PAPER_START = 6


@MODELS.register_module()
class CondConvMobileNetV2(MobileNetV2):
    """mmdet's `MobileNetV2`, with its arguments and parameter names; with `cond_cfg`, CondConv.

    Args:
        widen_factor: multiplies every channel count.
        out_indices: stages 0 to 6, or 7, the last 1x1 convolution, whose output is returned. What
            comes after the last of them is not kept, so that no parameter goes unused.
        frozen_stages: the stem (0) and the first stages, up to 7, that do not train; -1 for none.
        cond_cfg: `dict(num_experts, start=6, share='layer' | 'block' | 'network', routing=dict())`,
            see `CondCfg`; blocks `start` to 17 and the last 1x1 convolution, block 18, are routed.
            None is the static network.
        kwargs: mmdet's other arguments.

    Shapes:
        [B, 3, H, W] -> a tuple of [B, C, H/stride, W/stride].

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        widen_factor: float = 1.0,
        out_indices: Sequence[int] = (1, 2, 4, 7),
        frozen_stages: int = -1,
        *,
        cond_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        last = len(self.arch_settings)
        # mmdet freezes no last 1x1 convolution
        check_stages(out_indices, frozen_stages, last + 1, most_frozen=last)
        check_widen_factor(widen_factor, least_channels=8)
        super().__init__(widen_factor, out_indices, frozen_stages, **kwargs)
        drop_stages_after(self, self.layers, max(out_indices))
        self._freeze_stages()
        stages = [getattr(self, name) for name in self.layers]
        blocks = [block for stage in stages[:7] for block in stage] + stages[7:]
        route_blocks(self, blocks, cond_cfg, default_start=PAPER_START)

    def make_layer(
        self, out_channels: int, num_blocks: int, stride: int, expand_ratio: int
    ) -> RoutedSequential:
        """One stage, as in mmdet, of blocks that can be routed."""
        blocks = []
        for block_stride in (stride, *[1] * (num_blocks - 1)):
            blocks.append(
                RoutedInvertedResidual(
                    self.in_channels,
                    out_channels,
                    self.in_channels * expand_ratio,
                    stride=block_stride,
                    with_expand_conv=expand_ratio != 1,
                    conv_cfg=self.conv_cfg,
                    norm_cfg=self.norm_cfg,
                    act_cfg=self.act_cfg,
                    with_cp=self.with_cp,
                )
            )
            self.in_channels = out_channels
        return RoutedSequential(*blocks)

    def train(self, mode: bool = True) -> 'CondConvMobileNetV2':
        super().train(mode)
        return self  # mmdet's returns None, and so would `eval()`

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.conv1(x)
        return run_stages([getattr(self, name) for name in self.layers], self.out_indices, x)
