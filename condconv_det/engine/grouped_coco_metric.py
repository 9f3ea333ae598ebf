"""COCO mAP of each group of images, such as the domains of a detector for many."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.evaluation import CocoMetric
from mmengine.registry import METRICS

from condconv_det.analysis.bootstrap import match_detections, mean_average_precision
from condconv_det.analysis.groups import image_groups


@METRICS.register_module()
class GroupedCocoMetric(CocoMetric):
    """mmdet's `CocoMetric`, and beside its figures the mAP of each group of images and their mean.

    A group is scored on its own images, with the classes that have boxes in them. The metrics are
    called `<group_by>_mAP` (the mean, each group counting the same) and `<group_by>_mAP_<group>`.

    Args:
        ann_file: COCO annotations of the images that are tested.
        group_by: key of the annotations' image records, whose values are the groups.
        args, kwargs: CocoMetric's; its `iou_thrs` are those of the groups, too.

    Raises:
        ValueError: an image has no such key, or 'bbox' is not among the metrics.
    """

    def __init__(self, ann_file: str, *args: Any, group_by: str, **kwargs: Any) -> None:
        super().__init__(ann_file, *args, **kwargs)
        if 'bbox' not in self.metrics:
            raise ValueError(
                f"groups are scored by boxes: metric must be 'bbox' or have it, got {self.metrics}"
            )
        self.ann_file, self.group_by = ann_file, group_by
        self.groups = image_groups(ann_file, group_by)

    def compute_metrics(self, results: list) -> dict[str, float]:
        given = self.outfile_prefix
        with tempfile.TemporaryDirectory() as folder:
            self.outfile_prefix = given or str(Path(folder) / 'results')
            try:
                metrics = super().compute_metrics(results)
                if metrics:  # none where nothing was detected, or only files are asked for
                    metrics.update(self._of_groups(f'{self.outfile_prefix}.bbox.json'))
            finally:
                self.outfile_prefix = given
        return metrics

    def _of_groups(self, predictions: str) -> dict[str, float]:
        classes = match_detections(
            Path(self.ann_file), Path(predictions), self.dataset_meta['classes'], self.iou_thrs
        )
        maps = {name: mean_average_precision(classes, mask) for name, mask in self.groups.items()}
        found = {f'{self.group_by}_mAP_{name}': round(value, 3) for name, value in maps.items()}
        return {f'{self.group_by}_mAP': round(float(np.nanmean(list(maps.values()))), 3), **found}
