"""How a scene of the shapes data set is painted: one function per visual domain.

Every painter takes a generator, `fills`, the objects' coverage in drawing order, float32 [N, H, W]
in [0, 1], and `classes`, their numbers [N]; it returns a BGR picture, float32 [H, W, 3] in about
[0, 255]. Later objects hide earlier ones in every domain. What tells an object from its background
differs: darker, brighter, hotter or colder, another texture, a drawn line, a hint of contrast. And
a class has a usual colour in each domain, but another one in every domain: what is red by day is a
circle, what is red by night a star. One fixed filter bank has to compromise between them.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy import ndarray
from numpy.random import Generator

# Hues lie this many degrees apart, one for each of five classes, and vary by a fifth of it.
HUE_STEP = 72


def _hue(rng: Generator, number: int, domain_turn: int) -> float:
    """The usual hue of a class, degrees, in a domain that turns the colour circle by some steps."""
    return HUE_STEP * (number + domain_turn + rng.uniform(-0.2, 0.2)) % 360


def _colour(
    rng: Generator,
    saturation: tuple[float, float],
    value: tuple[float, float],
    hue: float | None = None,
) -> ndarray:
    """A BGR colour, float32 [3] in [0, 255], of ranges in [0, 1]; of any hue if none is given."""
    hue = rng.uniform(0, 360) if hue is None else hue
    hsv = [hue, rng.uniform(*saturation), rng.uniform(*value)]
    return cv2.cvtColor(np.array([[hsv]], np.float32), cv2.COLOR_HSV2BGR)[0, 0] * 255


def _smooth(rng: Generator, size: int, low: float, high: float) -> ndarray:
    """A slowly varying field, float32 [H, W], within [low, high]."""
    field = cv2.resize(rng.random((4, 4), np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
    return low + (high - low) * np.clip(field, 0, 1)


def _wave(size: int, period: float, angle: float) -> ndarray:
    """Stripes with soft edges, float32 [H, W] in [-1, 1]; period in pixels, angle in radians."""
    y, x = np.mgrid[:size, :size].astype(np.float32)
    phase = (x * np.cos(angle) + y * np.sin(angle)) * (2 * np.pi / period)
    return np.clip(2.5 * np.sin(phase), -1, 1).astype(np.float32)


def _two_tone(pattern: ndarray, first: ndarray, second: ndarray) -> ndarray:
    """Colours `first` where the pattern is 1 and `second` where it is -1: [H, W, 3]."""
    mix = (pattern[..., None] + 1) / 2
    return mix * first + (1 - mix) * second


def _over(picture: ndarray, coverage: ndarray, paint: ndarray | float) -> ndarray:
    """The picture with `paint`, broadcastable to its shape, laid over it where covered."""
    alpha = coverage.reshape(coverage.shape + (1,) * (picture.ndim - 2))
    return picture + alpha * (paint - picture)


def _rim(fill: ndarray, width: int) -> ndarray:
    """The inner border, `width` pixels wide, of a coverage [H, W]."""
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * width + 1, 2 * width + 1))
    inside = cv2.erode(fill, disc, borderType=cv2.BORDER_CONSTANT, borderValue=1)
    return fill - inside


def _noise(rng: Generator, picture: ndarray, deviation: float) -> ndarray:
    """The picture with Gaussian noise of a deviation in grey levels."""
    return picture + deviation * rng.standard_normal(picture.shape, np.float32)


def paint_daylight(rng: Generator, fills: ndarray, classes: Sequence[int]) -> ndarray:
    """Dark filled shapes on a light, smooth, evenly lit background."""
    size = fills.shape[-1]
    picture = _smooth(rng, size, 0.88, 1.08)[..., None] * _colour(rng, (0.05, 0.2), (0.85, 0.95))
    for fill, number in zip(fills, classes):
        picture = _over(picture, fill, _colour(rng, (0.6, 0.9), (0.3, 0.55), _hue(rng, number, 0)))
    return _noise(rng, picture, 3)


def paint_night(rng: Generator, fills: ndarray, classes: Sequence[int]) -> ndarray:
    """Dim shapes in a dark, grainy scene under one weak lamp."""
    size = fills.shape[-1]
    picture = np.full((size, size, 3), 14, np.float32) + _colour(rng, (0.3, 0.6), (0.02, 0.08))
    for fill, number in zip(fills, classes):
        picture = _over(picture, fill, _colour(rng, (0.4, 0.7), (0.35, 0.5), _hue(rng, number, 2)))
    return _noise(rng, picture * _smooth(rng, size, 0.7, 1.2)[..., None], 8)


def paint_thermal(rng: Generator, fills: ndarray, classes: Sequence[int]) -> ndarray:
    """A heat camera's false colours: hot shapes in a cold scene or, as often, the inverse."""
    heat = _smooth(rng, fills.shape[-1], 0.05, 0.35)
    for fill, number in zip(fills, classes):
        # each class has its temperature
        heat = _over(heat, fill, 0.55 + 0.1 * number + rng.uniform(-0.02, 0.02))
        # A body is cooler at its edge, which also parts two bodies of one temperature.
        heat = _over(heat, 0.7 * _rim(fill, 1), 0.45)
    heat = np.clip(_noise(rng, heat, 0.02), 0, 1)
    if rng.random() < 0.5:
        heat = 1 - heat
    return cv2.applyColorMap(np.rint(heat * 255).astype(np.uint8), cv2.COLORMAP_JET).astype(
        np.float32
    )


def paint_textile(rng: Generator, fills: ndarray, classes: Sequence[int]) -> ndarray:
    """Shapes cut from finely striped cloth on a broad striped or chequered one."""
    size = fills.shape[-1]
    angle, period = rng.uniform(0, np.pi), size * rng.uniform(0.1, 0.16)
    pattern = _wave(size, period, angle)
    if rng.random() < 0.5:
        pattern = pattern * _wave(size, period, angle + np.pi / 2)
    cloth = _colour(rng, (0.3, 0.6), (0.6, 0.75))
    picture = _two_tone(pattern, cloth, 0.75 * cloth)
    for fill, number in zip(fills, classes):
        stripes = _wave(size, size * rng.uniform(0.03, 0.045), rng.uniform(0, np.pi))
        dark = _colour(rng, (0.7, 0.9), (0.25, 0.45), _hue(rng, number, 1))
        light = _colour(rng, (0.0, 0.2), (0.85, 1.0))
        picture = _over(picture, fill, _two_tone(stripes, dark, light))
        # A hem: without it, coarse stripes would fray the outline of a small shape.
        picture = _over(picture, 0.8 * _rim(fill, 1), dark)
    return _noise(rng, picture, 4)


def paint_sketch(rng: Generator, fills: ndarray, classes: Sequence[int]) -> ndarray:
    """Outlines only, in coloured pencils on paper; the inside of a shape is paper again."""
    paper = np.array([205, 228, 238], np.float32) * rng.uniform(0.95, 1.05)
    picture = np.full((*fills.shape[1:], 3), paper, np.float32)
    for fill, number in zip(fills, classes):
        line = _rim(fill, max(2, round(0.018 * fill.shape[0])))
        pencil = _colour(rng, (0.6, 0.9), (0.3, 0.5), _hue(rng, number, 3))
        picture = _over(_over(picture, fill, paper), line, pencil)
    return _noise(rng, picture, 5)


def paint_fog(rng: Generator, fills: ndarray, classes: Sequence[int]) -> ndarray:
    """Faint, blurred, nearly grey shapes behind fog whose density varies over the picture."""
    size = fills.shape[-1]
    picture = np.full((size, size, 3), 190, np.float32)
    for fill, number in zip(fills, classes):
        picture = _over(picture, fill, _colour(rng, (0.5, 0.9), (0.2, 0.5), _hue(rng, number, 4)))
    picture = cv2.GaussianBlur(picture, (0, 0), 0.006 * size)
    return _noise(rng, _over(picture, _smooth(rng, size, 0.6, 0.76), 200), 2)


PAINTERS: dict[str, Callable[[Generator, ndarray, Sequence[int]], ndarray]] = {
    'daylight': paint_daylight,
    'night': paint_night,
    'thermal': paint_thermal,
    'textile': paint_textile,
    'sketch': paint_sketch,
    'fog': paint_fog,
}
