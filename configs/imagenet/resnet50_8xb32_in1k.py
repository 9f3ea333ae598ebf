# mmpretrain's recipe for ResNet-50.
_base_ = 'mmpretrain::resnet/resnet50_8xb32_in1k.py'

custom_imports = dict(imports=['condconv_det'], allow_failed_imports=False)
model = dict(
    # mmdet's ResNet freezes the norms' statistics unless told otherwise
    backbone=dict(type='CondConvResNet', norm_eval=False),
    head=dict(type='CondConvClsHead'),
)
