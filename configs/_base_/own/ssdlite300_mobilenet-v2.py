# SSDLite: the SSD300 beside it with depthwise layers in neck and head, on MobileNetV2.
_base_ = './ssd300_mobilenet-v1-0.5.py'

model = dict(
    backbone=dict(_delete_=True, type='CondConvMobileNetV2', norm_cfg=dict(type='BN', eps=0.001)),
    neck=dict(use_depthwise=True),
    bbox_head=dict(
        predictor_kernel_size=1,
        use_depthwise=True,
        norm_cfg=dict(type='BN', eps=0.001),
        act_cfg=dict(type='ReLU6'),
    ),
)
