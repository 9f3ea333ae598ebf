# Nine visibly different domains, 1,868 photographs and scans, in data/domains: see
# docs/measured/domains.md.
data_root = 'data/domains/'
metainfo = dict(
    classes=(
        *('platelet', 'red blood cell', 'white blood cell'),
        *('fish', 'jellyfish', 'penguin', 'puffin', 'shark', 'starfish', 'stingray'),
        *('ace card', 'jack card', 'king card', 'nine card', 'queen card', 'ten card'),
        *('bishop', 'king', 'knight', 'pawn', 'queen', 'rook'),
        *('table', 'missing copper', 'surplus copper', 'rabbit'),
        *('face with mask', 'face without mask', 'tooth'),
    )
)
input_size = 192
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    # SSD's own MinIoURandomCrop looks as long as the network takes: few crops suit small boxes
    dict(type='RandomCrop', crop_type='relative_range', crop_size=(0.6, 0.6)),
    dict(type='Resize', scale=(input_size, input_size), keep_ratio=False),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(input_size, input_size), keep_ratio=False),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
train_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/train.json',
        data_prefix=dict(img='images/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=1,
    persistent_workers=True,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/val.json',
        data_prefix=dict(img='images/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
test_dataloader = dict(
    batch_size=8,
    num_workers=1,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='CocoDataset',
        data_root=data_root,
        metainfo=metainfo,
        ann_file='annotations/test.json',
        data_prefix=dict(img='images/'),
        test_mode=True,
        pipeline=test_pipeline,
    ),
)
val_evaluator = dict(
    type='GroupedCocoMetric',
    ann_file=data_root + 'annotations/val.json',
    metric='bbox',
    group_by='domain',
)
test_evaluator = dict(val_evaluator, ann_file=data_root + 'annotations/test.json')
