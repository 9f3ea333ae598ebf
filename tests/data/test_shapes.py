import json
import runpy
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO

from condconv_det.data.shapes import (
    CLASSES,
    DIAMETERS,
    DOMAINS,
    MIN_VISIBLE,
    OBJECTS,
    make_shapes,
)

SPLITS = {'train': 60, 'val': 30, 'test': 30}
SIZE = 128
TOOL = Path(__file__).parents[2] / 'tools' / 'make_shapes.py'


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    path = tmp_path_factory.mktemp('shapes') / 'root'
    make_shapes(path, SPLITS, SIZE)
    return path


@pytest.fixture(scope='module', params=SPLITS)
def split(request):
    return request.param


@pytest.fixture(scope='module')
def coco(root, split):
    return COCO(root / 'annotations' / f'{split}.json')


def contents(root):
    return {p.relative_to(root): p.read_bytes() for p in root.rglob('*') if p.is_file()}


def pictures(root, split='train'):
    """Each image's domain, pixels and annotations."""
    coco = COCO(root / 'annotations' / f'{split}.json')
    for image in coco.imgs.values():
        yield (
            image['domain'],
            cv2.imread(str(root / split / image['file_name'])),
            coco.imgToAnns[image['id']],
        )


def test_same_arguments_give_same_bytes_whatever_the_order_of_splits(root, tmp_path):
    make_shapes(tmp_path / 'again', dict(reversed(SPLITS.items())), SIZE)
    again, first = contents(tmp_path / 'again'), contents(root)
    assert {k: v for k, v in again.items() if k.suffix == '.jpg'} == {
        k: v for k, v in first.items() if k.suffix == '.jpg'
    }
    assert again == first


def test_an_image_does_not_depend_on_how_many_there_are(root, tmp_path):
    make_shapes(tmp_path / 'few', {'val': 4}, SIZE)
    for path in sorted((tmp_path / 'few' / 'val').iterdir()):
        assert path.read_bytes() == (root / 'val' / path.name).read_bytes()


def test_some_looks_alone_take_turns(root, tmp_path):
    files = make_shapes(tmp_path / 'two', {'val': 3}, SIZE, domains=('night', 'fog'))
    images = json.loads(files['val'].read_text())['images']
    assert [image['domain'] for image in images] == ['night', 'fog', 'night']
    with pytest.raises(FileExistsError, match='night'):
        make_shapes(tmp_path / 'two', {'val': 3}, SIZE)


@pytest.mark.parametrize('domains', [(), ('night', 'night'), ('dawn',)])
def test_looks_are_of_those_there_are(tmp_path, domains):
    with pytest.raises(ValueError, match=r"domains must be some of \('daylight'"):
        make_shapes(tmp_path / 'root', {'val': 1}, SIZE, domains=domains)


def test_another_seed_gives_other_pictures(root, tmp_path):
    make_shapes(tmp_path / 'seed', {'val': 4}, SIZE, seed=1)
    for path in sorted((tmp_path / 'seed' / 'val').iterdir()):
        assert path.read_bytes() != (root / 'val' / path.name).read_bytes()


def test_no_picture_appears_twice(root):
    names = [path for path in contents(root) if path.suffix == '.jpg']
    assert len(names) == sum(SPLITS.values())
    assert len({(root / name).read_bytes() for name in names}) == len(names)


def test_returns_the_annotation_files(root):
    files = make_shapes(root, SPLITS, SIZE)
    assert files == {split: root / 'annotations' / f'{split}.json' for split in SPLITS}


def test_json_describes_the_images_on_disk(root, split, coco):
    assert len(coco.imgs) == SPLITS[split]
    for image in coco.imgs.values():
        pixels = cv2.imread(str(root / split / image['file_name']))
        assert pixels.shape == (image['height'], image['width'], 3) == (SIZE, SIZE, 3)


def test_every_split_has_every_class_in_every_domain(coco):
    assert [category['name'] for category in coco.cats.values()] == list(CLASSES)
    pairs = {
        (coco.imgs[a['image_id']]['domain'], coco.cats[a['category_id']]['name'])
        for a in coco.anns.values()
    }
    assert pairs == {(domain, name) for domain in DOMAINS for name in CLASSES}


def test_images_hold_as_many_objects_as_stated(coco):
    counts = Counter(len(coco.imgToAnns[image]) for image in coco.imgs)
    fewest, most = OBJECTS
    assert min(counts) == fewest and most - 2 <= max(counts) <= most


def test_boxes_lie_inside_the_image_and_are_tight_around_the_mask(coco):
    for annotation in coco.anns.values():
        x, y, width, height = annotation['bbox']
        assert 0 <= x < x + width <= SIZE and 0 <= y < y + height <= SIZE
        assert annotation['iscrowd'] == 0
        rows, columns = np.nonzero(coco.annToMask(annotation))
        mask_box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose([x, y, x + width, y + height], mask_box, atol=2)
        points = np.concatenate(annotation['segmentation']).reshape(-1, 2)
        ends = np.concatenate([points.min(axis=0), points.max(axis=0)])
        np.testing.assert_allclose([x, y, x + width, y + height], ends, atol=0.01)


def test_area_is_that_of_the_mask(coco):
    total = 0
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation).sum()
        # A hole belongs to the polygon but not to the area.
        assert annotation['area'] < 1.1 * mask + 10
        total += mask
    assert total == pytest.approx(sum(a['area'] for a in coco.anns.values()), rel=0.03)


def test_areas_are_of_visible_parts_which_share_no_pixel(coco):
    for image in coco.imgs:
        annotations = coco.imgToAnns[image]
        union = np.any([coco.annToMask(a) for a in annotations], axis=0).sum()
        assert sum(a['area'] for a in annotations) == pytest.approx(union, rel=0.08)


def test_boxes_fit_the_pixels(root):
    """Against the picture, not the annotation's own mask: by day, whatever is dark is an object."""
    checked = 0
    for domain, pixels, annotations in pictures(root):
        if domain != 'daylight':
            continue
        dark = pixels.max(axis=2) < 155
        for annotation in annotations:
            x, y, width, height = annotation['bbox']
            low = [max(0, int(x) - 4), max(0, int(y) - 4)]
            near = dark[low[1] : int(y + height) + 5, low[0] : int(x + width) + 5]
            others = any(
                a is not annotation
                and a['bbox'][0] < x + width + 8
                and x < a['bbox'][0] + a['bbox'][2] + 8
                and a['bbox'][1] < y + height + 8
                and y < a['bbox'][1] + a['bbox'][3] + 8
                for a in annotations
            )
            if others:
                continue
            checked += 1
            rows, columns = np.nonzero(near)
            found = [
                columns.min() + low[0],
                rows.min() + low[1],
                columns.max() + 1 + low[0],
                rows.max() + 1 + low[1],
            ]
            # One pixel of blur from JPEG, one where a sharp corner is fainter than half covered.
            np.testing.assert_allclose([x, y, x + width, y + height], found, atol=2)
    assert checked >= 5


def test_some_objects_overlap_and_some_are_cut_by_the_border(coco):
    overlapping = cut = 0
    for image in coco.imgs:
        boxes = [a['bbox'] for a in coco.imgToAnns[image]]
        for i, (x, y, width, height) in enumerate(boxes):
            cut += x == 0 or y == 0 or x + width == SIZE or y + height == SIZE
            overlapping += any(
                u < x + width and x < u + w and v < y + height and y < v + h
                for u, v, w, h in boxes[:i]
            )
    assert overlapping > 0.1 * len(coco.anns)
    assert cut > 0.1 * len(coco.anns)


def test_hidden_objects_are_left_out(coco):
    # The smallest shape for its diameter is the star, of area 0.31 d^2.
    smallest = 0.3 * (DIAMETERS[0] * SIZE) ** 2 * MIN_VISIBLE
    assert min(a['area'] for a in coco.anns.values()) > 0.9 * smallest
    assert max(max(a['bbox'][2:]) for a in coco.anns.values()) <= (DIAMETERS[1] + 0.01) * SIZE + 1


def test_domains_differ_in_light_contrast_and_colour(root):
    statistics = {domain: [] for domain in DOMAINS}
    for domain, pixels, _ in pictures(root):
        grey = cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY).astype(np.float32)
        saturation = cv2.cvtColor(pixels, cv2.COLOR_BGR2HSV)[..., 1].mean()
        detail = np.abs(cv2.Laplacian(grey, cv2.CV_32F)).mean()
        statistics[domain].append([grey.mean(), grey.std(), saturation, detail])
    mean, contrast, saturation, detail = np.mean([statistics[d] for d in DOMAINS], axis=1).T
    by = dict(zip(DOMAINS, range(len(DOMAINS)), strict=True))
    assert mean[by['night']] < 50 < 170 < min(mean[by[d]] for d in ('daylight', 'sketch', 'fog'))
    assert contrast[by['fog']] < 0.5 * contrast[by['daylight']]
    assert saturation[by['thermal']] > 200 > 3 * saturation[by['fog']]
    assert detail[by['textile']] > 2 * detail[by['daylight']]


def test_objects_differ_from_their_background_in_every_domain(root):
    """Its clearest pixels, the line of an outlined one, stand out from the picture's rest."""
    coco = COCO(root / 'annotations' / 'train.json')
    for image in coco.imgs.values():
        pixels = cv2.imread(str(root / 'train' / image['file_name'])).astype(np.float32)
        masks = [coco.annToMask(a) for a in coco.imgToAnns[image['id']]]
        background = pixels[np.sum(masks, axis=0) == 0]
        spread = background.std(axis=0).mean()
        for mask in masks:
            distance = np.abs(pixels[mask > 0] - np.median(background, axis=0)).max(axis=1)
            assert np.percentile(distance, 95) > max(15, 1.2 * spread), image


def test_a_complete_folder_is_reused(tmp_path):
    files = make_shapes(tmp_path / 'root', {'val': 3}, 64)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / 'root').rglob('*')}
    assert make_shapes(tmp_path / 'root', {'val': 3}, 64) == files
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / 'root').rglob('*')} == before
    assert [path.name for path in tmp_path.iterdir()] == ['root']


def test_an_empty_folder_is_filled(tmp_path):
    make_shapes(tmp_path, {'val': 2}, 64)
    assert len(list((tmp_path / 'val').iterdir())) == 2


def test_a_link_to_an_empty_folder_stays_one(tmp_path):
    (tmp_path / 'disk').mkdir()
    (tmp_path / 'shapes').symlink_to(tmp_path / 'disk')
    make_shapes(tmp_path / 'shapes', {'val': 2}, 64)
    assert (tmp_path / 'shapes').is_symlink()
    assert len(list((tmp_path / 'disk' / 'val').iterdir())) == 2


@pytest.mark.parametrize(
    'other', [{'seed': 1}, {'size': 65}, {'splits': {'val': 2}}, {'splits': {'test': 3}}]
)
def test_other_contents_are_not_overwritten(tmp_path, other):
    make_shapes(tmp_path / 'root', {'val': 3}, 64)
    before = contents(tmp_path / 'root')
    with pytest.raises(FileExistsError, match='root'):
        make_shapes(tmp_path / 'root', **{'splits': {'val': 3}, 'size': 64, **other})
    assert contents(tmp_path / 'root') == before


def test_a_folder_of_somebody_elses_is_not_overwritten(tmp_path):
    (tmp_path / 'notes.txt').write_text('mine')
    with pytest.raises(FileExistsError, match='not a complete shapes data set'):
        make_shapes(tmp_path, {'val': 2}, 64)
    with pytest.raises(FileExistsError, match='found a file'):
        make_shapes(tmp_path / 'notes.txt', {'val': 2}, 64)
    assert contents(tmp_path) == {Path('notes.txt'): b'mine'}


def test_a_folder_that_lacks_an_image_is_named(tmp_path):
    make_shapes(tmp_path / 'root', {'val': 3}, 64)
    (tmp_path / 'root' / 'val' / '000001.jpg').unlink()
    with pytest.raises(FileExistsError, match=r"lacks 1 of the 3 images of 'val'.*000001.jpg"):
        make_shapes(tmp_path / 'root', {'val': 3}, 64)


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'size': 63}, 'size must be an integer of at least 64 pixels, found 63'),
        ({'size': 64.0}, 'found 64.0'),
        ({'splits': {'val': -1}}, "split 'val' needs an image count of at least 1, found -1"),
        ({'splits': {'val': 0}}, 'found 0'),
        ({'splits': {}}, 'at least one split'),
        ({'splits': {'../up': 2}}, 'plain word'),
        ({'splits': {'annotations': 2}}, 'plain word'),
        ({'seed': -1}, 'seed must be an integer of at least 0, found -1'),
    ],
)
def test_bad_arguments_raise_one_error_and_write_nothing(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_shapes(tmp_path / 'root', **arguments)
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(json, 'dumps', lambda *args, **kwargs: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        make_shapes(tmp_path / 'root', {'val': 2}, 64)
    assert not list(tmp_path.iterdir())


def test_tool_says_what_it_made_and_where(tmp_path, monkeypatch, capsys):
    out = tmp_path / 'root'
    counts = ['--train', '6', '--val', '6', '--test', '6', '--size', '64']
    monkeypatch.setattr(sys, 'argv', ['make_shapes.py', str(out), *counts])
    runpy.run_path(str(TOOL), run_name='__main__')
    said = capsys.readouterr().out
    assert f'train: 6 images in {out / "train"}' in said
    assert f'boxes in {out / "annotations" / "test.json"}' in said
    for word in [*CLASSES, *DOMAINS]:
        assert f'{word} ' in said
    sys.argv += ['--seed', '1']
    with pytest.raises(SystemExit, match=f'^error: .*{out}'):
        runpy.run_path(str(TOOL), run_name='__main__')
