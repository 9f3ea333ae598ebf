"""A small SSD head."""

from mmengine.config import ConfigDict
from mmengine.registry import MODELS

CHANNELS = (16, 32)
TRAIN_CFG = ConfigDict(
    assigner=dict(
        type='mmdet.MaxIoUAssigner',
        pos_iou_thr=0.5,
        neg_iou_thr=0.5,
        min_pos_iou=0.0,
        gt_max_assign_all=False,
    ),
    sampler=dict(type='mmdet.PseudoSampler'),
    smoothl1_beta=1.0,
    allowed_border=-1,
    pos_weight=-1,
    neg_pos_ratio=3,
    debug=False,
)
TEST_CFG = ConfigDict(
    nms_pre=100,
    nms=dict(type='nms', iou_threshold=0.5),
    min_bbox_size=0,
    score_thr=0.0,
    max_per_img=10,
)
FOCAL = dict(type='mmdet.FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25)
SOFTMAX = dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False)


def build(type='CondConvSSDHead', **kwargs):
    cfg = dict(
        type=type,
        num_classes=3,
        in_channels=CHANNELS,
        anchor_generator=dict(
            type='TFSSDAnchorGenerator', strides=[16, 32], input_size=64, scale_range=(0.3, 0.6)
        ),
        bbox_coder=dict(
            type='mmdet.DeltaXYWHBBoxCoder',
            target_means=[0.0] * 4,
            target_stds=[0.1, 0.1, 0.2, 0.2],
        ),
        train_cfg=TRAIN_CFG,
        test_cfg=TEST_CFG,
    )
    head = MODELS.build({**cfg, **kwargs})
    head.init_weights()
    return head
