# mmdet's Faster R-CNN and its recipe. FDConv's README has the one published comparison: box AP 37.2
# static, 38.1 with CondConv, 8 experts.
_base_ = ['mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', '../_base_/condconv_det.py']

model = dict(backbone=dict(type='CondConvResNet'))
