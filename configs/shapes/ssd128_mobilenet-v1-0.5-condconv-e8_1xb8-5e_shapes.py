_base_ = './ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'

model = dict(
    backbone=dict(cond_cfg=dict(num_experts=8)),
    neck=dict(conv_cfg=dict(type='CondConv2d', num_experts=8)),
)
