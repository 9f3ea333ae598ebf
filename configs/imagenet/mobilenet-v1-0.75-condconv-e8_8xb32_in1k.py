_base_ = './mobilenet-v1-0.75_8xb32_in1k.py'

model = dict(
    backbone=dict(cond_cfg=dict(num_experts=8)),
    head=dict(cond_cfg=dict(num_experts=8)),
)
