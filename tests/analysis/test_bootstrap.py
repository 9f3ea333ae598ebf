"""The bootstrap, against COCOeval on annotations that hold the drawn images as often as drawn."""

import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from condconv_det.analysis.bootstrap import (
    difference_interval,
    match_detections,
    mean_average_precision,
    mean_over_groups,
    resample_maps,
)

NUM_IMAGES = 14
CLASSES = ('cell', 'plate', 'rare', 'never seen')


def boxes_of(rng, count):
    return np.concatenate([rng.uniform(0, 60, (count, 2)), rng.uniform(8, 50, (count, 2))], 1)


@pytest.fixture
def truth():
    """Annotations, among them crowds, small boxes, an image with none and a class with none."""
    rng = np.random.default_rng(0)
    annotations = []
    for image_id in range(10, 10 + NUM_IMAGES - 1):
        for box in boxes_of(rng, rng.integers(1, 6)):
            category = 3 if image_id == 12 else int(rng.integers(1, 3))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=category,
                    bbox=box.tolist(),
                    area=float(box[2] * box[3]),
                    iscrowd=int(rng.random() < 0.1),
                )
            )
    return dict(
        images=[dict(id=10 + i, width=128, height=128) for i in range(NUM_IMAGES)],
        annotations=annotations,
        categories=[dict(id=1 + i, name=name) for i, name in enumerate(CLASSES)],
    )


def detect(truth, seed):
    """Boxes near the true ones and some that are not, more of them than count for one image."""
    rng = np.random.default_rng(seed)
    results = []
    for true in truth['annotations']:
        for _ in range(2):
            category = true['category_id'] if rng.random() < 0.8 else int(rng.integers(1, 5))
            near = np.array(true['bbox']) + rng.normal(0, 3, 4)
            results.append((true['image_id'], category, near.clip(1), rng.random()))
    for image in truth['images']:
        results += [(image['id'], 1, box, 0.3 * rng.random()) for box in boxes_of(rng, 105)]
    return [
        dict(image_id=i, category_id=c, bbox=list(map(float, b)), score=float(s))
        for i, c, b, s in results
    ]


@pytest.fixture
def written(truth, tmp_path):
    """The annotation file, and those of two detectors' results."""
    paths = [tmp_path / name for name in ('truth.json', 'one.json', 'other.json')]
    for path, content in zip(paths, (truth, detect(truth, 1), detect(truth, 2))):
        path.write_text(json.dumps(content))
    return paths


def coco_eval(truth, results):
    """mAP by pycocotools alone."""
    coco = COCO()
    coco.dataset = truth
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(results), 'bbox')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation.stats[0]


def repeated(truth, results, times):
    """Annotations and results with each image as often as it was drawn, under ids of their own."""
    images, annotations, found = [], [], []
    for image, count in zip(truth['images'], times):
        for _ in range(count):
            new = dict(image, id=1000 + len(images))
            images.append(new)
            for target, source in ((annotations, truth['annotations']), (found, results)):
                for entry in source:
                    if entry['image_id'] == image['id']:
                        target.append(dict(entry, image_id=new['id']))
    annotations = [dict(entry, id=number) for number, entry in enumerate(annotations, 1)]
    return dict(truth, images=images, annotations=annotations), found


def test_of_all_images_once_it_is_coco_evals(truth, written):
    matches = match_detections(*written[:2])
    expected = coco_eval(truth, detect(truth, 1))
    assert 0.1 < expected < 0.9
    once = np.ones(NUM_IMAGES, int)
    assert mean_average_precision(matches, once) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize('seed', range(4))
def test_of_a_resample_it_is_coco_evals_of_repeated_images(truth, written, seed):
    drawn = np.random.default_rng(seed).integers(NUM_IMAGES, size=NUM_IMAGES)
    times = np.bincount(drawn, minlength=NUM_IMAGES)
    assert times.max() > 1 and times.min() == 0
    expected = coco_eval(*repeated(truth, detect(truth, 1), times))
    found = mean_average_precision(match_detections(*written[:2]), times)
    assert found == pytest.approx(expected, abs=1e-12)


def test_classes_that_do_not_count_are_left_out(truth, written):
    matches = match_detections(*written[:2], classes=CLASSES[:2])
    assert len(matches) == 2
    results = [result for result in detect(truth, 1) if result['category_id'] < 3]
    annotations = [entry for entry in truth['annotations'] if entry['category_id'] < 3]
    some = dict(truth, annotations=annotations, categories=truth['categories'][:2])
    found = mean_average_precision(matches, np.ones(NUM_IMAGES, int))
    assert found == pytest.approx(coco_eval(some, results), abs=1e-12)


def test_a_detector_that_finds_nothing_has_none(written, tmp_path):
    nothing = tmp_path / 'nothing.json'
    nothing.write_text('[]')
    matches = match_detections(written[0], nothing)
    assert mean_average_precision(matches, np.ones(NUM_IMAGES, int)) == 0


def test_without_true_boxes_there_is_no_map(written):
    times = np.zeros(NUM_IMAGES, int)
    times[-1] = 3  # the image without boxes
    assert np.isnan(mean_average_precision(match_detections(*written[:2]), times))


def test_all_detectors_see_the_same_resamples(written):
    one, other = (match_detections(written[0], path) for path in written[1:])
    maps = resample_maps([one, other, one], 20, seed=3)
    assert np.array_equal(maps[0], maps[2]) and not np.array_equal(maps[0], maps[1])
    assert maps.shape == (3, 1, 20) and len(set(maps[0, 0])) == 20
    assert np.array_equal(resample_maps([one, other, one], 20, seed=3), maps)
    assert not np.array_equal(resample_maps([one, other, one], 20, seed=4), maps)


def test_groups_of_images_are_measured_on_the_same_resamples(written):
    matches = match_detections(*written[:2])
    first = (np.arange(NUM_IMAGES) < 4).astype(int)
    of_all, of_none, of_first = resample_maps(
        [matches], 20, groups=[np.ones(NUM_IMAGES, int), 0 * first, first]
    )[0]
    assert np.array_equal(of_all, resample_maps([matches], 20)[0, 0])
    assert np.isnan(of_none).all() and not np.array_equal(of_first, of_all)


def test_the_mean_over_groups_is_of_those_with_boxes():
    nan = np.nan
    maps = np.array([[0.2, nan, nan], [0.4, 0.6, nan]])
    assert mean_over_groups(maps) == pytest.approx(np.array([0.3, 0.6, nan]), nan_ok=True)
    assert mean_over_groups([0.2, nan]) == 0.2


def test_the_interval_of_one_seed_is_that_of_the_differences():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(size=(2, 1, 1000))
    low, high = difference_interval(ours, theirs)
    assert (low, high) == pytest.approx(np.quantile(ours - theirs, [0.025, 0.975]))


def test_seeds_are_resampled_in_pairs():
    # whatever is drawn, each seed is a tenth better than its twin
    theirs = np.array([0.1, 0.5, 0.9])[:, None] + np.zeros(1000)
    low, high = difference_interval(theirs + 0.1, theirs)
    assert (low, high) == pytest.approx((0.1, 0.1))


def test_the_interval_covers_images_and_seeds():
    rng = np.random.default_rng(0)
    images = rng.normal(0, 0.03, 20000)  # what a draw of images does to all seeds alike
    seeds = 0.04 * np.array([-1.0, 1.0, -1.0, 1.0])[:, None]
    low, high = difference_interval(images + seeds, np.zeros((4, 20000)))
    deviation = (0.03**2 + 0.04**2 / 4) ** 0.5  # of a mean over four that are drawn
    assert (low, high) == pytest.approx((-1.96 * deviation, 1.96 * deviation), rel=0.05)
