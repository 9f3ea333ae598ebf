_base_ = '../default_runtime.py'

# The paper's recipe: batch 1024, 20k steps, learning rate 0.3 to 0.9 in 1k steps, then cosine to 0.
# 20,000 steps * 1,024 images / 117,266 images with boxes = 175 epochs of COCO.
max_iters = 20000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=2000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    # weight decay: that of TensorFlow's SSD MobileNetV1
    optimizer=dict(type='SGD', lr=0.9, momentum=0.9, weight_decay=4e-5),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=1 / 3, by_epoch=False, begin=0, end=1000),
    dict(
        type='CosineAnnealingLR',
        T_max=max_iters - 1000,
        eta_min=0,
        by_epoch=False,
        begin=1000,
        end=max_iters,
    ),
]
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=2000, max_keep_ckpts=3, save_best='coco/bbox_mAP')
)
log_processor = dict(by_epoch=False)
auto_scale_lr = dict(enable=False, base_batch_size=1024)
