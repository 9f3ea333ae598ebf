# mmdet's RetinaNet on EfficientNet-B3 and its recipe, with B0.
_base_ = [
    'mmdet::efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco.py',
    '../_base_/condconv_det.py',
]

checkpoint = 'https://download.openmmlab.com/mmclassification/v0/efficientnet/efficientnet-b0_3rdparty_8xb32-aa_in1k_20220119-8d939117.pth'  # noqa: E501
model = dict(
    backbone=dict(
        type='CondConvEfficientNet',
        arch='b0',
        init_cfg=dict(checkpoint=checkpoint),
    ),
    neck=dict(in_channels=[40, 112, 320]),
    bbox_head=dict(type='CondConvRetinaSepBNHead'),
)
