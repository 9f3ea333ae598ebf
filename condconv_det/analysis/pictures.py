"""Pictures of what detectors find beside what is there."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import mmcv
import numpy as np
import torch
from mmdet.visualization import DetLocalVisualizer
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch import nn
from torch.utils.data import Dataset

HEADING = 28  # pixels


class Visualizer(DetLocalVisualizer):
    """mmdet's visualizer, with scores as files and thresholds have them: 0.84, not 84.0.

    A palette of fewer colours than classes gives way to mmdet's random one.
    """

    def _draw_instances(
        self,
        image: np.ndarray,
        instances: InstanceData,
        classes: Sequence[str] | None,
        palette: Sequence[tuple] | None,
    ) -> np.ndarray:
        if isinstance(palette, list) and len(palette) < len(classes or ()):
            palette = 'random'  # for mmdet's CocoDataset has 80 colours, whatever its classes
        if 'scores' in instances:
            parts = dict(instances.items())
            names = [classes[label] if classes else f'class {label}' for label in instances.labels]
            scores = parts.pop('scores').tolist()
            # which mmdet draws as it is
            parts['label_names'] = [f'{name} {score:.2f}' for name, score in zip(names, scores)]
            instances = InstanceData(**parts)
        return super()._draw_instances(image, instances, classes, palette)


def heading(columns: Sequence[str], width: int) -> np.ndarray:
    """Names of equally wide columns, black on white, uint8 [HEADING, width, 3]."""
    row = np.full((HEADING, width, 3), 255, np.uint8)
    for index, name in enumerate(columns):
        place = (index * width // len(columns) + 6, HEADING - 9)
        cv2.putText(row, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return row


def draw_detections(
    models: Sequence[nn.Module],
    dataset: Dataset,
    out_dir: Path,
    num_pictures: int,
    score_thr: float = 0.3,
    names: Sequence[str] = (),
) -> list[Path]:
    """Draws images of a data set: one column of true boxes, one for what each detector finds.

    Args:
        models: detectors of mmdet with their data preprocessors, left to right.
        dataset: of mmdet; the boxes are those of its annotations.
        out_dir: gets one PNG an image, under the image's name; made if need be.
        num_pictures: from the first image on; no more than there are.
        score_thr: boxes that score less are not drawn.
        names: of the detectors, for a heading of `HEADING` pixels above; none without.
    """
    visualizer = Visualizer()
    visualizer.dataset_meta = dataset.metainfo
    out_dir.mkdir(parents=True, exist_ok=True)
    written = []
    for index in range(min(num_pictures, len(dataset))):
        columns = []
        for model in models:
            (sample,) = model.test_step(pseudo_collate([dataset[index]]))
            image = mmcv.imread(sample.img_path, channel_order='rgb')
            factor = -(-400 // image.shape[1])  # of small images, for readable labels
            image = mmcv.imrescale(image, factor, interpolation='nearest')
            # not the pipeline's, which scales them with the image, or does not, by its order
            true = dataset.get_data_info(index)['instances']
            sample.gt_instances = InstanceData(
                bboxes=torch.tensor([each['bbox'] for each in true]).view(-1, 4) * factor,
                labels=torch.tensor([each['bbox_label'] for each in true], dtype=torch.long),
            )
            sample.pred_instances.bboxes = sample.pred_instances.bboxes * factor
            for of_truth in (False,) if columns else (True, False):
                visualizer.add_datasample(
                    'column',
                    image,
                    sample,
                    draw_gt=of_truth,
                    draw_pred=not of_truth,
                    pred_score_thr=score_thr,
                )
                columns.append(visualizer.get_image())
        written.append(out_dir / f'{Path(sample.img_path).stem}.png')
        picture = np.concatenate(columns, axis=1)
        if names:
            picture = np.concatenate([heading(['true boxes', *names], picture.shape[1]), picture])
        mmcv.imwrite(picture[..., ::-1], str(written[-1]))
    return written
