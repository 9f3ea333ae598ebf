"""The size at which OpenCV, and so MMDetection, loads an image."""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

_EXIF_ORIENTATION = 0x0112


def loaded_size(path: Path) -> tuple[int, int]:
    """Width and height, from the header alone unless a photograph was taken on its side.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not an image.
    """
    try:
        with Image.open(path) as image:
            size = image.size
            # Image.getexif() alone would decode a whole PNG; from 5 on, orientations are sideways
            sideways = 'exif' in image.info and image.getexif().get(_EXIF_ORIENTATION, 1) >= 5
    except OSError:
        raise
    except Exception as error:  # headers break Pillow in many ways
        raise ValueError(f'{type(error).__name__}: {error}') from error
    if not sideways:
        return size
    # which formats it turns upright differs between versions of OpenCV
    pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    if pixels is None:
        raise ValueError('it cannot be decoded')
    return pixels.shape[1], pixels.shape[0]
