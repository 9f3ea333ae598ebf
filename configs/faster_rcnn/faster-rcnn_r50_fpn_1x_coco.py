# mmdet's Faster R-CNN and its recipe.
_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', '../_base_/condconv_det.py']

model = dict(backbone=dict(type='CondConvResNet'))
