# From scratch on two cores. Differs from the COCO recipe: platelets are some 15 pixels wide at 300,
# so the head also sees stage 2 (stride 8), and anchors start smaller.
_base_ = [
    '../_base_/models/ssd300_mobilenet-v1.py',
    '../_base_/datasets/bccd_ssd300.py',
    '../_base_/schedules/adamw_60e.py',
    '../_base_/default_runtime.py',
]

channels = (128, 256, 512, 256, 128)
model = dict(
    backbone=dict(widen_factor=0.5, out_indices=(2, 3, 4), norm_cfg=dict(momentum=0.1)),
    neck=dict(
        in_channels=channels[:3],
        out_channels=channels,
        level_strides=(2, 2),
        level_paddings=('same', 'same'),
        norm_cfg=dict(momentum=0.1),
    ),
    bbox_head=dict(
        num_classes=3,
        in_channels=channels,
        anchor_generator=dict(
            strides=[300 / side for side in (38, 19, 10, 5, 3)], scale_range=(0.12, 0.6)
        ),
    ),
)

# 60 epochs * 26 steps of 8 images = 1,560 steps
default_hooks = dict(
    logger=dict(interval=26),
    checkpoint=dict(interval=5, max_keep_ckpts=2, save_best='coco/bbox_mAP'),
)
