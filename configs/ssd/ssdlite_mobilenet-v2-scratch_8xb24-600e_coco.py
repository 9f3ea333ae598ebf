# mmdet's SSDLite and its recipe: 5 repeats * 120 epochs = 600 epochs from scratch, at 320.
_base_ = 'mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py'

custom_imports = dict(imports=['condconv_det'], allow_failed_imports=False)
custom_hooks = [
    dict(type='ClassCheckHook'),
    dict(type='DatasetCheckHook'),
    dict(type='SkipBrokenImagesHook'),
    dict(type='EpochSeedHook'),
    dict(type='FiniteLossHook'),
]
model = dict(
    backbone=dict(type='CondConvMobileNetV2'),
    # mmdet's SSDHead cannot be validated in 3.2 and 3.3
    bbox_head=dict(type='CondConvSSDHead'),
)
