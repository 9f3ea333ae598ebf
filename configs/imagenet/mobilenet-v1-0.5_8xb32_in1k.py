_base_ = './mobilenet-v1_8xb32_in1k.py'

model = dict(backbone=dict(widen_factor=0.5), head=dict(in_channels=512))
