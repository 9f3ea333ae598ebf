"""The anchors of TensorFlow's object detection SSD, which the paper's detectors use."""

from collections.abc import Sequence

import torch
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmengine.registry import TASK_UTILS
from torch.nn.modules.utils import _pair


@TASK_UTILS.register_module()
class TFSSDAnchorGenerator(AnchorGenerator):
    """SSD anchors whose scales step evenly from the first level to the last.

    Each level has one anchor per ratio at its own scale, and a square one at the geometric mean of
    its scale and the next level's (1 after the last). Same boxes as `ssd_anchor_generator` of
    TensorFlow's object detection library.

    Args:
        strides: pixels between the anchor centres of each level.
        input_size: side of the image, pixels; scales are fractions of it.
        scale_range: scale of the first and of the last level.
        ratios: width over height.
        reduce_first_level: whether the first level has three anchors only, as TensorFlow's
            `reduce_boxes_in_lowest_layer`: a square one of half its scale, and ratios 2 and 1/2.
    """

    def __init__(
        self,
        strides: Sequence[float],
        input_size: int = 300,
        scale_range: tuple[float, float] = (0.2, 0.95),
        ratios: Sequence[float] = (1.0, 2.0, 1 / 2, 3.0, 1 / 3),
        reduce_first_level: bool = True,
    ) -> None:
        self.strides = [_pair(stride) for stride in strides]
        self.use_box_type = False
        scales = torch.linspace(*scale_range, len(strides)).tolist()
        shapes = []
        for scale, next_scale in zip(scales, [*scales[1:], 1.0]):
            between = (scale * next_scale) ** 0.5
            shapes.append([(scale, ratio) for ratio in ratios] + [(between, 1.0)])
        if reduce_first_level:
            shapes[0] = [(scales[0] / 2, 1.0), (scales[0], 2.0), (scales[0], 1 / 2)]
        self.base_anchors = [
            self._anchors_around_centre(level, stride, input_size)
            for level, stride in zip(shapes, self.strides)
        ]

    @staticmethod
    def _anchors_around_centre(
        shapes: list[tuple[float, float]], stride: tuple[float, float], input_size: int
    ) -> torch.Tensor:
        """[A, 4], x1 y1 x2 y2 in pixels, of the feature map's first cell."""
        scale, ratio = torch.tensor(shapes).unbind(1)
        half_size = torch.stack([scale * ratio.sqrt(), scale / ratio.sqrt()], 1) * input_size / 2
        centre = torch.tensor(stride) / 2
        return torch.cat([centre - half_size, centre + half_size], 1)

    def __repr__(self) -> str:
        return f'{type(self).__name__}(strides={self.strides}, base_anchors={self.base_anchors})'
