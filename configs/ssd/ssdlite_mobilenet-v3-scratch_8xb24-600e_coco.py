_base_ = './ssdlite_mobilenet-v2-scratch_8xb24-600e_coco.py'

channels = (112, 960, 512, 256, 256, 128)
model = dict(
    # the last block at stride 16, the last 1x1 convolution at stride 32
    backbone=dict(type='CondConvMobileNetV3', arch='large', out_indices=(12, 16)),
    neck=dict(in_channels=channels[:2], out_channels=channels),
    bbox_head=dict(in_channels=channels),
)
