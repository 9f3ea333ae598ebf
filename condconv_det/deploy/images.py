"""Image files of any origin: found by name, and decoded if whole and not too large."""

import glob
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from mmengine.config import Config
from rich.progress import track

from condconv_det.analysis.configs import first_dataset
from condconv_det.compat.data_errors import ImageError
from condconv_det.data.decode import MAX_PIXELS, SUFFIXES, decode


def find_images(pattern: str) -> list[Path]:
    """The images that a file's name, a folder or a glob stands for, sorted.

    Hidden files are left out, such as the `._name` that macOS puts beside a file.

    Args:
        pattern: of a folder, the images right in it; in a glob, `**` is any number of folders.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(pattern).expanduser()
    if path.is_dir():
        candidates = path.glob('[!.]*')
    elif path.exists():  # whatever signs of a glob are in its name
        candidates = [path]
    else:
        candidates = map(Path, glob.glob(str(path), recursive=True))
    images = sorted(
        found for found in candidates if found.suffix.lower() in SUFFIXES and found.is_file()
    )
    if not images:
        raise FileNotFoundError(
            f'there is no image in {pattern}: expected an image, a folder or a glob of images, '
            f'with names in {" ".join(SUFFIXES)}'
        )
    return images


def decode_image(content: bytes, name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The pixels of an image file, as `decode` gives them.

    Args:
        content: of the file.
        name: by which an error calls it.
        max_pixels: a larger image is refused before it is decoded.

    Raises:
        ImageError: it is not an image, not a whole one, or too large.
    """
    try:
        return decode(content, max_pixels)
    except ValueError as error:
        raise ImageError(f'image {name} cannot be read: {error}') from error


def check_colour(cfg: Config) -> None:
    """Raises ValueError if a config's test pipeline loads images of other than three channels."""
    for transform in first_dataset(cfg).get('pipeline') or ():
        if transform.get('color_type', 'color').startswith(('grayscale', 'unchanged')):
            raise ValueError(
                f'{cfg.filename}: images are read in three channels here, but the test pipeline '
                f'loads them with color_type={transform["color_type"]!r}'
            )


def readable_images(images: Sequence[Path]) -> tuple[list[Path], dict[Path, str]]:
    """The files that can be decoded, and the reason for each that cannot, under a progress bar."""
    readable, failures = [], {}
    for path in track(images, 'Reading'):
        try:
            decode_image(path.read_bytes(), str(path))
        except (ImageError, OSError) as error:
            failures[path] = str(error)
        else:
            readable.append(path)
    return readable, failures


def describe_failures(failures: Mapping[Path, str], count: int) -> str:
    """What a tool says of the images, out of so many, that it passed over."""
    reasons = '\n'.join(f'  {reason}' for reason in failures.values())
    return f'{len(failures)} of {count} images could not be read:\n{reasons}'
