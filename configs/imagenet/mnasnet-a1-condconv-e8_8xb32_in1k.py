_base_ = './mnasnet-a1_8xb32_in1k.py'

model = dict(
    backbone=dict(cond_cfg=dict(num_experts=8)),
)
