# B0 with 1.1 times its blocks, which is B1 at B0's image size.
_base_ = './efficientnet-b0_8xb32_in1k.py'

model = dict(backbone=dict(arch='b1'))
