import json

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric

from condconv_det.analysis.groups import image_groups
from condconv_det.engine import GroupedCocoMetric

SITES = ['a', 'b', 'a', 'b']
CLASSES = ('cat', 'dog')
# of each image: boxes' classes
TRUE = [['cat'], ['dog'], ['cat', 'cat'], ['dog', 'cat']]
BOX = [10.0, 10.0, 30.0, 40.0]  # x, y, width, height


@pytest.fixture
def ann_file(tmp_path):
    images = [
        dict(id=7 - i, file_name=f'{i}.jpg', width=100, height=100, site=site)
        for i, site in enumerate(SITES)
    ]
    boxes = [
        dict(image_id=7 - i, category_id=CLASSES.index(name) + 1, bbox=[BOX[0] + 45 * n, *BOX[1:]])
        for i, names in enumerate(TRUE)
        for n, name in enumerate(names)
    ]
    path = tmp_path / 'coco.json'
    path.write_text(
        json.dumps(
            dict(
                images=images,
                annotations=[dict(b, id=n, iscrowd=0, area=1200) for n, b in enumerate(boxes, 1)],
                categories=[dict(id=n, name=name) for n, name in enumerate(CLASSES, 1)],
            )
        )
    )
    return str(path)


def evaluate(metric, found, height=BOX[3]):
    """Boxes at the place of each image's first one: its classes and scores."""
    metric.dataset_meta = dict(classes=CLASSES)
    for index, labels in enumerate(found):
        corners = torch.tensor([BOX[0], BOX[1], BOX[0] + BOX[2], BOX[1] + height])
        prediction = dict(
            bboxes=corners.repeat(len(labels), 1),
            scores=torch.linspace(0.9, 0.5, len(labels)),
            labels=torch.tensor([CLASSES.index(label) for label in labels], dtype=torch.long),
        )
        metric.process(
            {}, [dict(img_id=7 - index, ori_shape=(100, 100), pred_instances=prediction)]
        )
    return metric.evaluate(len(found))


def test_each_group_is_scored_on_its_own_images_with_its_own_classes(ann_file):
    # a: one of three cats is not found; b: the dogs are found, after a cat that is none
    metrics = evaluate(
        GroupedCocoMetric(ann_file, group_by='site'),
        [['cat'], ['cat', 'dog'], ['cat'], ['dog']],
    )
    of_a = 67 / 101  # precision 1 up to a recall of 2/3
    of_b = (0 + 1) / 2  # cats: none is found; dogs: both
    assert metrics['coco/site_mAP_a'] == pytest.approx(of_a, abs=1e-3)
    assert metrics['coco/site_mAP_b'] == pytest.approx(of_b, abs=1e-3)
    assert metrics['coco/site_mAP'] == pytest.approx((of_a + of_b) / 2, abs=1e-3)
    assert 0 < metrics['coco/bbox_mAP'] < 1


def test_where_nothing_is_detected_there_are_no_figures_as_with_mmdets_metric(ann_file):
    metric = GroupedCocoMetric(ann_file, group_by='site')
    assert evaluate(metric, [[]] * 4) == evaluate(CocoMetric(ann_file), [[]] * 4) == {}


def test_results_stay_where_they_are_asked_for(ann_file, tmp_path):
    metric = GroupedCocoMetric(ann_file, group_by='site', outfile_prefix=str(tmp_path / 'found'))
    evaluate(metric, [['cat'], ['dog'], ['cat'], ['dog']])
    assert len(json.loads((tmp_path / 'found.bbox.json').read_text())) == 4


def test_groups_are_by_name_and_images_by_id(ann_file):
    groups = image_groups(ann_file, 'site')
    assert list(groups) == ['a', 'b']
    np.testing.assert_array_equal(groups['a'], [0, 1, 0, 1])


def test_images_without_the_key_are_named(ann_file):
    with pytest.raises(ValueError, match=r"key 'camera', image 4 \(3.jpg\) has \['file_name', "):
        GroupedCocoMetric(ann_file, group_by='camera')


def test_groups_have_the_iou_thresholds_of_the_whole(ann_file):
    found = [['cat'], ['cat', 'dog'], ['cat'], ['dog']]
    whole = evaluate(GroupedCocoMetric(ann_file, group_by='site'), found)
    metric = GroupedCocoMetric(ann_file, group_by='site', iou_thrs=np.array([0.5, 0.7]))
    loose = evaluate(metric, found, height=0.75 * BOX[3])
    assert loose['coco/bbox_mAP'] == whole['coco/bbox_mAP']
    assert loose['coco/site_mAP'] == whole['coco/site_mAP']


def test_groups_are_scored_by_boxes_alone(ann_file):
    with pytest.raises(ValueError, match=r"must be 'bbox' or have it, got \['segm'\]"):
        GroupedCocoMetric(ann_file, group_by='site', metric='segm')
