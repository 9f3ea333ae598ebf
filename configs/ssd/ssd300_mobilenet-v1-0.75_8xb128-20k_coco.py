_base_ = './ssd300_mobilenet-v1_8xb128-20k_coco.py'

channels = (384, 768, 384, 192, 192, 96)
model = dict(
    backbone=dict(widen_factor=0.75),
    neck=dict(in_channels=channels[:2], out_channels=channels),
    bbox_head=dict(in_channels=channels),
)
