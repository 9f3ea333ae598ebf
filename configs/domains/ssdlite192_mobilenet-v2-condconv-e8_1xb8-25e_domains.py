_base_ = './ssdlite192_mobilenet-v2_1xb8-25e_domains.py'

model = dict(
    backbone=dict(cond_cfg=dict(num_experts=8)),
    neck=dict(conv_cfg=dict(type='CondConv2d', num_experts=8)),
)
