# mmdet's RTMDet-tiny and its recipe, whose hooks those of this package join.
_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'

custom_imports = dict(imports=['condconv_det'], allow_failed_imports=False)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='ClassCheckHook'),
    dict(type='DatasetCheckHook'),
    dict(type='SkipBrokenImagesHook'),
    dict(type='EpochSeedHook'),
    dict(type='FiniteLossHook'),
]
