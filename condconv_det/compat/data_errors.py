"""Errors of a data set's files that name the file, which json's and OpenCV's own do not.

Needed by mmdet 3.x on pycocotools 2.0 and mmcv 2.x.
"""

import shlex
from collections.abc import Callable, Sequence
from functools import cache, wraps
from types import ModuleType
from typing import Any

from mmengine.fileio import load

from .after_import import after_import

NUM_NAMED = 10  # classes in an error


class AnnotationError(ValueError):
    """An annotation file that is not COCO json."""


class DuplicateIdError(AnnotationError, AssertionError):
    """Annotation ids that occur twice, for which mmdet raises an AssertionError."""


class ImageError(ValueError):
    """An image file that is missing or cannot be decoded."""


def install() -> None:
    """Makes mmdet's data sets and metric name a broken file, once they are imported."""
    after_import('mmdet.datasets.coco', _mend_data_set)
    after_import('mmdet.evaluation.metrics.coco_metric', _mend_metric)
    after_import('mmcv.transforms.loading', _mend_loading)


def _mend_data_set(coco: ModuleType) -> None:
    coco.CocoDataset.COCOAPI = _named(coco.COCO)
    coco.CocoDataset.load_data_list = _naming_annotations(coco.CocoDataset.load_data_list)
    coco.CocoDataset.filter_data = _naming_an_empty_set(coco.CocoDataset.filter_data)
    coco.CocoDataset.prepare_data = _naming_the_way_out(coco.CocoDataset)


def _mend_metric(coco_metric: ModuleType) -> None:
    coco_metric.COCO = _named(coco_metric.COCO)


def _mend_loading(loading: ModuleType) -> None:
    loading.LoadImageFromFile.transform = _naming_image(loading.LoadImageFromFile.transform)


# what pycocotools and mmdet raise for json of the wrong structure or with numbers out of range
MALFORMED = (ValueError, KeyError, TypeError, AssertionError, AttributeError, OverflowError)


@cache
def _named(plain_coco: type) -> type:
    class NamedCOCO(plain_coco):
        """pycocotools' COCO, which knows its file, and whose errors name it.

        Raises:
            FileNotFoundError: there is no such file.
            AnnotationError: it is not json, or has no images or no categories.
        """

        def __init__(self, annotation_file: str | None = None) -> None:
            self.annotation_file = annotation_file
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

    return NamedCOCO


def _naming_annotations(plain: Callable) -> Callable:
    @wraps(plain)
    def load_data_list(self: Any) -> list[dict]:
        try:
            return plain(self)
        except MALFORMED as error:
            if isinstance(error, AnnotationError) or 'img' not in self.data_prefix:
                raise
            # mmdet asserts one thing of the entries
            kind = DuplicateIdError if isinstance(error, AssertionError) else AnnotationError
            raise kind(
                f'annotation file {self.ann_file} has entries that mmdet cannot read '
                f'({type(error).__name__}: {error}); '
                f'`python tools/check_dataset.py {shlex.quote(str(self.ann_file))}` names them'
            ) from error

    return load_data_list


def _naming_an_empty_set(plain: Callable) -> Callable:
    @wraps(plain)
    def filter_data(self: Any) -> list[dict]:
        left = plain(self)
        if not left:  # on which mmengine's error is about arrays
            found = load(self.ann_file, backend_args=self.backend_args)['categories']
            raise AnnotationError(
                f'{dict(self.filter_cfg or {})}, filter_cfg of annotation file {self.ann_file}, '
                f'leaves none of its {len(self.data_list)} images to train on; the config names '
                f'the classes {_first(self.metainfo["classes"])}, the file '
                f'{_first([category["name"] for category in found])}'
            )
        return left

    return filter_data


def _first(names: Sequence[str]) -> str:
    names = [names] if isinstance(names, str) else names  # mmengine keeps that of a missing file
    return ', '.join(names[:NUM_NAMED]) + ', ...' * (len(names) > NUM_NAMED)


def _naming_the_way_out(data_set: type) -> Callable:
    def prepare_data(self: Any, idx: int) -> Any:
        try:
            return super(data_set, self).prepare_data(idx)
        except ImageError as error:
            if not self.test_mode:  # training passes over it, see SkipBrokenImagesHook
                raise
            names = shlex.join([self.ann_file, '--images', str(self.data_prefix.get('img'))])
            raise ImageError(
                f'{error}; `python tools/check_dataset.py {names} --decode --fix OUT.json` writes '
                'a json without such images'
            ) from error

    return prepare_data


def _naming_image(plain: Callable) -> Callable:
    from cv2 import error as CV2Error

    @wraps(plain)
    def transform(self: Any, results: dict) -> dict | None:
        try:
            return plain(self, results)
        except (OSError, AssertionError, CV2Error) as error:
            reason = ' '.join(str(error).split())
            raise ImageError(f'image {results["img_path"]} cannot be read: {reason}') from error

    return transform
