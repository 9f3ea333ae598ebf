# mmdet's RetinaNet and its recipe.
_base_ = ['mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '../_base_/condconv_det.py']

model = dict(backbone=dict(type='CondConvResNet'))
