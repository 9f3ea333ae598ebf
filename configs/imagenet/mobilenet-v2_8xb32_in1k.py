# mmpretrain's recipe for MobileNetV2.
_base_ = './mobilenet-v1_8xb32_in1k.py'

model = dict(
    backbone=dict(type='CondConvMobileNetV2', out_indices=(7,)), head=dict(in_channels=1280)
)
