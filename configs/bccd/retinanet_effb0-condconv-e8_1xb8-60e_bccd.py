_base_ = './retinanet_effb0_1xb8-60e_bccd.py'

model = dict(backbone=dict(cond_cfg=dict(num_experts=8)))
