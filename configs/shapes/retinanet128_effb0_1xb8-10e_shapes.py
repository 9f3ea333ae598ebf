# From scratch in some twenty minutes on two cores.
_base_ = [
    '../_base_/models/retinanet_effb0_small.py',
    '../_base_/datasets/shapes.py',
    '../_base_/default_runtime.py',
]

model = dict(bbox_head=dict(num_classes=5))

# 10 epochs * 125 steps of 8 images
max_epochs = 10
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=1)
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
    logger=dict(interval=25), checkpoint=dict(max_keep_ckpts=2, save_best='coco/bbox_mAP')
)
