# From scratch on two cores.
_base_ = [
    '../_base_/models/retinanet_effb0_small.py',
    '../_base_/datasets/bccd_ssd300.py',
    '../_base_/schedules/adamw_60e.py',
    '../_base_/default_runtime.py',
]

model = dict(
    # a fourth level for white cells, some 100 pixels wide at 300; anchors from 16 pixels on for
    # platelets, some 15
    neck=dict(num_outs=4),
    bbox_head=dict(
        num_classes=3,
        anchor_generator=dict(octave_base_scale=2, strides=[8, 16, 32, 64]),
    ),
)

# 60 epochs * 26 steps of 8 images = 1,560 steps
default_hooks = dict(
    logger=dict(interval=26),
    checkpoint=dict(interval=5, max_keep_ckpts=2, save_best='coco/bbox_mAP'),
)
