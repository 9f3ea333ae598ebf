"""The block of MobileNetV2, MobileNetV3, MnasNet and EfficientNet."""

from mmdet.models.layers import InvertedResidual
from torch import Tensor

from condconv_det.layers import RoutedBlock, run_routed

from .staged import fast_same


class RoutedInvertedResidual(RoutedBlock, InvertedResidual):
    """mmdet's `InvertedResidual`, with its arguments and parameter names, that can be routed.

    Squeeze-and-excitation stays plain, as in the authors' code.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        mid_channels: int,
        kernel_size: int = 3,
        stride: int = 1,
        se_cfg: dict | None = None,
        with_expand_conv: bool = True,
        conv_cfg: dict | None = None,
        **kwargs,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            mid_channels,
            kernel_size,
            stride,
            se_cfg,
            with_expand_conv,
            fast_same(conv_cfg, stride),
            **kwargs,
        )

    def forward_layers(self, x: Tensor, routing: Tensor | None) -> tuple[Tensor, Tensor | None]:
        out = x
        if self.with_expand_conv:
            out, routing = run_routed(self.expand_conv, out, routing)
        out, routing = run_routed(self.depthwise_conv, out, routing)
        if self.with_se:
            out = self.se(out)
        out, routing = run_routed(self.linear_conv, out, routing)
        return x + self.drop_path(out) if self.with_res_shortcut else out, routing
