import mmcv
import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData

from condconv_det.analysis.pictures import HEADING, Visualizer, draw_detections

SIDE, FACTOR = 100, 4  # enlarged to at least 400 pixels
TRUE, FOUND = [10.0, 20.0, 40.0, 60.0], [50.0, 50.0, 90.0, 80.0]


class Detector:
    """Finds one box, with this score; its pipeline halved the image and left the true boxes out."""

    def __init__(self, path, score):
        self.path, self.score = str(path), score

    def test_step(self, batch):
        sample = DetDataSample(metainfo=dict(img_path=self.path, scale_factor=(0.5, 0.5)))
        sample.pred_instances = InstanceData(
            bboxes=torch.tensor([FOUND]),
            labels=torch.tensor([0]),
            scores=torch.tensor([self.score]),
        )
        return [sample]


class OneImage(list):
    metainfo = dict(classes=('cat',), palette=[(255, 0, 0)])

    def get_data_info(self, index):
        return dict(instances=[dict(bbox=TRUE, bbox_label=0)])


def drawn(picture, box):
    """Whether the right side of a box in the file's pixels has been drawn."""
    row, column = int((box[1] + box[3]) / 2 * FACTOR), int(box[2] * FACTOR)
    return bool((picture[row, column - 2 : column + 3] != 128).any())


def test_the_first_column_is_the_truth_and_each_detector_has_one(tmp_path):
    path = tmp_path / 'grey.png'
    mmcv.imwrite(np.full((SIDE, SIDE, 3), 128, np.uint8), str(path))
    detectors = [Detector(path, score) for score in (0.9, 0.1, 0.8)]
    dataset = OneImage([dict(inputs=0)])
    (written,) = draw_detections(detectors, dataset, tmp_path / 'out', num_pictures=5)
    assert written == tmp_path / 'out' / 'grey.png'
    picture = mmcv.imread(str(written))
    columns = np.split(picture, 4, axis=1)
    assert columns[0].shape == (FACTOR * SIDE, FACTOR * SIDE, 3)
    assert [drawn(column, TRUE) for column in columns] == [True, False, False, False]
    assert [drawn(column, FOUND) for column in columns] == [False, True, False, True]


def test_names_stand_above_the_columns(tmp_path):
    path = tmp_path / 'grey.png'
    mmcv.imwrite(np.full((SIDE, SIDE, 3), 128, np.uint8), str(path))
    models, dataset = [Detector(path, 0.9)], OneImage([dict(inputs=0)])
    (plain,) = draw_detections(models, dataset, tmp_path / 'plain', num_pictures=1)
    (named,) = draw_detections(models, dataset, tmp_path / 'named', num_pictures=1, names=['mine'])
    above, below = np.split(mmcv.imread(str(named)), [HEADING])
    assert (below == mmcv.imread(str(plain))).all()
    written = [(column < 128).any() for column in np.split(above, 2, axis=1)]
    assert written == [True, True] and (above == 255).mean() > 0.9


def test_labels_have_scores_as_files_and_thresholds_have_them(monkeypatch):
    written = []
    monkeypatch.setattr(
        Visualizer, 'draw_texts', lambda self, text, *args, **kwargs: written.append(text)
    )
    visualizer = Visualizer()
    visualizer.dataset_meta = OneImage.metainfo
    sample = DetDataSample()
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor([TRUE, FOUND]),
        labels=torch.tensor([0, 0]),
        scores=torch.tensor([0.8449, 0.4]),
    )
    visualizer.add_datasample('', np.zeros((SIDE, SIDE, 3), np.uint8), sample, draw_gt=False)
    assert written == ['cat 0.84', 'cat 0.40']
    assert len(sample.pred_instances.scores) == 2


def test_a_palette_may_have_fewer_colours_than_classes():
    visualizer = Visualizer()
    # as a CocoDataset's, whose palette has 80 colours, of a set with more classes
    visualizer.dataset_meta = dict(classes=('cat', 'dog'), palette=[(255, 0, 0)])
    sample = DetDataSample()
    sample.pred_instances = InstanceData(
        bboxes=torch.tensor([FOUND]), labels=torch.tensor([1]), scores=torch.tensor([0.9])
    )
    black = np.zeros((SIDE, SIDE, 3), np.uint8)
    visualizer.add_datasample('', black, sample, draw_gt=False)
    assert visualizer.get_image().any()
