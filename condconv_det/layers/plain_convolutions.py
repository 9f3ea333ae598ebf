"""Convolutions that experts can take the place of, two of which are mmcv's."""

from mmcv.cnn.bricks.conv2d_adaptive_padding import Conv2dAdaptivePadding
from mmcv.cnn.bricks.wrappers import Conv2d as MMCVConv2d
from torch import nn

# those that compute what `nn.Conv2d` does; the last one pads as TensorFlow does
PLAIN_CONVOLUTIONS = (nn.Conv2d, MMCVConv2d, Conv2dAdaptivePadding)
