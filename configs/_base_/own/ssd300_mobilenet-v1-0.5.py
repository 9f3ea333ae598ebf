# Softmax with hard negatives and 3x3 predictors learn in fewer steps than the focal loss and 1x1
# predictors of the COCO recipe.
_base_ = ['../models/ssd300_mobilenet-v1.py', './data.py']

model = dict(
    backbone=dict(widen_factor=0.5),
    bbox_head=dict(
        predictor_kernel_size=3,
        anchor_generator=dict(reduce_first_level=False),
        loss_cls=dict(_delete_=True, type='CrossEntropyLoss', use_sigmoid=False),
    ),
    test_cfg=dict(nms=dict(iou_threshold=0.45)),
)
