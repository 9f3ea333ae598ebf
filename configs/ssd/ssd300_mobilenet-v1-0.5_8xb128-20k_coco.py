_base_ = './ssd300_mobilenet-v1_8xb128-20k_coco.py'

channels = (256, 512, 256, 128, 128, 64)
model = dict(
    backbone=dict(widen_factor=0.5),
    neck=dict(in_channels=channels[:2], out_channels=channels),
    bbox_head=dict(in_channels=channels),
)
