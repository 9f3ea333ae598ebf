# SSDLite: the SSD beside it with depthwise layers in neck and head, on MobileNetV2.
_base_ = './ssd192_mobilenet-v1-0.5_1xb8-25e_domains.py'

channels = (32, 96, 1280, 256, 128)
model = dict(
    backbone=dict(
        _delete_=True,
        type='CondConvMobileNetV2',
        out_indices=(2, 4, 7),
        norm_cfg=dict(type='BN', eps=0.001, momentum=0.1),
    ),
    neck=dict(in_channels=channels[:3], out_channels=channels, use_depthwise=True),
    bbox_head=dict(
        in_channels=channels,
        predictor_kernel_size=1,
        use_depthwise=True,
        norm_cfg=dict(type='BN', eps=0.001, momentum=0.1),
        act_cfg=dict(type='ReLU6'),
    ),
)
