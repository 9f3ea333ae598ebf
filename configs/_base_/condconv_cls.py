# What a classifier's config needs in order to use this package.
custom_imports = dict(imports=['condconv_det'], allow_failed_imports=False)
custom_hooks = [
    dict(type='ClassCheckHook'),
    dict(type='SkipBrokenImagesHook'),
    dict(type='EpochSeedHook'),
    dict(type='FiniteLossHook'),
]
