"""Image files of any origin: found by name, and decoded if whole and not too large."""

import glob
import warnings
from io import BytesIO
from pathlib import Path

import mmcv
import numpy as np
from PIL import Image

from condconv_det.compat.data_errors import ImageError

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')
FORMATS = ('BMP', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP')
MAX_PIXELS = 100_000_000


def find_images(pattern: str) -> list[Path]:
    """The images that a file's name, a folder or a glob stands for, sorted.

    Args:
        pattern: of a folder, the images right in it; in a glob, `**` is any number of folders.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(pattern).expanduser()
    if path.is_dir():
        candidates = path.iterdir()
    elif path.exists():  # whatever signs of a glob are in its name
        candidates = [path]
    else:
        candidates = map(Path, glob.glob(str(path), recursive=True))
    images = sorted(
        found for found in candidates if found.suffix.lower() in SUFFIXES and found.is_file()
    )
    if not images:
        raise FileNotFoundError(
            f'{pattern} names no image: expected an image, a folder or a glob of images, '
            f'with names in {" ".join(SUFFIXES)}'
        )
    return images


def decode_image(content: bytes, name: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The pixels of an image file, uint8 [H, W, 3], BGR, the same that MMDetection trains on.

    Args:
        content: of the file.
        name: by which an error calls it.
        max_pixels: a larger image is refused before it is decoded.

    Raises:
        ImageError: it is not an image, not a whole one, or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            header = Image.open(BytesIO(content), formats=FORMATS)
        width, height = header.size
        if width * height > max_pixels:
            raise ImageError(
                f'{width}x{height} pixels are too many; at most {max_pixels / 1e6:g} million'
            )
        header.load()  # OpenCV before 4.11 fills what a truncated JPEG lacks with grey
        pixels = mmcv.imfrombytes(content)
        if pixels is None:
            raise ImageError(f'OpenCV cannot decode a {header.format} of mode {header.mode}')
        return pixels
    except Image.UnidentifiedImageError:
        reason = f'its {len(content)} bytes are none of {", ".join(FORMATS)}'
    except Exception as error:  # decoders raise nearly anything for a damaged file
        reason = ' '.join(str(error).split()) or type(error).__name__
    raise ImageError(f'image {name} cannot be read: {reason}')
