"""Errors of a data set's files that name the file, which json's and OpenCV's own do not.

Needed by mmdet 3.x on pycocotools 2.0 and mmcv 2.x.
"""

from functools import wraps
from typing import Any

import cv2
from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.evaluation.metrics import coco_metric


class AnnotationError(ValueError):
    """An annotation file that is not COCO json."""


class DuplicateIdError(AnnotationError, AssertionError):
    """Annotation ids that occur twice, for which mmdet raises an AssertionError."""


class ImageError(ValueError):
    """An image file that is missing or cannot be decoded."""


def install() -> None:
    """Makes mmdet's data sets and metric name a broken file; repeatable."""
    CocoDataset.COCOAPI = NamedCOCO
    coco_metric.COCO = NamedCOCO
    CocoDataset.load_data_list = _load_data_list
    CocoDataset.prepare_data = _prepare_data
    LoadImageFromFile.transform = _load_image


# what pycocotools and mmdet raise for json of the wrong structure or with numbers out of range
MALFORMED = (ValueError, KeyError, TypeError, AssertionError, AttributeError, OverflowError)

_plain_coco = CocoDataset.COCOAPI
_plain_load_image = LoadImageFromFile.transform
_plain_load_data_list = CocoDataset.load_data_list


class NamedCOCO(_plain_coco):
    """pycocotools' COCO, whose errors name the file.

    Raises:
        FileNotFoundError: there is no such file.
        AnnotationError: it is not json, or has no images or no categories.
    """

    def __init__(self, annotation_file: str | None = None) -> None:
        try:
            super().__init__(annotation_file)
        except MALFORMED as error:
            raise AnnotationError(
                f'annotation file {annotation_file} is not COCO json: '
                f'{type(error).__name__}: {error}'
            ) from error
        if annotation_file is not None and not (self.imgs and self.cats):
            raise AnnotationError(
                f'annotation file {annotation_file} has {len(self.imgs)} images and '
                f'{len(self.cats)} categories; it needs at least one of each'
            )


@wraps(_plain_load_data_list)
def _load_data_list(self: CocoDataset) -> list[dict]:
    try:
        return _plain_load_data_list(self)
    except MALFORMED as error:
        if isinstance(error, AnnotationError) or 'img' not in self.data_prefix:
            raise
        # mmdet asserts one thing of the entries
        kind = DuplicateIdError if isinstance(error, AssertionError) else AnnotationError
        raise kind(
            f'annotation file {self.ann_file} has entries that mmdet cannot read '
            f'({type(error).__name__}: {error}); `python tools/check_dataset.py {self.ann_file}` '
            'names them'
        ) from error


def _prepare_data(self: CocoDataset, idx: int) -> Any:
    try:
        return super(CocoDataset, self).prepare_data(idx)
    except ImageError as error:
        if not self.test_mode:  # training passes over it, see SkipBrokenImagesHook
            raise
        raise ImageError(
            f'{error}; `python tools/check_dataset.py {self.ann_file} --images '
            f'{self.data_prefix.get("img")} --decode --fix OUT.json` writes a json without such '
            'images'
        ) from error


@wraps(_plain_load_image)
def _load_image(self: LoadImageFromFile, results: dict) -> dict | None:
    try:
        return _plain_load_image(self, results)
    except (OSError, AssertionError, cv2.error) as error:
        reason = ' '.join(str(error).split())
        raise ImageError(f'image {results["img_path"]} cannot be read: {reason}') from error
