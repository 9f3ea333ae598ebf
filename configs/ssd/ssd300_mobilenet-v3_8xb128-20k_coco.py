# The paper's detector and recipe on another backbone, MobileNetV3-Large.
_base_ = './ssd300_mobilenet-v1_8xb128-20k_coco.py'

channels = (112, 960, 512, 256, 256, 128)
model = dict(
    backbone=dict(
        _delete_=True,
        type='CondConvMobileNetV3',
        arch='large',
        # the last block at stride 16, the last 1x1 convolution at stride 32
        out_indices=(12, 16),
        conv_cfg=dict(type='Conv2dAdaptivePadding'),
        norm_cfg=dict(type='BN', eps=0.001, momentum=0.03),
    ),
    neck=dict(in_channels=channels[:2], out_channels=channels),
    bbox_head=dict(in_channels=channels),
)
