_base_ = './ssdlite_mobilenet-v2-scratch_8xb24-600e_coco.py'

model = dict(
    backbone=dict(cond_cfg=dict(num_experts=8)),
    neck=dict(conv_cfg=dict(type='CondConv2d', num_experts=8)),
)
