"""mmcv's ConvModule for convolutions that are handed their routing weights."""

from mmcv.cnn import ConvModule
from torch import Tensor


class RoutedConvModule(ConvModule):
    """`ConvModule` (convolution, norm, activation) that passes routing weights to its convolution.

    Shapes:
        x [B, Cin, H, W], routing [B, E] or None -> [B, Cout, H', W'].
    """

    def forward(self, x: Tensor, routing: Tensor | None = None) -> Tensor:
        x = self.conv(x) if routing is None else self.conv(x, routing)
        if self.with_norm:
            x = self.norm(x)
        return self.activate(x) if self.with_activation else x
