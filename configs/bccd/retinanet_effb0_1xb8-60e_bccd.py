# From scratch on two cores.
_base_ = [
    '../_base_/models/retinanet_effb0_small.py',
    '../_base_/datasets/bccd_ssd300.py',
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
max_epochs = 60
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=5)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        eta_min=0,
        begin=0,
        end=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(
    logger=dict(interval=26),
    checkpoint=dict(interval=5, max_keep_ckpts=2, save_best='coco/bbox_mAP'),
)
