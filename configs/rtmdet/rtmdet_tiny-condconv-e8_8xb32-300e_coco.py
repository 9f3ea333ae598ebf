_base_ = './rtmdet_tiny_8xb32-300e_coco.py'

model = dict(
    neck=dict(conv_cfg=dict(type='CondConv2d', num_experts=8)),
)
