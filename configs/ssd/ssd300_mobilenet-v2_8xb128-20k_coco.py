# The paper's detector and recipe on another backbone.
_base_ = './ssd300_mobilenet-v1_8xb128-20k_coco.py'

channels = (96, 1280, 512, 256, 256, 128)
model = dict(
    backbone=dict(
        _delete_=True,
        type='CondConvMobileNetV2',
        out_indices=(4, 7),
        conv_cfg=dict(type='Conv2dAdaptivePadding'),
        norm_cfg=dict(type='BN', eps=0.001, momentum=0.03),
    ),
    neck=dict(in_channels=channels[:2], out_channels=channels),
    bbox_head=dict(in_channels=channels),
)
