"""Detects objects in image files."""

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import cv2
from numpy import ndarray
from rich.progress import track

from condconv_det.compat.data_errors import ImageError
from condconv_det.data.whole_files import written_whole

from .detector import Detector
from .images import decode_image


def detect_files(
    detector: Detector,
    images: Sequence[Path],
    out_dir: Path,
    score_thr: float = 0.3,
) -> tuple[list[Path], dict[Path, str]]:
    """Writes each image with its boxes, and the boxes as JSON beside it, under a progress bar.

    Args:
        images: files.
        out_dir: gets a picture of each under its own name, with the folders in which the images
            differ, and the name with .json added; made if need be.
        score_thr: boxes that score no more are left out of both.

    Returns:
        The pictures, and the reason for each image that could not be read, or drawn.

    Raises:
        OSError: out_dir cannot be written to.
        ValueError: a picture, or its boxes, would be written over a file that is none of these.
    """
    images = [Path(os.path.abspath(image)) for image in images]
    root = Path(os.path.commonpath([image.parent for image in images]))
    pictures = [out_dir / image.relative_to(root) for image in images]
    _check_writable(out_dir)
    originals = {image.resolve() for image in images}
    for picture in pictures:
        if picture.resolve() in originals:
            raise ValueError(f'{picture} would be written over an image: choose another folder')
        report = _report_of(picture)
        if (picture.exists() or report.exists()) and not _is_report(report):
            found = picture if picture.exists() else report
            raise ValueError(f'{found} is there, and not from here: choose another folder')

    written, failures = [], {}
    for path, picture in track(list(zip(images, pictures)), 'Detecting'):
        try:
            image = decode_image(path.read_bytes(), str(path))
            sample = detector.detect(image)
            drawn = _encode(detector.draw(image, sample, score_thr), picture)
        except (ImageError, OSError) as error:
            failures[path] = str(error)
            continue
        except cv2.error as error:  # of the test pipeline; it names no file
            failures[path] = f'image {path}: {" ".join(str(error).split())}'
            continue
        height, width = image.shape[:2]
        report = dict(
            image=str(path),
            width=width,
            height=height,
            score_thr=score_thr,
            objects=detector.objects(sample, score_thr),
        )
        with written_whole(_report_of(picture)) as partial:  # first, for it says whose they are
            partial.write_bytes(json.dumps(report, indent=2).encode())
        with written_whole(picture) as partial:
            partial.write_bytes(drawn)
        written.append(picture)
    return written, failures


def _encode(drawn: ndarray, picture: Path) -> bytes:
    encoded, content = cv2.imencode(picture.suffix, drawn)
    if not encoded:
        height, width = drawn.shape[:2]
        raise ImageError(f'{picture} of {width}x{height} pixels cannot be a {picture.suffix} file')
    return content.tobytes()


def _report_of(picture: Path) -> Path:
    return picture.with_name(f'{picture.name}.json')


def _is_report(path: Path) -> bool:
    """Whether an earlier `detect_files` wrote a file of boxes."""
    try:
        return {'image', 'score_thr', 'objects'} <= set(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return False


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f'folder {folder} cannot be written to: {error}') from error
