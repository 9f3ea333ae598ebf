_base_ = './ssd192_mobilenet-v1-0.25_1xb8-25e_domains.py'

channels = (128, 256, 512, 256, 128)
model = dict(
    backbone=dict(widen_factor=0.5),
    neck=dict(in_channels=channels[:3], out_channels=channels),
    bbox_head=dict(in_channels=channels),
)
