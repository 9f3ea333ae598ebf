"""MnasNet-A1 and B1, static or CondConv.

Papers: MnasNet (https://arxiv.org/abs/1807.11626, figure 7) and CondConv
(https://arxiv.org/abs/1904.04971, section 4.1). The static networks equal timm's `semnasnet_100`
(A1) and torchvision's `mnasnet1_0` (B1).
"""

from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmdet.models.utils import make_divisible
from mmengine.registry import MODELS

from condconv_det.layers import RoutedSequential, route_blocks

from .inverted_residual import RoutedInvertedResidual
from .staged import KAIMING, StagedBackbone, check_arch, check_stages, check_widen_factor

# Stages: (kernel, expand ratio, channels, blocks, stride, squeeze-and-excitation).
ARCHS = {
    'a1': (
        (3, 1, 16, 1, 1, False),
        (3, 6, 24, 2, 2, False),
        (5, 3, 40, 3, 2, True),
        (3, 6, 80, 4, 2, False),
        (3, 6, 112, 2, 1, True),
        (5, 6, 160, 3, 2, True),
        (3, 6, 320, 1, 1, False),
    ),
    'b1': (
        (3, 1, 16, 1, 1, False),
        (3, 3, 24, 3, 2, False),
        (5, 3, 40, 3, 2, False),
        (5, 6, 80, 3, 2, False),
        (3, 6, 96, 2, 1, False),
        (5, 6, 192, 4, 2, False),
        (3, 6, 320, 1, 1, False),
    ),
}
# The last three stages: the placement whose multiply-adds are those the paper states for A1,
# 311.6M -> 324.3M and routing.
PAPER_STAGES = 3


@MODELS.register_module()
class CondConvMnasNet(StagedBackbone):
    """MnasNet as a detector's backbone; with `cond_cfg`, its CondConv version.

    Stages are named and numbered as in mmdet's MobileNetV2.

    Args:
        arch: 'a1', with squeeze-and-excitation, or 'b1', without.
        widen_factor: multiplies every channel count, which stays a multiple of 8.
        out_indices: stages 0 to 6 (at strides 2, 4, 8, 16, 16, 32, 32), or 7, the last 1x1
            convolution, whose output is returned. What comes after the last of them is not built.
        frozen_stages: the stem (0) and the first stages that do not train; -1 for none.
        conv_cfg, norm_cfg, act_cfg, norm_eval, with_cp, init_cfg: as in mmdet's MobileNetV2.
        cond_cfg: `dict(num_experts, start, share='layer' | 'block' | 'network', routing=dict())`,
            see `CondCfg`; by default the blocks of the last three stages are routed. None is the
            static network.

    Shapes:
        [B, 3, H, W] -> a tuple of [B, C, H/stride, W/stride].

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        arch: str = 'a1',
        widen_factor: float = 1.0,
        out_indices: Sequence[int] = (1, 2, 4, 7),
        frozen_stages: int = -1,
        conv_cfg: dict | None = None,
        norm_cfg: dict = dict(type='BN'),
        act_cfg: dict = dict(type='ReLU'),
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = KAIMING,
        cond_cfg: dict | None = None,
    ) -> None:
        check_arch('arch', arch, ARCHS)
        stages = ARCHS[arch]
        check_stages(out_indices, frozen_stages, len(stages) + 1)
        check_widen_factor(widen_factor, least_channels=8)
        super().__init__([i + 1 for i in out_indices], frozen_stages, norm_eval, init_cfg)
        layer_cfg = dict(conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg)
        in_channels = make_divisible(32 * widen_factor, 8)
        self.add_layer('conv1', ConvModule(3, in_channels, 3, 2, 1, **layer_cfg))
        blocks: list[RoutedInvertedResidual] = []
        for index, (kernel_size, expand_ratio, channels, num_blocks, stride, with_se) in enumerate(
            stages[: max(out_indices) + 1]
        ):
            out_channels = make_divisible(channels * widen_factor, 8)
            stage = []
            for block_stride in (stride, *[1] * (num_blocks - 1)):
                mid_channels = in_channels * expand_ratio
                # squeezed to a quarter of the block's input
                se_cfg = dict(channels=mid_channels, ratio=4 * expand_ratio) if with_se else None
                stage.append(
                    RoutedInvertedResidual(
                        in_channels,
                        out_channels,
                        mid_channels,
                        kernel_size=kernel_size,
                        stride=block_stride,
                        se_cfg=se_cfg,
                        with_expand_conv=expand_ratio != 1,
                        with_cp=with_cp,
                        **layer_cfg,
                    )
                )
                in_channels = out_channels
            self.add_layer(f'layer{index + 1}', RoutedSequential(*stage))
            blocks += stage
        if max(out_indices) == len(stages):
            self.add_layer('conv2', ConvModule(in_channels, 1280, 1, **layer_cfg))
        self._freeze_stages()
        before = sum(num_blocks for _, _, _, num_blocks, _, _ in stages[:-PAPER_STAGES])
        route_blocks(self, blocks, cond_cfg, default_start=before + 1)
