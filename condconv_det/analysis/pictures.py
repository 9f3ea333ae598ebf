"""Pictures of what a detector finds beside what is there."""

from pathlib import Path

import mmcv
from mmdet.visualization import DetLocalVisualizer
from mmengine.dataset import pseudo_collate
from torch import nn
from torch.utils.data import Dataset


def draw_detections(
    model: nn.Module,
    dataset: Dataset,
    out_dir: Path,
    num_pictures: int,
    score_thr: float = 0.3,
    min_width: int = 400,
) -> list[Path]:
    """Draws images of a data set with their true boxes left and the detected ones right.

    Args:
        model: a detector of mmdet with its data preprocessor.
        dataset: its pipeline loads annotations.
        out_dir: gets one PNG an image, under the image's name; made if need be.
        num_pictures: from the first image on; no more than there are.
        score_thr: boxes that score less are not drawn.
        min_width: smaller images are enlarged by a whole factor, for readable labels; pixels.
    """
    visualizer = DetLocalVisualizer()
    visualizer.dataset_meta = dataset.metainfo
    out_dir.mkdir(parents=True, exist_ok=True)
    written = []
    for index in range(min(num_pictures, len(dataset))):
        (sample,) = model.test_step(pseudo_collate([dataset[index]]))
        image = mmcv.imread(sample.img_path, channel_order='rgb')
        factor = -(-min_width // image.shape[1])
        image = mmcv.imrescale(image, factor, interpolation='nearest')
        # The pipeline scales true boxes with the image; detections are in the file's own pixels.
        width_scale, height_scale = sample.scale_factor
        true_boxes = sample.gt_instances.bboxes.cpu()
        sample.gt_instances.bboxes = (
            true_boxes * factor / true_boxes.new_tensor([width_scale, height_scale] * 2)
        )
        sample.pred_instances.bboxes = sample.pred_instances.bboxes * factor
        out_file = out_dir / f'{Path(sample.img_path).stem}.png'
        visualizer.add_datasample(
            out_file.stem, image, sample, pred_score_thr=score_thr, out_file=str(out_file)
        )
        written.append(out_file)
    return written
