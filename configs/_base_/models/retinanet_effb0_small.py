# RetinaNet on EfficientNet-B0 with a pyramid and a head narrow enough to train on two cores.
# Group norm, as in mmdet's configs/scratch: with batches of 8 very different images the statistics
# of batch norm differ so much from batch to batch that the network fails in eval mode.
norm_cfg = dict(type='GN', num_groups=8)
model = dict(
    type='RetinaNet',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[127.5, 127.5, 127.5],
        std=[127.5, 127.5, 127.5],
        bgr_to_rgb=True,
        pad_size_divisor=32,
    ),
    backbone=dict(
        type='CondConvEfficientNet',
        arch='b0',
        out_indices=(3, 4, 5),
        norm_cfg=norm_cfg,
    ),
    neck=dict(
        type='FPN',
        in_channels=[40, 112, 320],
        out_channels=64,
        num_outs=3,
        norm_cfg=norm_cfg,
    ),
    bbox_head=dict(
        type='CondConvRetinaHead',
        num_classes=80,
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=norm_cfg,
        anchor_generator=dict(
            type='AnchorGenerator',
            octave_base_scale=3,
            scales_per_octave=2,
            ratios=[0.5, 1.0, 2.0],
            strides=[8, 16, 32],
        ),
        bbox_coder=dict(
            type='DeltaXYWHBBoxCoder',
            target_means=[0.0, 0.0, 0.0, 0.0],
            target_stds=[1.0, 1.0, 1.0, 1.0],
        ),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True, gamma=2.0, alpha=0.25),
        loss_bbox=dict(type='L1Loss'),
    ),
    train_cfg=dict(
        assigner=dict(
            type='MaxIoUAssigner',
            pos_iou_thr=0.5,
            neg_iou_thr=0.4,
            min_pos_iou=0,
            ignore_iof_thr=-1,
        ),
        sampler=dict(type='PseudoSampler'),
        allowed_border=-1,
        pos_weight=-1,
        debug=False,
    ),
    test_cfg=dict(
        nms_pre=1000,
        min_bbox_size=0,
        score_thr=0.05,
        nms=dict(type='nms', iou_threshold=0.5),
        max_per_img=100,
    ),
)
