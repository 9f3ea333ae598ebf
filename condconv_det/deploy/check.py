"""Holds an exported file to the detector that it was written from."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mmcv
import numpy as np
import torch
from torch import Tensor

from .exportable import ExportableDetector
from .images import decode_image
from .runtimes import open_onnx
from .write import SUFFIXES

MAX_PIXELS = 0.5
MAX_SCORE = 1e-3
TIMED_RUNS = 10
TIMED_SECONDS = 1.0  # after which there are no more runs

Run = Callable[[Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class Comparison:
    """How far a file's outputs are from PyTorch's, and how long both take.

    Args:
        batch: number of images in a call.
        kind: 'random' or 'real' images.
        pixels: largest difference of a box's side.
        score: largest difference of a score.
        torch_ms, file_ms: the median call.
    """

    batch: int
    kind: str
    pixels: float
    score: float
    torch_ms: float
    file_ms: float

    @property
    def agrees(self) -> bool:
        return self.pixels <= MAX_PIXELS and self.score <= MAX_SCORE  # both fail if not a number


def open_file(path: Path, format: str) -> Run:
    """Checks a file's structure and opens it as a function of images, on PyTorch's threads.

    Raises:
        onnx.checker.ValidationError: ONNX's checker refuses the file.
    """
    if SUFFIXES[format] == '.onnx':
        import onnx

        onnx.checker.check_model(path, full_check=True)
        run = open_onnx(path, threads=torch.get_num_threads()).run
        return lambda images: [torch.from_numpy(output) for output in run(images.numpy())]
    return torch.export.load(path).module()


@torch.no_grad()
def compare(run: Run, detector: ExportableDetector, images: Tensor, kind: str) -> Comparison:
    """Runs a file and the detector in PyTorch on the same images, [B, 3, H, W]."""
    expected, found = detector(images), run(images)
    if detector.with_nms:
        score_thr = detector.model.bbox_head.test_cfg.get('score_thr', 0)
        pixels, score = detection_differences(found, expected, score_thr)
    else:
        pixels, score = largest_differences(found, expected)
    return Comparison(
        len(images), kind, pixels, score, _median_ms(detector, images), _median_ms(run, images)
    )


def largest_differences(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> tuple[float, float]:
    """Of all anchors' boxes, in pixels, and scores."""
    return tuple((a - b).abs().max().item() for a, b in zip(ours, theirs))


def detection_differences(
    ours: Sequence[Tensor], theirs: Sequence[Tensor], score_thr: float
) -> tuple[float, float]:
    """Of detections, each from the nearest one of the other side in the same image and class.

    A detection within `MAX_SCORE` of the least score with which one is kept needs no partner: the
    threshold's, or, of a full list, the last one's. Without a partner the difference is infinite.
    """
    pixels = score = 0.0
    for image, other in zip(zip(*ours), zip(*theirs)):
        floor = max(score_thr, image[1][-1].item(), other[1][-1].item()) + MAX_SCORE
        for (boxes, scores, labels), (boxes2, scores2, labels2) in ((image, other), (other, image)):
            for box, value, label in zip(boxes, scores, labels):
                if value <= floor:
                    continue
                same = labels2 == label
                if not same.any():
                    return float('inf'), float('inf')
                box_distance = (boxes2[same] - box).abs().amax(-1)
                score_distance = (scores2[same] - value).abs()
                nearest = (box_distance / MAX_PIXELS + score_distance / MAX_SCORE).argmin()
                # unlike max, keeps what is not a number
                pixels = np.maximum(pixels, box_distance[nearest].item())
                score = np.maximum(score, score_distance[nearest].item())
    return float(pixels), float(score)


def random_images(batch: int, size: tuple[int, int]) -> Tensor:
    """Noise, [B, 3, H, W], whole numbers from 0 to 255, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, 3, *size), generator=generator).float()


def read_images(paths: Sequence[Path], size: tuple[int, int]) -> Tensor:
    """Image files, resized to [B, 3, H, W] without keeping their ratio, channels BGR.

    Raises:
        FileNotFoundError: there is no such file.
        ImageError: it is not an image, or not a whole one.
    """
    images = torch.empty(len(paths), 3, *size)
    for path, image in zip(paths, images):
        pixels = decode_image(path.read_bytes(), str(path))
        image.copy_(torch.from_numpy(mmcv.imresize(pixels, size[::-1])).permute(2, 0, 1))
    return images


def _median_ms(run: Run, images: Tensor) -> float:
    times = []
    while len(times) < TIMED_RUNS and sum(times) < TIMED_SECONDS:
        start = time.perf_counter()
        run(images)
        times.append(time.perf_counter() - start)
    return 1000 * float(np.median(times))
