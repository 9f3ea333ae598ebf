import json
import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from condconv_det.data.voc import convert_voc

TOOL = Path(__file__).parents[2] / 'tools' / 'dataset_converters' / 'voc_to_coco.py'
WIDTH, HEIGHT = 40, 30


def obj(name='cat', box=(5, 6, 14, 20), difficult=None):
    corners = ''.join(
        f'<{corner}>{value}</{corner}>'
        for corner, value in zip(('xmin', 'ymin', 'xmax', 'ymax'), box, strict=True)
    )
    extra = '' if difficult is None else f'<difficult>{difficult}</difficult>'
    return f'<object><name>{name}</name>{extra}<bndbox>{corners}</bndbox></object>'


class Voc:
    """A small Pascal VOC folder, written file by file."""

    def __init__(self, root):
        self.root = root
        for folder in ('Annotations', 'JPEGImages', 'ImageSets/Main'):
            (root / folder).mkdir(parents=True)

    def add(self, name, *objects, size=(WIDTH, HEIGHT), extension='jpg'):
        self.image(name, extension)
        self.xml(
            name,
            '<annotation><size><width>{}</width><height>{}</height></size>{}</annotation>'.format(
                *size, ''.join(objects)
            ),
        )
        return self

    def image(self, name, extension='jpg'):
        path = self.root / 'JPEGImages' / f'{name}.{extension}'
        cv2.imwrite(str(path), np.zeros((HEIGHT, WIDTH, 3), np.uint8))

    def xml(self, name, text):
        (self.root / 'Annotations' / f'{name}.xml').write_text(text)

    def split(self, split, *names):
        (self.root / 'ImageSets' / 'Main' / f'{split}.txt').write_text('\n'.join(names) + '\n')
        return self


@pytest.fixture
def voc(tmp_path):
    return Voc(tmp_path / 'voc').add('good', obj()).split('train', 'good')


def convert(voc, **arguments):
    done = convert_voc(voc.root, voc.root.parent / 'coco', **arguments)
    return done, {split: json.loads(path.read_text()) for split, path in done.files.items()}


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


def test_an_xml_may_be_named_after_an_image_with_its_ending(voc):
    voc.add('7', obj()).split('train', '7.jpg')
    (voc.root / 'Annotations' / '7.xml').rename(voc.root / 'Annotations' / '7.jpg.xml')
    done, data = convert(voc)
    assert done.faults == [] and data['train']['images'][0]['file_name'] == '7.jpg'


def test_clean_folder_converts_without_faults(voc):
    done, data = convert(voc)
    assert done.faults == []
    assert data['train']['images'] == [
        {'id': 1, 'file_name': 'good.jpg', 'width': WIDTH, 'height': HEIGHT}
    ]
    assert data['train']['categories'] == [{'id': 1, 'name': 'cat'}]
    (annotation,) = data['train']['annotations']
    # Columns 5 to 14 and rows 6 to 20, counted from 1 and inclusive: 10 by 15 pixels.
    assert annotation['bbox'] == [4, 5, 10, 15]
    assert annotation['area'] == 150
    assert annotation['id'] == 1 and annotation['iscrowd'] == 0


def test_a_box_of_the_whole_image_stays_whole(voc):
    voc.add('whole', obj(box=(1, 1, WIDTH, HEIGHT))).split('train', 'whole')
    done, data = convert(voc)
    assert data['train']['annotations'][0]['bbox'] == [0, 0, WIDTH, HEIGHT]
    assert done.faults == []


@pytest.mark.parametrize('extension', ['webp', 'TIF'])
def test_an_image_may_have_any_ending_that_mmdet_trains_on(voc, extension):
    voc.add('other', obj(), extension=extension).split('train', 'other')
    done, data = convert(voc)
    assert not done.faults
    assert [image['file_name'] for image in data['train']['images']] == [f'other.{extension}']


def test_an_object_of_one_column_or_row_is_one_pixel_wide_or_high(voc):
    objects = [obj(box=box) for box in ((7, 5, 7, 20), (7, 5, 12, 5), (WIDTH, 5, WIDTH, 5))]
    done, data = convert(voc.add('thin', *objects).split('train', 'thin'))
    boxes = [annotation['bbox'] for annotation in data['train']['annotations']]
    assert boxes == [[6, 4, 1, 16], [6, 4, 6, 1], [WIDTH - 1, 4, 1, 1]] and done.faults == []


def test_pycocotools_loads_the_result(voc):
    voc.add('two', obj('dog'), obj('cat', difficult=1)).split('train', 'good', 'two')
    done, _ = convert(voc)
    coco = COCO(done.files['train'])
    assert sorted(coco.getAnnIds()) == [1, 2, 3]
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == ['cat', 'dog']
    assert len(coco.getAnnIds(imgIds=[2], catIds=coco.getCatIds(catNms=['dog']))) == 1


def test_difficult_is_kept_as_ignore(voc):
    voc.add('hard', obj(difficult=1), obj(difficult=0)).split('train', 'hard')
    _, data = convert(voc)
    kept = [(a['ignore'], a['difficult'], a['iscrowd']) for a in data['train']['annotations']]
    assert kept == [(1, 1, 0), (0, 0, 0)]


def test_classes_are_the_same_in_every_split_whichever_is_converted(voc):
    voc.add('other', obj('zebra'), obj('ant')).split('val', 'other')
    _, both = convert(voc)
    assert both['train']['categories'] == both['val']['categories']
    assert [c['name'] for c in both['val']['categories']] == ['ant', 'cat', 'zebra']
    _, alone = convert(voc, splits=['val'])
    assert alone['val'] == both['val']


def test_given_classes_keep_their_order(voc):
    voc.add('other', obj('dog')).split('train', 'good', 'other')
    done, data = convert(voc, classes=['dog', 'cat'])
    assert [c['name'] for c in data['train']['categories']] == ['dog', 'cat']
    assert [a['category_id'] for a in data['train']['annotations']] == [2, 1]
    assert done.boxes['train'] == {'cat': 1, 'dog': 1}


def test_without_lists_all_annotations_are_one_split(voc):
    (voc.root / 'ImageSets' / 'Main' / 'train.txt').unlink()
    voc.add('another', obj(), extension='png')
    done, data = convert(voc)
    assert list(done.files) == ['all']
    assert [i['file_name'] for i in data['all']['images']] == ['another.png', 'good.jpg']


@pytest.mark.parametrize(
    ('box', 'kind'),
    [
        ((9, 5, 7, 20), 'box reversed'),
        ((5, 20, 14, 6), 'box reversed'),
        (('left', 6, 14, 20), 'box not numeric'),
        (('', 6, 14, 20), 'box not numeric'),
        (('nan', 6, 14, 20), 'box not numeric'),
        ((5, 6, 'inf', 20), 'box not numeric'),
        ((WIDTH + 1, 6, WIDTH + 9, 20), 'box outside the image'),
        ((5, -9, 14, 0), 'box outside the image'),
    ],
)
def test_an_object_with_an_unusable_box_is_left_out_and_named(voc, box, kind):
    voc.add('bad', obj('dog'), obj('cat', box)).split('train', 'good', 'bad')
    done, data = convert(voc)
    (fault,) = done.faults
    assert (fault.kind, fault.where) == (kind, 'train/bad')
    assert 'object 2 (cat)' in fault.detail and 'left out' in fault.detail
    assert len(data['train']['annotations']) == 2


def test_an_object_without_bndbox_is_named(voc):
    voc.add('bad', '<object><name>cat</name></object>').split('train', 'good', 'bad')
    done, _ = convert(voc)
    assert [f.kind for f in done.faults] == ['box not numeric']


def test_a_box_across_the_border_is_clipped_and_named(voc):
    voc.add('edge', obj(box=(0, 6, WIDTH + 3, 20))).split('train', 'edge')
    done, data = convert(voc)
    assert data['train']['annotations'][0]['bbox'] == [0, 5, WIDTH, 15]
    assert [(f.kind, f.where) for f in done.faults] == [('box beyond the border', 'train/edge')]


def test_unknown_classes_are_left_out_and_named(voc):
    voc.add('more', obj('dog'), obj('cat'), obj('')).split('train', 'good', 'more')
    done, data = convert(voc, classes=['cat'])
    assert [f.kind for f in done.faults] == ['unknown class'] * 2
    assert 'object 1 (dog)' in done.faults[0].detail
    assert 'object 3 (no name)' in done.faults[1].detail
    assert len(data['train']['annotations']) == 2


def test_missing_and_broken_files_are_left_out_and_named(voc):
    voc.add('no_image', obj())
    (voc.root / 'JPEGImages' / 'no_image.jpg').unlink()
    voc.image('no_xml')
    voc.add('bad_xml').xml('bad_xml', '<annotation><object>')
    voc.add('empty_xml').xml('empty_xml', '')
    voc.add('bad_image', obj())
    (voc.root / 'JPEGImages' / 'bad_image.jpg').write_bytes(b'not a picture')
    names = ['no_image', 'no_xml', 'bad_xml', 'empty_xml', 'bad_image']
    voc.split('train', 'good', *names)
    done, data = convert(voc)
    assert [(f.where, f.kind) for f in done.faults] == [
        ('train/no_image', 'missing image'),
        ('train/no_xml', 'missing xml'),
        ('train/bad_xml', 'broken xml'),
        ('train/empty_xml', 'broken xml'),
        ('train/bad_image', 'broken image'),
    ]
    assert [i['file_name'] for i in data['train']['images']] == ['good.jpg']


@pytest.mark.parametrize('size, said', [(('', ''), r'?x?'), ((0, 0.0), '0x0.0')])
def test_where_the_xml_has_no_size_the_files_is_used_and_that_named(voc, size, said):
    voc.add('sized', obj(), size=size).split('train', 'sized')
    done, data = convert(voc)
    assert (data['train']['images'][0]['width'], data['train']['images'][0]['height']) == (40, 30)
    assert [str(fault) for fault in done.faults] == [
        f'train/sized: image size missing: xml says {said}, file has 40x30; used the file'
    ]


def test_a_size_is_compared_as_a_number(voc):
    voc.add('sized', obj(), size=(f'{WIDTH}.0', f'0{HEIGHT}')).split('train', 'sized')
    assert convert(voc)[0].faults == []


@pytest.mark.parametrize('size', [(HEIGHT, WIDTH), (2 * WIDTH, 2 * HEIGHT), (WIDTH, 'tall')])
def test_an_image_of_another_size_than_its_xml_says_is_left_out_and_named(voc, size):
    voc.add('sized', obj(), size=size).split('train', 'good', 'sized')
    done, data = convert(voc)
    assert [image['file_name'] for image in data['train']['images']] == ['good.jpg']
    says = f'xml says {size[0]}x{size[1]}, file has 40x30; image left out'
    assert [str(fault) for fault in done.faults] == [f'train/sized: image size differs: {says}']


def test_a_turned_photograph_has_the_size_that_opencv_loads(voc):
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, size in dict(as_seen=(HEIGHT, WIDTH), as_stored=(WIDTH, HEIGHT)).items():
        path = voc.add(name, obj(), size=size).root / 'JPEGImages' / f'{name}.jpg'
        Image.new('RGB', (WIDTH, HEIGHT)).save(path, exif=exif)
    done, data = convert(voc.split('train', 'as_seen', 'as_stored'))
    (image,) = data['train']['images']
    assert (image['height'], image['width']) == cv2.imread(str(path)).shape[:2] == (WIDTH, HEIGHT)
    assert [(f.where, f.kind) for f in done.faults] == [('train/as_stored', 'image size differs')]


def truncate(path):
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3)))
    path.write_bytes(path.read_bytes()[:-200])


def test_an_image_listed_twice_is_used_once_and_named(voc):
    voc.split('train', 'good', 'good')
    done, data = convert(voc)
    assert len(data['train']['images']) == len(data['train']['annotations']) == 1
    assert [(f.kind, f.where) for f in done.faults] == [('image listed twice', 'train/good')]


def test_a_split_without_usable_images_is_named(voc):
    voc.split('val')
    done, data = convert(voc)
    assert [(f.kind, f.where) for f in done.faults] == [('split without images', 'val')]
    assert data['val']['images'] == []


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        ({'splits': ['train', 'tests']}, r"no list for \['tests'\]; it has: \['train'\]"),
        ({'splits': ['train', 'train']}, 'split given more than once: train'),
        ({'classes': ['cat', 'cat']}, 'class given more than once: cat'),
        ({'classes': ['Cat']}, r'no box of .* could be converted \(unknown class 1\).*train/good'),
    ],
)
def test_unusable_arguments_raise_one_error_and_write_nothing(voc, arguments, message):
    with pytest.raises(ValueError, match=message):
        convert(voc, **arguments)
    assert not (voc.root.parent / 'coco').exists()


def test_a_list_that_is_not_utf_8_is_named(voc):
    (voc.root / 'ImageSets' / 'Main' / 'train.txt').write_bytes(b'\xe9')
    with pytest.raises(ValueError, match='train.txt is not UTF-8: '):
        convert(voc)


def test_other_lists_must_be_named(voc):
    (voc.root / 'ImageSets' / 'Main' / 'train.txt').rename(
        voc.root / 'ImageSets' / 'Main' / 'fold1.txt'
    )
    with pytest.raises(ValueError, match='fold1'):
        convert(voc)
    assert list(convert(voc, splits=['fold1'])[0].files) == ['fold1']


def test_a_folder_that_is_not_voc_is_refused(tmp_path):
    with pytest.raises(ValueError, match='no folder Annotations'):
        convert_voc(tmp_path / 'nowhere', tmp_path / 'coco')


def test_the_source_is_left_alone(voc):
    def source():
        return {
            p: (p.stat().st_mtime_ns, p.is_file() and p.read_bytes()) for p in voc.root.rglob('*')
        }

    before = source()
    convert(voc)
    assert source() == before
    with pytest.raises(ValueError, match='must lie outside'):
        convert_voc(voc.root, voc.root / 'coco')
    assert source() == before


def test_a_failure_while_writing_keeps_the_old_files(voc, monkeypatch):
    voc.add('other', obj()).split('val', 'other')
    done, _ = convert(voc)
    before = {path: path.read_bytes() for path in done.files.values()}
    voc.add('more', obj()).split('train', 'good', 'more')
    write, calls = Path.write_text, []

    def fail_the_second(self, text):
        calls.append(self)
        if len(calls) == 2:
            raise OSError('disk full')
        return write(self, text)

    monkeypatch.setattr(Path, 'write_text', fail_the_second)
    with pytest.raises(OSError, match='disk full'):
        convert_voc(voc.root, voc.root.parent / 'coco')
    folder = voc.root.parent / 'coco' / 'annotations'
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_tool_exits_with_0_when_all_is_clean(voc, tmp_path, run_tool):
    done = run_tool(voc.root, '--out', tmp_path / 'coco')
    assert (done.returncode, done.stderr) == (0, '')
    assert 'train: 1 image, boxes: cat 1' in done.stdout and 'faults: 0' in done.stdout


def test_tool_exits_with_1_on_faults_unless_they_are_allowed(voc, tmp_path, run_tool):
    voc.add('turned', obj(box=(9, 5, 7, 20))).split('train', 'good', 'turned')
    done = run_tool(voc.root, '--out', tmp_path / 'coco')
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        'fault: train/turned: box reversed: object 1 (cat) [9, 5, 7, 20]; object left out'
    ]
    assert 'faults: 1\n  box reversed: 1\n' in done.stdout
    allowed = run_tool(voc.root, '--out', tmp_path / 'coco', '--allow-faults')
    assert (allowed.returncode, allowed.stderr) == (0, done.stderr)


def test_tool_decodes_images_unless_told_not_to(voc, tmp_path, run_tool):
    voc.add('cut', obj()).split('train', 'good', 'cut')
    truncate(voc.root / 'JPEGImages' / 'cut.jpg')
    done = run_tool(voc.root, '--out', tmp_path / 'coco')
    assert done.returncode == 1 and done.stderr.startswith('fault: train/cut: broken image: ')
    assert 'train: 1 image,' in done.stdout and 'faults: 1\n' in done.stdout
    done = run_tool(voc.root, '--out', tmp_path / 'coco', '--no-decode')
    assert done.returncode == 0 and 'train: 2 images' in done.stdout


def test_tool_exits_with_2_and_one_error_when_nothing_converts(voc, tmp_path, run_tool):
    for arguments in (['--classes', 'dog'], ['--splits', 'nope']):
        done = run_tool(voc.root, '--out', tmp_path / 'coco', *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
    assert run_tool(voc.root).returncode == 2
    assert not (tmp_path / 'coco').exists()
