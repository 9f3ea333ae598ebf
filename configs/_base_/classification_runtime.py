_base_ = 'mmpretrain::_base_/default_runtime.py'

custom_imports = dict(imports=['condconv_det'], allow_failed_imports=False)
custom_hooks = [
    dict(type='ClassCheckHook'),
    dict(type='SkipBrokenImagesHook'),
    dict(type='EpochSeedHook'),
    dict(type='FiniteLossHook'),
]
