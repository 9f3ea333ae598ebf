_base_ = ['mmpretrain::_base_/default_runtime.py', './condconv_cls.py']
