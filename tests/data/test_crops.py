import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image

from condconv_det.data.crops import RECORD, crop_objects
from condconv_det.data.shapes import make_shapes

TOOL = Path(__file__).parents[2] / 'tools' / 'dataset_converters' / 'crop_objects.py'
WIDTH, HEIGHT = 60, 40
# Five grey levels a pixel tell columns and rows apart, and JPEG at a quality of 95 keeps them.
ACROSS = np.tile(np.arange(WIDTH, dtype=np.uint8) * 4, (HEIGHT, 1))
DOWN = np.tile(np.arange(HEIGHT, dtype=np.uint8)[:, None] * 5, (1, WIDTH))
JPEG_ERROR = 1.9


class Coco:
    """A small COCO data set, written image by image."""

    def __init__(self, root):
        self.root = root
        (root / 'images').mkdir(parents=True)
        self.categories = [dict(id=3, name='dog'), dict(id=7, name='cat')]
        self.images, self.annotations = [], []

    def image(self, name, pixels=ACROSS, **entry):
        path = self.root / 'images' / name
        path.parent.mkdir(exist_ok=True)
        if pixels is not None:
            Image.fromarray(pixels).save(path)
        size = dict(width=WIDTH, height=HEIGHT)
        self.images.append(dict(id=len(self.images) + 1, file_name=name, **{**size, **entry}))
        return path

    def box(self, *box, category=7, **entry):
        annotation = dict(
            id=len(self.annotations) + 11,
            image_id=len(self.images),
            category_id=category,
            bbox=list(box),
        )
        self.annotations.append({**annotation, **entry})

    def json(self, split='train'):
        path = self.root / f'{split}.json'
        keys = ('images', 'annotations', 'categories')
        path.write_text(json.dumps({key: getattr(self, key) for key in keys}))
        return path

    def crop(self, **arguments):
        return crop_objects(
            self.json(), self.root / 'images', self.root / 'crops', **{'min_size': 0, **arguments}
        )


@pytest.fixture
def coco(tmp_path):
    coco = Coco(tmp_path)
    coco.image('good.png')
    coco.box(4, 6, 20, 10)
    coco.image('other.png')
    coco.box(1, 2, 3, 4, category=3)
    return coco


def files(root):
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob('*') if p.is_file()}


def kinds(done):
    return [(fault.kind, fault.where) for fault in done.faults]


def read(path):
    return cv2.imread(str(path), cv2.IMREAD_GRAYSCALE).astype(float)


def test_each_box_is_a_file_named_after_its_class_image_and_annotation(coco):
    done = coco.crop()
    assert done.folder == coco.root / 'crops' / 'train'
    assert set(files(done.folder)) == {'cat/good_11.jpg', 'dog/other_12.jpg', RECORD}
    assert (done.crops, done.left_out, done.faults) == ({'dog': 1, 'cat': 1}, {}, [])


@pytest.mark.parametrize('pixels', [ACROSS, DOWN], ids=['columns', 'rows'])
@pytest.mark.parametrize(
    'box, margin, window',
    [
        ((4, 6, 20, 10), 0.0, np.s_[6:16, 4:24]),
        ((4.7, 6.9, 19.5, 9.3), 0.0, np.s_[6:17, 4:25]),  # every pixel that the box touches
        ((20, 15, 20, 10), 0.25, np.s_[12:28, 15:45]),
        ((2, 1, 20, 10), 0.25, np.s_[0:14, 0:27]),  # the margin ends at the border
        ((45, 30, 14, 9), 0.5, np.s_[25:40, 38:60]),
        ((-5, -5, 20, 20), 0.0, np.s_[0:15, 0:15]),
        ((50, 30, 20, 20), 0.0, np.s_[30:40, 50:60]),
    ],
)
def test_a_crop_has_the_pixels_of_its_box_and_margin(tmp_path, pixels, box, margin, window):
    coco = Coco(tmp_path)
    coco.image('a.png', pixels)
    coco.box(*box)
    crop = read(coco.crop(margin=margin).folder / 'cat' / 'a_11.jpg')
    assert crop.shape == pixels[window].shape
    assert abs(crop - pixels[window]).max() < JPEG_ERROR


def test_a_photograph_on_its_side_is_cropped_upright_and_in_its_colours(tmp_path):
    coco = Coco(tmp_path)
    blue_left = np.zeros((WIDTH, HEIGHT, 3), np.uint8)
    blue_left[:30] = 0, 0, 255
    exif = Image.Exif()
    exif[0x0112] = 8  # turned by a quarter: the file's upper half is the left half seen
    path = coco.image('photo.jpg', None)
    Image.fromarray(blue_left).save(path, exif=exif, quality=95)
    seen = cv2.imread(str(path))
    coco.images[0].update(width=seen.shape[1], height=seen.shape[0])
    coco.box(5, 5, 50, 30)
    crop = cv2.imread(str(coco.crop().folder / 'cat' / 'photo_11.jpg'))
    assert crop.shape == (30, 50, 3)
    assert abs(crop.astype(int) - seen[5:35, 5:55]).mean() < JPEG_ERROR


def test_grey_levels_of_16_bits_are_those_that_mmdet_loads(tmp_path):
    coco = Coco(tmp_path)
    path = coco.image('scan.png', None)
    cv2.imwrite(str(path), ACROSS.astype(np.uint16) * 256)
    coco.box(4, 6, 20, 10)
    crop = read(coco.crop().folder / 'cat' / 'scan_11.jpg')
    assert abs(crop - ACROSS[6:16, 4:24]).max() < JPEG_ERROR


def test_crowds_ignored_and_small_boxes_are_left_out_and_counted(coco):
    coco.box(1, 1, 9, 9, iscrowd=1)
    coco.box(1, 1, 9, 9, ignore=1)
    coco.box(1, 1, 30, 7.9)
    coco.box(55, 1, 30, 30)  # five pixels wide inside the image
    coco.box(1, 1, 8, 8)
    done = coco.crop(min_size=8)
    assert done.left_out == {'too small': 3, 'crowd': 1, 'ignored': 1}
    assert done.crops == {'dog': 0, 'cat': 2}


@pytest.mark.parametrize(
    'box, kind',
    [
        ((5, 5, 0, 9), 'box without area'),
        ((5, 5, 9, -1), 'box without area'),
        ((60, 5, 9, 9), 'box outside the image'),
        ((5, -9, 9, 9), 'box outside the image'),
        ((5, 5, float('nan'), 9), 'box not numeric'),
        ((5, 5, None, 9), 'box not numeric'),
        ((5, 5, 9), 'box not numeric'),
    ],
)
def test_an_unusable_box_is_left_out_and_named(coco, box, kind):
    coco.box(*box)
    done = coco.crop()
    assert kinds(done) == [(kind, 'train/other')]
    assert 'annotation 13 (cat)' in str(done.faults[0])
    assert done.crops == {'dog': 1, 'cat': 1}


@pytest.mark.parametrize(
    'content, kind',
    [
        (None, 'missing image'),
        (b'', 'broken image'),
        (b'no picture', 'broken image'),
        ('cut', 'broken image'),
        ('large', 'image size differs'),
    ],
)
def test_an_unusable_image_is_left_out_with_its_boxes_and_named(coco, content, kind):
    path = coco.image('bad.jpg', np.zeros((HEIGHT, WIDTH), np.uint8))
    coco.box(1, 1, 9, 9)
    coco.box(2, 2, 9, 9)
    if content is None:
        path.unlink()
    elif content == 'cut':
        path.write_bytes(path.read_bytes()[:-40])
    elif content == 'large':
        Image.fromarray(np.zeros((80, 120), np.uint8)).save(path)
    else:
        path.write_bytes(content)
    done = coco.crop()
    assert kinds(done) == [(kind, 'train/bad')]
    assert '2 objects left out' in done.faults[0].detail
    assert done.crops == {'dog': 1, 'cat': 1}


def test_boxes_of_no_image_or_class_are_named(coco):
    coco.box(1, 1, 9, 9, image_id=99)
    coco.box(1, 1, 9, 9, category=5)
    assert kinds(coco.crop()) == [('unknown class', 'train/other'), ('unknown image', 'train')]


def test_a_class_without_crops_has_an_empty_folder_and_is_named(coco):
    coco.annotations.pop()
    done = coco.crop()
    assert kinds(done) == [('class without crops', 'train')]
    assert 'dog' in done.faults[0].detail
    assert not any((done.folder / 'dog').iterdir())


def test_images_of_one_name_in_two_folders_stay_apart(tmp_path):
    coco = Coco(tmp_path)
    for name in ('a/1.png', 'b/1.png'):
        coco.image(name)
        coco.box(1, 1, 9, 9)
    assert set(files(coco.crop().folder / 'cat')) == {'1_11.jpg', '1_12.jpg'}


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda c: c.annotations.clear(), 'no box of .*train.json could be cropped .no objects'),
        (
            lambda c: [path.unlink() for path in (c.root / 'images').iterdir()],
            'could be cropped .missing image 2.; the first: train/good: missing image',
        ),
        (lambda c: c.images.clear(), 'train.json has 2 categories and 0 images'),
        (lambda c: c.annotations[0].pop('bbox'), "train.json is not COCO json: KeyError: 'bbox'"),
        (lambda c: c.images[0].pop('file_name'), "KeyError: 'file_name'"),
        (lambda c: c.annotations[0].update(id=12), 'same annotation id more than once: 12'),
        (lambda c: c.categories[0].update(name='cat'), 'same class more than once: cat'),
        (lambda c: c.categories[0].update(name='a/b'), "class 'a/b' cannot be the name of a"),
        (lambda c: c.categories[0].update(name='..'), "class '..' cannot be the name of a"),
        (lambda c: c.categories[0].update(name=''), "class '' cannot be the name of a"),
    ],
)
def test_an_unusable_source_raises_one_error_and_writes_nothing(coco, change, message):
    change(coco)
    with pytest.raises(ValueError, match=message):
        coco.crop()
    assert files(coco.root / 'crops') == {}


@pytest.mark.parametrize(
    'arguments', [dict(margin=-0.1), dict(margin=float('nan')), dict(min_size=-1)]
)
def test_an_argument_out_of_range_is_named(coco, arguments):
    with pytest.raises(ValueError, match=f'{next(iter(arguments))} must be at least 0, found'):
        coco.crop(**arguments)


def test_a_file_or_folder_that_is_not_there_is_named(coco):
    with pytest.raises(ValueError, match='image folder .*nowhere does not exist'):
        crop_objects(coco.json(), coco.root / 'nowhere', coco.root / 'crops')
    with pytest.raises(FileNotFoundError, match='nowhere.json'):
        crop_objects(coco.root / 'nowhere.json', coco.root / 'images', coco.root / 'crops')


def test_a_complete_split_is_left_as_it_is_and_reported_again(coco):
    coco.box(1, 1, 0, 9)
    first = coco.crop()
    times = {path: path.stat().st_mtime_ns for path in first.folder.rglob('*')}
    assert coco.crop() == first
    assert {path: path.stat().st_mtime_ns for path in first.folder.rglob('*')} == times


@pytest.mark.parametrize(
    'change, message',
    [
        (lambda c: (c.root / 'crops/train/cat/good_11.jpg').unlink(), 'cat has 0 crops and should'),
        (lambda c: (c.root / 'crops/train' / RECORD).unlink(), 'not a complete set of crops'),
        (lambda c: (c.root / 'crops/train' / RECORD).write_text('{'), 'not a complete set'),
        (lambda c: c.box(1, 1, 9, 9), 'holds crops made with'),
    ],
    ids=['lost a crop', 'no record', 'half a record', 'other annotations'],
)
def test_any_other_folder_is_refused_and_left_alone(coco, change, message):
    coco.crop()
    change(coco)
    before = files(coco.root / 'crops')
    with pytest.raises(FileExistsError, match=message):
        coco.crop()
    assert files(coco.root / 'crops') == before


def test_other_arguments_are_refused(coco):
    coco.crop()
    with pytest.raises(FileExistsError, match="'margin': 0.0.* asked for .*'margin': 0.5"):
        coco.crop(margin=0.5)


def test_a_failure_while_writing_leaves_no_half_split(coco, monkeypatch):
    save, calls = Image.Image.save, []

    def fail_the_second(self, path, **options):
        calls.append(path)
        if len(calls) == 2:
            raise OSError('disk full')
        return save(self, path, **options)

    monkeypatch.setattr(Image.Image, 'save', fail_the_second)
    with pytest.raises(OSError, match='disk full'):
        coco.crop()
    assert list((coco.root / 'crops').iterdir()) == []


@pytest.fixture
def run_tool(monkeypatch, capsys):
    """Runs the command line in this process: a new one would import the whole package again."""

    def run(*arguments):
        monkeypatch.setattr(sys, 'argv', [str(TOOL), *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            runpy.run_path(str(TOOL), run_name='__main__')
        out, err = capsys.readouterr()
        return SimpleNamespace(returncode=exit_.value.code, stdout=out, stderr=err)

    return run


def test_tool_crops_each_split_of_the_shapes_set(tmp_path, run_tool):
    make_shapes(tmp_path / 'shapes', dict(train=10, val=5), size=64)
    jsons = [tmp_path / 'shapes' / 'annotations' / f'{split}.json' for split in ('train', 'val')]
    images = tmp_path / 'shapes' / '{split}'
    done = run_tool(*jsons, '--images', images, '--out', tmp_path / 'crops')
    assert (done.returncode, done.stderr) == (0, '')
    assert 'faults: 0' in done.stdout
    for path in jsons:
        boxes = len(json.loads(path.read_text())['annotations'])
        assert len(list((tmp_path / 'crops' / path.stem).glob('*/*.jpg'))) == boxes


def test_tool_exits_with_1_on_faults_unless_they_are_allowed(coco, run_tool):
    coco.box(1, 1, 0, 9)
    coco.box(1, 1, 2, 2)
    arguments = [coco.json(), '--images', coco.root / 'images', '--out', coco.root / 'crops']
    done = run_tool(*arguments, '--min-size', 3)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        'fault: train/other: box without area: annotation 13 (cat) [1, 1, 0, 9]; object left out'
    ]
    assert 'train: crops: dog 1, cat 1; left out: too small 1;' in done.stdout
    assert 'faults: 1\n  box without area: 1\n' in done.stdout
    allowed = run_tool(*arguments, '--min-size', 3, '--allow-faults')
    assert (allowed.returncode, allowed.stderr) == (0, done.stderr)


def test_tool_exits_with_2_and_one_error_when_nothing_can_be_cropped(coco, run_tool):
    path = coco.json()
    for arguments in (
        [path, '--images', coco.root / 'nowhere'],
        [coco.root / 'nowhere.json', '--images', coco.root / 'images'],
        [path, '--images', coco.root / 'images', '--margin', '-1'],
    ):
        done = run_tool(*arguments, '--out', coco.root / 'crops')
        assert done.returncode == 2
        assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
    assert run_tool(path).returncode == 2
    assert not (coco.root / 'crops').exists()
