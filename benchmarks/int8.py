"""ONNX files in int8, by ONNX Runtime's quantiser."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor


class Images(CalibrationDataReader):
    """Images [B, 3, H, W], one at a time."""

    def __init__(self, images: Tensor) -> None:
        self.images = iter(images.unsqueeze(1).numpy())

    def get_next(self) -> dict | None:
        image = next(self.images, None)
        return None if image is None else {'images': image}


def quantize_mixing(file: Path, out: Path) -> None:
    """Writes a file of one image, without NMS, with the experts that are mixed in int8."""
    with _prepared(file) as prepared:
        quantize_dynamic(
            prepared, out, weight_type=QuantType.QInt8, op_types_to_quantize=['MatMul']
        )


def quantize_everything(file: Path, out: Path, images: Tensor) -> None:
    """Writes it with all weights and activations that the quantiser takes in int8.

    Args:
        file, out: to read and to write.
        images: to calibrate activations with, [B, 3, H, W].
    """
    with _prepared(file) as prepared:
        quantize_static(
            prepared, out, Images(images), per_channel=True, weight_type=QuantType.QInt8
        )


@contextmanager
def _prepared(file: Path) -> Iterator[Path]:
    prepared = file.with_suffix('.prepared.onnx')
    try:
        quant_pre_process(file, prepared, skip_symbolic_shape=True)
        yield prepared
    finally:
        prepared.unlink(missing_ok=True)
