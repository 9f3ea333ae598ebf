# Experts in every layer, the head's predictors too, that start as one kernel: docs/when.md.
_base_ = './ssd192_mobilenet-v1-0.25-condconv-e8_1xb8-25e_domains.py'

model = dict(
    backbone=dict(cond_cfg=dict(start=1, init='one-kernel')),
    neck=dict(conv_cfg=dict(init='one-kernel')),
    bbox_head=dict(cond_cfg=dict(num_experts=8, init='one-kernel')),
)
