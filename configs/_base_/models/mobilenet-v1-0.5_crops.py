# A classifier whose backbone is, weight for weight, that of the small SSDs on BCCD and shapes.
model = dict(
    type='ImageClassifier',
    data_preprocessor=dict(mean=[127.5, 127.5, 127.5], std=[127.5, 127.5, 127.5], to_rgb=True),
    backbone=dict(
        type='CondConvMobileNetV1',
        widen_factor=0.5,
        out_indices=(4,),
        norm_cfg=dict(type='BN', eps=0.001),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='CondConvClsHead',
        num_classes=5,
        in_channels=512,
        loss=dict(type='CrossEntropyLoss', loss_weight=1.0),
    ),
)
