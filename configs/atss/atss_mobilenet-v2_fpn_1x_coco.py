# mmdet's ATSS and its recipe, on the MobileNetV2 weights that mmdet's YOLOv3 starts from.
_base_ = ['mmdet::atss/atss_r50_fpn_1x_coco.py', '../_base_/condconv_det.py']

model = dict(
    backbone=dict(
        _delete_=True,
        type='CondConvMobileNetV2',
        out_indices=(2, 4, 6),
        frozen_stages=1,
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://mmdet/mobilenet_v2'),
    ),
    neck=dict(in_channels=[32, 96, 320], start_level=0),
)
