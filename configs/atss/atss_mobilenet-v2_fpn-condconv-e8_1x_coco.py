_base_ = './atss_mobilenet-v2_fpn_1x_coco.py'

model = dict(
    backbone=dict(cond_cfg=dict(num_experts=8)),
)
