"""SSD's head with the parts that mmdet's lacks."""

from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn import build_conv_layer
from mmdet.models.dense_heads import SSDHead
from mmdet.models.losses import GHMC, CrossEntropyLoss, FocalLoss, smooth_l1_loss
from mmdet.registry import MODELS as MMDET_MODELS
from mmengine.model import bias_init_with_prob
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torch import Tensor
from torch.nn import functional as F

from condconv_det.layers.cond_cfg import parse_head_cond_cfg

from .routed_head import RoutedHead
from .ssd_targets import Targets, batch_targets, serves

HARD_NEGATIVE_SOFTMAX = dict(type='CrossEntropyLoss', use_sigmoid=False)


@MODELS.register_module()
class CondConvSSDHead(RoutedHead, SSDHead):
    """mmdet's `SSDHead`, which can be validated, routed and trained with focal loss.

    mmdet 3.2 and 3.3 build SSDHead without a `loss_cls`, which validation then asks for
    (mmdetection issues 11063, 11305).

    Args:
        loss_cls: softmax `CrossEntropyLoss` trains with hard negatives as SSDHead does; `GHMC`,
            `FocalLoss` and `CrossEntropyLoss` with `use_sigmoid=True` see all anchors, have no
            background class and start at a probability of `prior_prob`.
        predictor_kernel_size: 1 or 3; None is SSDHead's own choice (3, with depthwise layers 1).
        prior_prob: probability of every class before training, with a sigmoid loss; in (0, 1).
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
        if not 0 < prior_prob < 1:
            raise ValueError(f'prior_prob must be between 0 and 1, got {prior_prob}')
        self.loss_cls = MMDET_MODELS.build(loss_cls)
        self._check_loss(loss_cls)
        self.use_sigmoid_cls = self.loss_cls.use_sigmoid
        self.cls_out_channels = self.num_classes + (not self.use_sigmoid_cls)
        self.prior_prob = prior_prob
        self._build_predictors(predictor_kernel_size, parse_head_cond_cfg(cond_cfg))

    def _check_loss(self, loss_cls: dict) -> None:
        if not isinstance(self.loss_cls, CrossEntropyLoss | FocalLoss | GHMC):
            raise ValueError(
                f'loss_cls must be CrossEntropyLoss, FocalLoss or GHMC, got {loss_cls}'
            )
        taken = dict(reduction='mean', activated=False)
        if not self.loss_cls.use_sigmoid:  # SSDHead, which computes it, reads none of these
            taken |= dict(use_mask=False, loss_weight=1, class_weight=None, ignore_index=None)
        for name, value in taken.items():
            if getattr(self.loss_cls, name, value) != value:
                raise ValueError(f'loss_cls.{name} must be {value!r} here, got {loss_cls}')

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

    def finish_start(self) -> None:
        if self.use_sigmoid_cls:
            for branch in self.cls_convs:
                branch[-1].bias.data.fill_(bias_init_with_prob(self.prior_prob))

    def loss_by_feat(
        self,
        cls_scores: list[Tensor],
        bbox_preds: list[Tensor],
        batch_gt_instances: Sequence[InstanceData],
        batch_img_metas: Sequence[dict],
        batch_gt_instances_ignore: Sequence[InstanceData] | None = None,
    ) -> dict[str, list[Tensor]]:
        """Losses of a batch, those of SSDHead, without its loop over images where that can be.

        Args:
            cls_scores, bbox_preds: of each level, as `forward` returns them.
            batch_gt_instances, batch_img_metas, batch_gt_instances_ignore: of each image.
        """
        batched = serves(self.assigner, self.sampler, self.bbox_coder)
        if not batched or self.reg_decoded_bbox or self.train_cfg['allowed_border'] >= 0:
            return super().loss_by_feat(
                cls_scores,
                bbox_preds,
                batch_gt_instances,
                batch_img_metas,
                batch_gt_instances_ignore,
            )
        anchors, valid = self._anchors(cls_scores, batch_img_metas)
        targets = batch_targets(
            anchors,
            valid,
            batch_gt_instances,
            self.num_classes,
            self.assigner,
            self.bbox_coder,
            self.train_cfg['pos_weight'],
        )
        loss_bbox = smooth_l1_loss(
            _all_levels(bbox_preds, 4),
            targets.boxes,
            targets.has_object[..., None],
            beta=self.train_cfg['smoothl1_beta'],
            avg_factor=targets.avg_factor,
        )
        loss_cls = self._classification_loss(
            _all_levels(cls_scores, self.cls_out_channels), targets
        )
        return dict(loss_cls=[loss_cls], loss_bbox=[loss_bbox])

    def _anchors(self, cls_scores: list[Tensor], metas: Sequence[dict]) -> tuple[Tensor, Tensor]:
        """Anchors [A, 4] of all levels, and which [B, A] of them lie on each image."""
        sizes, device = [scores.shape[-2:] for scores in cls_scores], cls_scores[0].device
        shapes = list(dict.fromkeys(tuple(meta['pad_shape'][:2]) for meta in metas))
        anchors, valid = self.get_anchors(sizes, [dict(pad_shape=s) for s in shapes], device)
        valid = torch.stack([torch.cat(flags) for flags in valid])
        if not valid.any(1).all():
            raise ValueError(f'images padded to {shapes} have no anchor of {sizes} on them')
        if len(shapes) > 1:
            valid = valid[[shapes.index(tuple(meta['pad_shape'][:2])) for meta in metas]]
        return torch.cat(anchors[0]), valid.expand(len(metas), -1)

    def _classification_loss(self, scores: Tensor, targets: Targets) -> Tensor:
        """Of scores [B, A, C]: the sigmoid loss of all, or softmax with hard negatives."""
        if self.use_sigmoid_cls:
            return self.loss_cls(
                scores.flatten(0, 1),
                targets.labels.flatten(),
                targets.label_weights.flatten(),
                avg_factor=targets.avg_factor,
            )
        losses = F.cross_entropy(scores.mT, targets.labels, reduction='none')
        losses = losses * targets.label_weights
        hardest = losses.masked_fill(targets.has_object, 0).sort(descending=True)[0]
        wanted = self.train_cfg['neg_pos_ratio'] * targets.has_object.sum(1, keepdim=True)
        taken = torch.arange(losses.shape[1], device=losses.device) < wanted
        negative = hardest.masked_fill(~taken, 0).sum()
        return (losses.masked_fill(~targets.has_object, 0).sum() + negative) / targets.avg_factor

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


def _all_levels(maps: Sequence[Tensor], channels: int) -> Tensor:
    """[B, A, channels] of a prediction's maps [B, A' * channels, H, W]."""
    return torch.cat([m.permute(0, 2, 3, 1).reshape(len(m), -1, channels) for m in maps], 1)
