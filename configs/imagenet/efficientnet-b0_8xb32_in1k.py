# The authors' normalisation, dropout and stochastic depth; the rest is mmpretrain's recipe for B0.
_base_ = ['mmpretrain::efficientnet/efficientnet-b0_8xb32_in1k.py', '../_base_/condconv_cls.py']

data_preprocessor = dict(mean=[127.0, 127.0, 127.0], std=[128.0, 128.0, 128.0])
model = dict(
    # the last of 16 blocks survives with a probability of 0.8
    backbone=dict(type='CondConvEfficientNet', arch='b0', drop_path_rate=0.2),
    head=dict(type='CondConvClsHead', dropout=0.25),
)
