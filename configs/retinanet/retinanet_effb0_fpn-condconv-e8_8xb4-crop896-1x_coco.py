_base_ = './retinanet_effb0_fpn_8xb4-crop896-1x_coco.py'

model = dict(
    backbone=dict(cond_cfg=dict(num_experts=8)),
)
