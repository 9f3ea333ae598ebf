"""Image files decoded to their end, to the pixels that MMDetection trains on."""

import warnings
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.ppm', '.tif', '.tiff', '.webp')
FORMATS = ('BMP', 'JPEG', 'PNG', 'PPM', 'TIFF', 'WEBP')
MAX_PIXELS = 100_000_000


def decode(content: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The pixels of an image file, uint8 [H, W, 3], BGR, turned upright.

    Args:
        content: of the file.
        max_pixels: a larger image is refused before it is decoded.

    Raises:
        ValueError: it is not an image, not a whole one, or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', Image.DecompressionBombWarning)
            header = Image.open(BytesIO(content), formats=FORMATS)
        width, height = header.size
        if width * height > max_pixels:
            raise ValueError(
                f'{width}x{height} pixels are too many; at most {max_pixels / 1e6:g} million'
            )
        header.load()  # OpenCV before 4.11 fills what a truncated JPEG lacks with grey
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        if pixels is None:
            raise ValueError(f'OpenCV cannot decode a {header.format} of mode {header.mode}')
        return pixels
    except Image.UnidentifiedImageError:
        reason = f'its {len(content)} bytes are none of {", ".join(FORMATS)}'
    except Exception as error:  # decoders raise nearly anything for a damaged file
        reason = ' '.join(str(error).split()) or type(error).__name__
    raise ValueError(reason)


def decoded_size(path: Path) -> tuple[int, int]:
    """Width and height of an image file that was decoded to its end.

    Raises:
        OSError: it cannot be read.
        ValueError: see `decode`.
    """
    height, width = decode(path.read_bytes()).shape[:2]
    return width, height
