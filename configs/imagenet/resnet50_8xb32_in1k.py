# mmpretrain's recipe for ResNet-50.
_base_ = ['mmpretrain::resnet/resnet50_8xb32_in1k.py', '../_base_/condconv_cls.py']

model = dict(
    # mmdet's ResNet freezes the norms' statistics unless told otherwise
    backbone=dict(type='CondConvResNet', norm_eval=False),
    head=dict(type='CondConvClsHead'),
)
