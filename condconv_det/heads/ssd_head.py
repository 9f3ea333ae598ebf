"""SSD's head with the parts that mmdet's lacks."""

from typing import Any

from mmcv.cnn import build_conv_layer
from mmdet.models.dense_heads import SSDHead
from mmdet.models.losses import CrossEntropyLoss, smooth_l1_loss
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.model import bias_init_with_prob
from mmengine.registry import MODELS
from torch import Tensor

from condconv_det.layers.cond_cfg import parse_head_cond_cfg

HARD_NEGATIVE_SOFTMAX = dict(type='CrossEntropyLoss', use_sigmoid=False)


@MODELS.register_module()
class CondConvSSDHead(SSDHead):
    """mmdet's `SSDHead`, which can be validated, routed and trained with focal loss.

    mmdet 3.2 and 3.3 build SSDHead without a `loss_cls`, which validation then asks for
    (mmdetection issues 11063, 11305).

    Args:
        loss_cls: softmax `CrossEntropyLoss` trains with hard negatives as SSDHead does; any loss
            with `use_sigmoid=True`, such as `FocalLoss`, sees all anchors, has no background class
            and starts at a probability of `prior_prob`.
        predictor_kernel_size: 1 or 3; None is SSDHead's own choice (3, with depthwise layers 1).
        prior_prob: probability of every class before training, with a sigmoid loss.
        cond_cfg: `dict(num_experts, routing=dict())` routes the predictors; None leaves them plain.
        kwargs: SSDHead's arguments.

    Raises:
        ValueError: an argument is out of range, or `cond_cfg` has an unknown key.
    """

    def __init__(
        self,
        *args: Any,
        loss_cls: dict = HARD_NEGATIVE_SOFTMAX,
        predictor_kernel_size: int | None = None,
        prior_prob: float = 0.01,
        cond_cfg: dict | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if predictor_kernel_size not in (None, 1, 3):
            raise ValueError(f'predictor_kernel_size must be 1 or 3, got {predictor_kernel_size}')
        self.loss_cls = MMDET_MODELS.build(loss_cls)
        self.use_sigmoid_cls = getattr(self.loss_cls, 'use_sigmoid', False)
        if not self.use_sigmoid_cls:
            self._check_softmax(loss_cls)
        self.cls_out_channels = self.num_classes + (not self.use_sigmoid_cls)
        self.prior_prob = prior_prob
        self._build_predictors(predictor_kernel_size, parse_head_cond_cfg(cond_cfg))

    def _check_softmax(self, loss_cls: dict) -> None:
        if not isinstance(self.loss_cls, CrossEntropyLoss):
            raise ValueError(
                f'loss_cls must be CrossEntropyLoss or have use_sigmoid=True, got {loss_cls}'
            )
        # SSDHead, which computes it, reads none of these
        if self.loss_cls.loss_weight != 1 or self.loss_cls.class_weight is not None:
            raise ValueError(
                f'loss_cls: softmax with hard negatives takes no loss_weight and no class_weight, '
                f'got {loss_cls}'
            )

    def _build_predictors(self, kernel_size: int | None, cond: dict | None) -> None:
        """Puts a predictor as configured in the place of each one that SSDHead has built."""
        conv_cfg = None if cond is None else dict(type='CondConv2d', **cond)
        for branches, outputs in ((self.cls_convs, self.cls_out_channels), (self.reg_convs, 4)):
            for branch, num_priors in zip(branches, self.num_base_priors):
                size = kernel_size or branch[-1].kernel_size[0]
                branch[-1] = build_conv_layer(
                    conv_cfg,
                    branch[-1].in_channels,
                    num_priors * outputs,
                    size,
                    padding=size // 2,
                )

    def init_weights(self) -> None:
        super().init_weights()
        if self.use_sigmoid_cls:
            for branch in self.cls_convs:
                branch[-1].bias.data.fill_(bias_init_with_prob(self.prior_prob))

    def loss_by_feat_single(
        self,
        cls_score: Tensor,
        bbox_pred: Tensor,
        anchor: Tensor,
        labels: Tensor,
        label_weights: Tensor,
        bbox_targets: Tensor,
        bbox_weights: Tensor,
        avg_factor: float,
    ) -> tuple[Tensor, Tensor]:
        """Losses of one image over its A anchors; arguments as in SSDHead."""
        if not self.use_sigmoid_cls:
            return super().loss_by_feat_single(
                cls_score,
                bbox_pred,
                anchor,
                labels,
                label_weights,
                bbox_targets,
                bbox_weights,
                avg_factor,
            )
        loss_cls = self.loss_cls(cls_score, labels, label_weights, avg_factor=avg_factor)
        if self.reg_decoded_bbox:
            bbox_pred = self.bbox_coder.decode(anchor, bbox_pred)
        loss_bbox = smooth_l1_loss(
            bbox_pred,
            bbox_targets,
            bbox_weights,
            beta=self.train_cfg['smoothl1_beta'],
            avg_factor=avg_factor,
        )
        return loss_cls, loss_bbox
