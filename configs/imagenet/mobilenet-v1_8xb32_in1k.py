# mmpretrain's recipe for MobileNetV2; the paper says little about its own.
_base_ = [
    'mmpretrain::_base_/datasets/imagenet_bs32_pil_resize.py',
    'mmpretrain::_base_/schedules/imagenet_bs256_epochstep.py',
    '../_base_/classification_runtime.py',
]

model = dict(
    type='ImageClassifier',
    backbone=dict(type='CondConvMobileNetV1', out_indices=(4,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='CondConvClsHead',
        num_classes=1000,
        in_channels=1024,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
        topk=(1, 5),
    ),
)
