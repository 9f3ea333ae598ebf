# From scratch in some twenty minutes on two cores.
_base_ = [
    '../_base_/models/retinanet_effb0_small.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/adamw_10e.py',
    '../_base_/default_runtime.py',
]

model = dict(bbox_head=dict(num_classes=5))

# 10 epochs * 125 steps of 8 images
default_hooks = dict(
    logger=dict(interval=25), checkpoint=dict(max_keep_ckpts=2, save_best='coco/bbox_mAP')
)
