# Shapes one by one, a few minutes on two cores; see docs/training.md for data/shapes-crops.
_base_ = [
    '../_base_/models/mobilenet-v1-0.5_crops.py',
    '../_base_/datasets/crops64.py',
    '../_base_/schedules/adamw_10e.py',
    '../_base_/classification_runtime.py',
]

model = dict(head=dict(num_classes=5))
crops = dict(
    data_root='data/shapes-crops/',
    metainfo=dict(classes=('circle', 'cross', 'square', 'star', 'triangle')),
)
train_dataloader = dict(dataset=dict(dataset=crops))
val_dataloader = dict(dataset=crops)
test_dataloader = dict(dataset=crops)
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator
default_hooks = dict(
    logger=dict(interval=25), checkpoint=dict(max_keep_ckpts=2, save_best='accuracy/top1')
)
