"""Errors of COCO annotation files that name the file, which json's own do not.

Needed by mmdet 3.x on pycocotools 2.0.
"""

from mmdet.datasets import CocoDataset
from mmdet.evaluation.metrics import coco_metric


class AnnotationError(ValueError):
    """An annotation file that is not COCO json."""


def install() -> None:
    """Makes mmdet's COCO data set and metric name a broken annotation file; repeatable."""
    CocoDataset.COCOAPI = NamedCOCO
    coco_metric.COCO = NamedCOCO


_plain_coco = CocoDataset.COCOAPI


class NamedCOCO(_plain_coco):
    """pycocotools' COCO, whose errors name the file.

    Raises:
        FileNotFoundError: there is no such file.
        AnnotationError: it is not json, or has no images or no categories.
    """

    def __init__(self, annotation_file: str | None = None) -> None:
        try:
            super().__init__(annotation_file)
        except (ValueError, KeyError, TypeError, AssertionError, AttributeError) as error:
            raise AnnotationError(
                f'annotation file {annotation_file} is not COCO json: '
                f'{type(error).__name__}: {error}'
            ) from error
        if annotation_file is not None and not (self.imgs and self.cats):
            raise AnnotationError(
                f'annotation file {annotation_file} has {len(self.imgs)} images and '
                f'{len(self.cats)} categories; it needs at least one of each'
            )
