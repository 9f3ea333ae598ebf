"""NMS of a batch as one operation, which becomes ONNX's NonMaxSuppression; needs torch >= 2.4."""

from typing import Any

import torch
from torch import Tensor, library

from .suppression import suppress_by_image

NO_LIMIT = torch.iinfo(torch.int64).max


@library.custom_op('condconv_det::suppress', mutates_args=())
def suppress_in_onnx(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """`suppress_by_image` for any batch; each image's time is its own."""
    return suppress_by_image(boxes, scores, iou_threshold)


@suppress_in_onnx.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    count = library.get_ctx().new_dynamic_size()
    return boxes.new_empty(count, dtype=torch.int64)


def translations() -> dict[Any, Any]:
    """`custom_translation_table` of `torch.onnx.export`."""
    from onnxscript import opset18 as op

    def translate(boxes, scores, iou_threshold: float):
        kept = op.NonMaxSuppression(
            boxes,
            op.Unsqueeze(scores, op.Constant(value_ints=[1])),  # one class
            op.Constant(value_ints=[NO_LIMIT]),
            op.Constant(value_floats=[iou_threshold]),
            op.Constant(value_floats=[0.0]),  # the least score takes no part
        )  # [M, 3]: image, class, box
        image = op.Gather(kept, op.Constant(value_int=0), axis=1)
        box = op.Gather(kept, op.Constant(value_int=2), axis=1)
        return op.Add(op.Mul(image, op.Shape(scores, start=1)), box)

    return {torch.ops.condconv_det.suppress.default: translate}
