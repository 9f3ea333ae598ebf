_base_ = './mobilenet-v1-0.5_1xb32-10e_bccd-crops.py'

model = dict(
    backbone=dict(cond_cfg=dict(num_experts=8)),
    head=dict(cond_cfg=dict(num_experts=8)),
)
