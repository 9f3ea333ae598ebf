_base_ = './ssdlite_mobilenet-v2-scratch_8xb24-600e_coco.py'

channels = (512, 1024, 512, 256, 256, 128)
model = dict(
    # with mmdet's symmetric padding
    backbone=dict(type='CondConvMobileNetV1', out_indices=(3, 4), conv_cfg=None),
    neck=dict(in_channels=channels[:2], out_channels=channels),
    bbox_head=dict(in_channels=channels),
)
