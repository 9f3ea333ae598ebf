_base_ = './ssd300_mobilenet-v3_8xb128-20k_coco.py'

model = dict(
    backbone=dict(cond_cfg=dict(num_experts=8)),
    neck=dict(conv_cfg=dict(type='CondConv2d', num_experts=8)),
)
