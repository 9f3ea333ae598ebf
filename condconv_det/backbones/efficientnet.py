"""EfficientNet, static or CondConv.

Papers: EfficientNet (https://arxiv.org/abs/1905.11946, table 1) and CondConv
(https://arxiv.org/abs/1904.04971, section 4.2). Routed networks equal timm's
`tf_efficientnet_cc_b0_4e`, `_b0_8e` and `_b1_8e`, and so the authors' code.
"""

import math
from collections.abc import Sequence

import torch
from mmdet.models.backbones import EfficientNet
from mmdet.models.utils import make_divisible
from mmengine.registry import MODELS
from torch import Tensor

from condconv_det.layers import RoutedSequential, route_blocks

from .inverted_residual import RoutedInvertedResidual
from .staged import check_arch, check_stages, run_stages

# Blocks at depth 1 in the stages before the last three, which are routed in the authors' code:
# 8 of B0's 16 blocks.
STATIC_STAGES = (1, 2, 2, 3)
DEEP = 'b0-8e-depth'


@MODELS.register_module()
class CondConvEfficientNet(EfficientNet):
    """mmdet's `EfficientNet`, with its arguments and parameter names; with `cond_cfg`, CondConv.

    Arguments after the first are given by name.

    Args:
        arch: 'b0' to 'b7', or 'b0-8e-depth', the paper's deeper B0 with 8 experts: B1's layers, and
            routed without a `cond_cfg`.
        out_indices: stages whose output is returned: 0 is the stem, 1 to 5 end at strides 2, 4, 8,
            16 and 32, 6 is the last 1x1 convolution. What comes after the last is not built.
        frozen_stages: how many of the first stages do not train, the stem among them; as in mmdet,
            0 is none.
        drop_path_rate: of the last block; the blocks before it have less, in proportion.
        conv_cfg: of the static convolutions. The default pads as TensorFlow does.
        cond_cfg: `dict(num_experts, start, share='block' | 'layer' | 'network', routing=dict())`,
            see `CondCfg`; by default the blocks of the last three stages are routed, each with one
            router, as in the authors' code. None is the static network.
        act_cfg: of the activations; SiLU is mmdet's Swish in one operation.
        kwargs: mmdet's other arguments.

    Shapes:
        [B, 3, H, W] -> a tuple of [B, C, H/stride, W/stride].

    Raises:
        ValueError: an argument is out of range.
    """

    arch_settings = {
        **{f'b{scale}': EfficientNet.arch_settings[f'b{scale}'] for scale in range(8)},
        DEEP: (1.0, 1.1, 224),
    }

    def __init__(
        self,
        arch: str = 'b0',
        *,
        out_indices: Sequence[int] = (6,),
        frozen_stages: int = 0,
        cond_cfg: dict | None = None,
        act_cfg: dict = dict(type='SiLU'),
        **kwargs,
    ) -> None:
        check_arch('arch', arch, self.arch_settings)
        check_stages(out_indices, frozen_stages, len(self.layer_settings['b']), least_frozen=0)
        if arch == DEEP:
            cond_cfg = {'num_experts': 8, **(cond_cfg or {})}
            if cond_cfg['num_experts'] != 8:
                raise ValueError(
                    f'arch {DEEP!r} has 8 experts, got cond_cfg.num_experts='
                    f"{cond_cfg['num_experts']}; arch 'b1' has the same layers"
                )
        super().__init__(
            arch, out_indices=out_indices, frozen_stages=frozen_stages, act_cfg=act_cfg, **kwargs
        )
        self.frozen_stages = min(frozen_stages, len(self.layers))
        self._freeze_stages()
        blocks = [block for stage in self.layers[1:6] for block in stage]
        depth = self.arch_settings[arch][1]
        before = sum(math.ceil(depth * num_blocks) for num_blocks in STATIC_STAGES)
        route_blocks(self, blocks, cond_cfg, default_start=before + 1, default_share='block')

    def make_layer(self) -> None:
        """The stages between stem and last convolution, as in mmdet, that can be routed."""
        stages = self.layer_setting[1:-1]
        num_blocks = sum(map(len, stages))
        # to the last bit as mmdet has it; numbers, too, of a network on the meta device
        rates = torch.linspace(0, self.drop_path_rate, num_blocks, device='cpu')
        drop_path_rates = iter(rates.tolist())
        for stage in stages[: max(self.out_indices)]:
            blocks = []
            for kernel_size, out_channels, se_ratio, stride, expand_ratio, _ in stage:
                out_channels = make_divisible(out_channels, 8)
                mid_channels = self.in_channels * expand_ratio
                blocks.append(
                    RoutedInvertedResidual(
                        self.in_channels,
                        out_channels,
                        mid_channels,
                        kernel_size=kernel_size,
                        stride=stride,
                        se_cfg=dict(
                            channels=mid_channels,
                            ratio=expand_ratio * se_ratio,
                            act_cfg=(self.act_cfg, dict(type='Sigmoid')),
                        ),
                        with_expand_conv=expand_ratio != 1,
                        conv_cfg=self.conv_cfg,
                        norm_cfg=self.norm_cfg,
                        act_cfg=self.act_cfg,
                        drop_path_rate=next(drop_path_rates),
                        with_cp=self.with_cp,
                    )
                )
                self.in_channels = out_channels
            self.layers.append(RoutedSequential(*blocks))

    def train(self, mode: bool = True) -> 'CondConvEfficientNet':
        super().train(mode)
        return self  # mmdet's returns None, and so would `eval()`

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return run_stages(self.layers, self.out_indices, x)
