# mmpretrain's recipe for MobileNetV2; it has none for MnasNet.
_base_ = './mobilenet-v1_8xb32_in1k.py'

model = dict(
    backbone=dict(type='CondConvMnasNet', arch='a1', out_indices=(7,)),
    head=dict(in_channels=1280),
)
