"""MobileNetV3, static or CondConv.

Paper: MobileNetV3 (https://arxiv.org/abs/1905.02244, tables 1 and 2). The static networks equal
torchvision's `mobilenet_v3_small` and `mobilenet_v3_large`; stages are named and numbered as in
mmpretrain's MobileNetV3.
"""

from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmdet.models.utils import make_divisible
from mmengine.registry import MODELS

from condconv_det.layers import route_blocks

from .inverted_residual import RoutedInvertedResidual
from .staged import KAIMING, StagedBackbone, check_arch, check_stages

# Blocks: (kernel, expanded channels, channels, squeeze-and-excitation, activation, stride).
ARCHS = {
    'small': (
        (3, 16, 16, True, 'ReLU', 2),
        (3, 72, 24, False, 'ReLU', 2),
        (3, 88, 24, False, 'ReLU', 1),
        (5, 96, 40, True, 'HSwish', 2),
        (5, 240, 40, True, 'HSwish', 1),
        (5, 240, 40, True, 'HSwish', 1),
        (5, 120, 48, True, 'HSwish', 1),
        (5, 144, 48, True, 'HSwish', 1),
        (5, 288, 96, True, 'HSwish', 2),
        (5, 576, 96, True, 'HSwish', 1),
        (5, 576, 96, True, 'HSwish', 1),
    ),
    'large': (
        (3, 16, 16, False, 'ReLU', 1),
        (3, 64, 24, False, 'ReLU', 2),
        (3, 72, 24, False, 'ReLU', 1),
        (5, 72, 40, True, 'ReLU', 2),
        (5, 120, 40, True, 'ReLU', 1),
        (5, 120, 40, True, 'ReLU', 1),
        (3, 240, 80, False, 'HSwish', 2),
        (3, 200, 80, False, 'HSwish', 1),
        (3, 184, 80, False, 'HSwish', 1),
        (3, 184, 80, False, 'HSwish', 1),
        (3, 480, 112, True, 'HSwish', 1),
        (3, 672, 112, True, 'HSwish', 1),
        (5, 672, 160, True, 'HSwish', 2),
        (5, 960, 160, True, 'HSwish', 1),
        (5, 960, 160, True, 'HSwish', 1),
    ),
}
# The CondConv paper has no MobileNetV3. By analogy with its EfficientNet, whose routing starts at
# the second width of stride 16: here 48 channels in the small network, 112 in the large.
ANALOGOUS_START = {'small': 7, 'large': 11}


@MODELS.register_module()
class CondConvMobileNetV3(StagedBackbone):
    """MobileNetV3 as a detector's backbone; with `cond_cfg`, its CondConv version.

    Args:
        arch: 'small' or 'large'.
        out_indices: layers whose output is returned, by mmpretrain's numbers: 0 is the stem, then
            each block is one (11 or 15), and last comes a 1x1 convolution (12 or 16). None is that
            last one. What comes after the last of them is not built.
        frozen_stages: the last layer that does not train; -1 for none.
        conv_cfg, norm_cfg, norm_eval, with_cp, init_cfg: as in mmpretrain's MobileNetV3.
        cond_cfg: `dict(num_experts, start, share='layer' | 'block' | 'network', routing=dict())`,
            see `CondCfg`; by default routing starts at block 7 of the small network, 11 of the
            large. None is the static network.

    Shapes:
        [B, 3, H, W] -> a tuple of [B, C, H/stride, W/stride].

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(
        self,
        arch: str = 'small',
        out_indices: Sequence[int] | None = None,
        frozen_stages: int = -1,
        conv_cfg: dict | None = None,
        norm_cfg: dict = dict(type='BN', eps=0.001, momentum=0.01),
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg: dict | list[dict] | None = KAIMING,
        cond_cfg: dict | None = None,
    ) -> None:
        check_arch('arch', arch, ARCHS)
        settings = ARCHS[arch]
        last = len(settings) + 1
        if out_indices is None:
            out_indices = (last,)
        check_stages(out_indices, frozen_stages, last + 1, most_frozen=last)
        super().__init__(out_indices, frozen_stages, norm_eval, init_cfg)
        layer_cfg = dict(conv_cfg=conv_cfg, norm_cfg=norm_cfg)
        hard_swish = dict(type='HSwish')
        in_channels = 16
        self.add_layer(
            'layer0', ConvModule(3, in_channels, 3, 2, 1, act_cfg=hard_swish, **layer_cfg)
        )
        blocks: list[RoutedInvertedResidual] = []
        for index, (kernel_size, mid_channels, out_channels, with_se, act, stride) in enumerate(
            settings[: max(out_indices)], start=1
        ):
            block = RoutedInvertedResidual(
                in_channels,
                out_channels,
                mid_channels,
                kernel_size=kernel_size,
                stride=stride,
                se_cfg=_squeeze(mid_channels) if with_se else None,
                with_expand_conv=mid_channels != in_channels,
                act_cfg=dict(type=act),
                with_cp=with_cp,
                **layer_cfg,
            )
            self.add_layer(f'layer{index}', block)
            blocks.append(block)
            in_channels = out_channels
        if max(out_indices) == last:
            self.add_layer(
                f'layer{last}',
                ConvModule(in_channels, settings[-1][1], 1, act_cfg=hard_swish, **layer_cfg),
            )
        self._freeze_stages()
        route_blocks(self, blocks, cond_cfg, default_start=ANALOGOUS_START[arch])


def _squeeze(channels: int) -> dict:
    """`SELayer`'s arguments: a quarter of the channels, rounded to a multiple of 8."""
    gate = dict(type='HSigmoid', bias=3.0, divisor=6.0)
    return dict(
        channels=channels,
        ratio=channels / make_divisible(channels // 4, 8),
        act_cfg=(dict(type='ReLU'), gate),
    )
