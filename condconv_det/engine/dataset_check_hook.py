"""The data set's files, checked before the first step."""

import shlex
from itertools import islice
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset
from mmengine.dist import broadcast_object_list
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from condconv_det.compat.data_errors import AnnotationError
from condconv_det.data.check_coco import check_coco, read_coco
from condconv_det.data.check_images import check_images
from condconv_det.data.coco_faults import KINDS, level
from condconv_det.data.fault import Fault, counted
from condconv_det.data.leaf_datasets import leaf_datasets

NUM_NAMED = 5  # faults in an error or in the log


@HOOKS.register_module()
class DatasetCheckHook(Hook):
    """Stops before training if the training or validation set's COCO json has faults that matter.

    Looks at all of the json, as `check_coco` does, and at the headers of some images; logs what
    MMDetection leaves out without a word. Of several processes the first checks, and all stop. Sets
    of other formats, and files that are not on this machine, are passed over.

    Before training, validation and test it also stops if an evaluator's COCO json lacks images of
    the data set's, or has other boxes: detections would be measured by those of other images.

    Args:
        max_images: headers to read of each set, evenly spread; 0 reads none.

    Raises:
        AnnotationError: it names the first faults, and the command that names all, or both files.
    """

    def __init__(self, max_images: int = 1000) -> None:
        if max_images < 0:
            raise ValueError(f'max_images must be at least 0, got {max_images}')
        self.max_images = max_images

    def before_train(self, runner: Runner) -> None:
        error = [self._check(runner) if runner.rank == 0 else None]
        broadcast_object_list(error)
        if error[0] is not None:
            raise AnnotationError(error[0])

    def before_val(self, runner: Runner) -> None:
        if runner.iter == 0:  # else a training has checked it
            _check_evaluator(runner.val_loop.evaluator, runner.val_dataloader.dataset)

    def before_test(self, runner: Runner) -> None:
        _check_evaluator(runner.test_loop.evaluator, runner.test_dataloader.dataset)

    def _check(self, runner: Runner) -> str | None:
        """The message to stop with."""
        try:
            for dataset in leaf_datasets(runner.train_dataloader.dataset):
                self._check_set(runner, dataset, evaluated=False)
            if runner.val_loop is not None:
                for dataset in leaf_datasets(runner.val_dataloader.dataset):
                    self._check_set(runner, dataset, evaluated=True)
                _check_evaluator(runner.val_loop.evaluator, runner.val_dataloader.dataset)
        except (AnnotationError, OSError, ValueError) as error:
            return str(error)  # the other processes wait for it
        return None

    def _check_set(self, runner: Runner, dataset: Any, evaluated: bool) -> None:
        if not (reads_coco(type(dataset)) and Path(dataset.ann_file).is_file()):
            return
        data = read_coco(dataset.ann_file)
        images_alone = (dataset.filter_cfg or {}).get('filter_empty_gt') is False
        if images_alone and not evaluated:  # as semi-supervised detectors learn from
            data = dict(annotations=[]) | data
        faults = check_coco(data, evaluated, dataset.metainfo['classes']).faults
        folder = dataset.data_prefix.get('img')
        if self.max_images and folder and Path(folder).is_dir():
            faults += check_images(data, folder, self.max_images).faults
        by_level: dict[str, list[Fault]] = dict(error=[], warning=[], note=[])
        for fault in faults:
            by_level[level(fault, evaluated)].append(fault)
        names = shlex.join([str(dataset.ann_file), '--images', str(folder)])
        command = f'python tools/check_dataset.py {names}'
        if by_level['error']:
            mended = all(KINDS[fault.kind].mend for fault in by_level['error'])
            raise AnnotationError(
                f'{dataset.ann_file} has {_name_first(by_level["error"])}\n`{command}` names all'
                + '; with `--fix OUT.json` it writes a file without them' * mended
            )
        if by_level['warning']:
            runner.logger.warning(
                f'{dataset.ann_file}: mmdet leaves out or misjudges '
                f'{_name_first(by_level["warning"])}\n`{command}` names all'
            )


def _check_evaluator(evaluator: Evaluator, dataset: Any) -> None:
    first, *others = leaf_datasets(dataset)
    if others or not (reads_coco(type(first)) and Path(first.ann_file).is_file()):
        return
    for metric in evaluator.metrics:
        coco = getattr(metric, '_coco_api', None)  # of mmdet's CocoMetric
        file = getattr(coco, 'annotation_file', None)
        if file is None or metric.format_only or not Path(file).is_file():
            continue
        # without an ann_file the metric writes one of the data set's boxes
        if str(file).endswith('.gt.json') or Path(file).samefile(first.ann_file):
            continue
        ours, theirs = read_coco(first.ann_file), coco.dataset
        of_others = not _image_names(ours).items() <= _image_names(theirs).items()
        if of_others or (_boxes(ours) and _boxes(theirs) and not _boxes(ours) & _boxes(theirs)):
            raise AnnotationError(
                f'the evaluator measures by the boxes of {file}, but the data set is '
                f'{first.ann_file}, of other images: name one file as ann_file of both'
            )


def _image_names(data: dict) -> dict[Any, str]:
    return {image['id']: Path(image['file_name']).name for image in data['images']}


def _boxes(data: dict) -> set[tuple]:
    """Each with its image, since splits may name and number their images alike."""
    return {(a['image_id'], *(a.get('bbox') or ())) for a in data.get('annotations') or ()}


def reads_coco(cls: type) -> bool:
    """Whether a class of data sets reads COCO json as mmdet's CocoDataset does."""
    return all(
        getattr(cls, name, None) is getattr(CocoDataset, name)
        for name in ('load_data_list', 'parse_data_info', 'COCOAPI')
    )


def _name_first(faults: list[Fault]) -> str:
    lines = [
        f'{counted(len(faults), "fault")}:',
        *(f'  {fault}' for fault in islice(faults, NUM_NAMED)),
    ]
    if len(faults) > NUM_NAMED:
        lines.append(f'  ... and {len(faults) - NUM_NAMED} more')
    return '\n'.join(lines)
