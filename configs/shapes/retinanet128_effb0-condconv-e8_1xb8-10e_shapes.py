_base_ = './retinanet128_effb0_1xb8-10e_shapes.py'

model = dict(backbone=dict(cond_cfg=dict(num_experts=8)))
