"""Images dealt out to train, val and test."""

import tracemalloc
from collections import Counter

import cv2
import numpy as np
import pytest

from condconv_det.data.splits import deal, groups_of, near_duplicates, split_images, thumbnail

RATIOS = {'train': 0.7, 'val': 0.15, 'test': 0.15}


def dealt(groups, seed=0, boxed=None, **ratios):
    boxed = np.ones(len(groups), bool) if boxed is None else boxed
    return deal(groups, boxed, RATIOS | ratios, seed)


def pictures(count, seed=0):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (count, 6, 8, 3), dtype=np.uint8)
    return [cv2.resize(pixels, (320, 240), interpolation=cv2.INTER_CUBIC) for pixels in coarse]


def recompressed(pixels, quality=30, scale=0.5):
    small = cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    _, content = cv2.imencode('.jpg', small, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(content, cv2.IMREAD_COLOR)


def numbered(images):
    return near_duplicates(np.stack([thumbnail(pixels) for pixels in images])).tolist()


def test_a_copy_of_another_size_and_compression_or_brightness_is_a_near_duplicate():
    first, second, third = pictures(3)
    darker = (0.7 * third).astype(np.uint8)
    found = numbered([first, second, third, recompressed(second), darker])
    assert found[3] == found[1] and found[4] == found[2] and len(set(found)) == 3


def test_a_turned_or_another_image_is_none_and_neither_are_images_of_one_colour():
    first, second = pictures(2)
    plain = np.full_like(first, 200)
    assert len(set(numbered([first, second, first[:, ::-1], plain, plain // 2]))) == 5


def test_images_are_alike_by_way_of_a_third_and_in_any_number():
    # more than are compared at a time, each unlike the next but one
    noise = np.random.default_rng(0).normal(size=(1500, 576)).astype(np.float32)
    chain = cv2.GaussianBlur(noise, (1, 61), sigmaX=1, sigmaY=6)
    assert len(set(near_duplicates(chain, 0.97).tolist())) == 1
    assert len(set(near_duplicates(chain[::10], 0.97).tolist())) == 150
    assert len(set(near_duplicates(chain, 2.0).tolist())) == 1500


def test_many_alike_images_are_found_in_bounded_memory():
    rng = np.random.default_rng(0)
    thumbnails = rng.normal(size=(2, 1, 576)) + 0.01 * rng.normal(size=(2, 2000, 576))
    thumbnails = thumbnails.astype(np.float32).reshape(4000, 576)
    tracemalloc.start()
    found = near_duplicates(thumbnails)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.tolist() == [0] * 2000 + [1] * 2000
    assert peak < 100 * 2**20  # all pairs at once take 567


def test_copies_of_one_image_and_images_of_one_site_stay_together():
    names = ['a/1.rf.0f.jpg', 'b/1.rf.1e.jpg', 'a/1.jpg', 'c/2.jpg', 'd/3.jpg', 'd/4.jpg']
    images = [dict(file_name=name, site=site) for name, site in zip(names, 'nnswen')]
    thumbnails = np.random.default_rng(0).normal(size=(6, 576))

    def together(key):
        return sorted(Counter(groups_of(images, thumbnails, 0.98, key).tolist()).values())

    assert together(None) == [1, 1, 1, 1, 2]
    assert together('site') == [1, 1, 1, 3]
    assert together('folder') == [1, 2, 3]
    with pytest.raises(ValueError, match="6 of 6 images have no 'day' .* first a/1.rf.0f.jpg; all"):
        groups_of(images, thumbnails, 0.98, 'day')


def test_parts_are_as_asked_the_same_each_time_and_others_for_another_seed():
    found = dealt(np.arange(110))
    assert Counter(found) == {'train': 77, 'val': 17, 'test': 16}
    assert found == dealt(np.arange(110)) != dealt(np.arange(110), seed=1)
    assert Counter(dealt(np.arange(110), train=0.3))['train'] == 55


def test_a_group_is_never_parted():
    groups = np.repeat(np.arange(20), np.arange(20) + 1)
    found = dealt(groups, seed=3)
    assert all(len(set(np.array(found)[groups == group])) == 1 for group in range(20))
    counts = Counter(found)
    assert all(abs(counts[split] - ratio * 210) <= 10 for split, ratio in RATIOS.items())


def test_every_split_gets_a_group_if_there_are_three():
    assert set(dealt(np.repeat(np.arange(4), 3))) == set(RATIOS)
    found = dealt(np.array([0] * 8 + [1, 2]))
    assert found[:8] == ['train'] * 8 and set(found[8:]) == {'val', 'test'}
    with pytest.raises(ValueError, match='9 images in 2 groups of .* and test; `--alike 2` takes'):
        dealt(np.array([0] * 8 + [1]))


def test_images_with_boxes_are_dealt_out_evenly_and_so_are_those_without():
    boxed = np.arange(100) < 7
    found = dealt(np.arange(100), boxed=boxed)
    assert Counter(found[:7]) == {'train': 5, 'val': 1, 'test': 1}
    assert Counter(found) == {'train': 70, 'val': 15, 'test': 15}
    with pytest.raises(ValueError, match='^2 images with boxes cannot .* and test: 3 are needed$'):
        dealt(np.arange(100), boxed=np.arange(100) < 2)


def test_splits_of_the_source_are_kept_and_the_third_is_dealt_out_of_train():
    groups = np.arange(40)
    own = ['train'] * 30 + ['val'] * 6 + ['test'] * 4
    assert split_images(own, groups, groups >= 0, RATIOS, 0) == own
    own = ['train'] * 34 + ['val'] * 6
    found = split_images(own, groups, groups >= 0, RATIOS, 0)
    assert found[34:] == ['val'] * 6 and Counter(found[:34]) == {'train': 28, 'test': 6}


@pytest.mark.parametrize(
    'own', [[None] + ['train', 'val'] * 20, ['val', 'test'] * 20, ['train'] * 40]
)
def test_splits_that_are_not_whole_are_dealt_anew(own):
    groups = np.arange(len(own))
    assert split_images(own, groups, groups >= 0, RATIOS, 0) == dealt(groups)
