# mmdet's RTMDet-tiny and its recipe.
_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'

custom_imports = dict(imports=['condconv_det'], allow_failed_imports=False)
