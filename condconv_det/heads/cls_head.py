"""mmpretrain's linear classifier, routed (CondConv, section 4.1)."""

from typing import Any

from mmengine.registry import MODELS
from mmpretrain.models.heads import LinearClsHead
from torch import Tensor, nn

from condconv_det.layers import CondLinear
from condconv_det.layers.cond_cfg import parse_head_cond_cfg

from .routed_head import RoutedHead


@MODELS.register_module()
class CondConvClsHead(RoutedHead, LinearClsHead):
    """mmpretrain's `LinearClsHead`, with its arguments and names; with `cond_cfg`, routed.

    Args:
        num_classes, in_channels: of the linear layer.
        dropout: probability with which a feature is dropped in training.
        cond_cfg: `dict(num_experts, routing=dict())`; None is the static head.
        kwargs: LinearClsHead's other arguments.

    Raises:
        ValueError: `cond_cfg` has an unknown key or a value out of range.
    """

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        dropout: float = 0.0,
        cond_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(num_classes, in_channels, **kwargs)
        self.dropout = nn.Dropout(dropout)
        cond = parse_head_cond_cfg(cond_cfg)
        if cond is not None:
            self.fc = CondLinear(in_channels, num_classes, **cond)

    def pre_logits(self, feats: tuple[Tensor, ...]) -> Tensor:
        """The last stage's features, [B, C], as the linear layer sees them."""
        return self.dropout(super().pre_logits(feats))
