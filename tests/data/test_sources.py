"""Data sets in folders of any name, read as one COCO data set."""

import json
from pathlib import PurePath

import pytest

from condconv_det.data.decode import decoded_size
from condconv_det.data.image_index import ImageIndex, split_in
from condconv_det.data.sources import read_source

BOX = [4, 6, 20, 12]


def read(files, name='', images='', **arguments):
    index = ImageIndex(files.root / images)
    return read_source(files.root / name, index, decoded_size, **arguments)


def boxes(source):
    """File name and class of each box; all have the same place."""
    names = {category['id']: category['name'] for category in source.data['categories']}
    images = {image['id']: image['file_name'] for image in source.data['images']}
    for annotation in source.data['annotations']:
        assert annotation['bbox'] == pytest.approx(BOX, abs=1e-3)
    assert [a['id'] for a in source.data['annotations']] == [
        *range(1, len(source.data['annotations']) + 1)
    ]
    return [(images[a['image_id']], names[a['category_id']]) for a in source.data['annotations']]


def splits(source):
    return {image['file_name']: source.splits.get(image['id']) for image in source.data['images']}


def kinds(source):
    return [fault.kind for fault in source.faults]


def test_voc_in_folders_of_any_name(files):
    for name in ('a', 'b'):
        files.image(f'my pictures/{name}.PNG')
    files.voc('boxes of them/a.xml', 'cat', 'dog')
    files.voc('boxes of them/b.xml', 'cat')
    source = read(files)
    assert source.format == 'voc' and source.faults == [] and source.splits == {}
    assert boxes(source) == [
        ('my pictures/a.PNG', 'cat'),
        ('my pictures/a.PNG', 'dog'),
        ('my pictures/b.PNG', 'cat'),
    ]


def test_voc_with_lists_has_the_splits_that_they_say(files):
    for name in ('a', 'b', 'c'):
        files.image(f'JPEGImages/{name}.jpg')
        files.voc(f'Annotations/{name}.xml', 'cat')
    files.write('ImageSets/Main/train.txt', 'a\n')
    files.write('ImageSets/Main/val.txt', 'b\n')
    files.write('ImageSets/Main/trainval.txt', 'a\nb\nc\n')
    source = read(files)
    assert splits(source) == {'JPEGImages/a.jpg': 'train', 'JPEGImages/b.jpg': 'val'}
    assert list(map(str, source.faults)) == [
        'source: image in no list: 1 image left out, the first Annotations/c'
    ]
    assert splits(read(files, listed_only=False))['JPEGImages/c.jpg'] is None


def test_a_list_of_trainval_is_train_where_there_is_no_other(files):
    for name in ('a', 'b'):
        files.image(f'{name}.jpg')
        files.voc(f'{name}.xml', 'cat')
    files.write('ImageSets/Main/test.txt', 'a\n')
    files.write('ImageSets/Main/trainval.txt', 'b\n')
    source = read(files)
    assert splits(source) == {'a.jpg': 'test', 'b.jpg': 'train'}
    assert source.faults == []


def test_lists_of_other_names_and_names_with_a_space_or_a_word_after_them(files):
    for name in ('a', 'a b', 'a c'):
        files.image(f'{name}.jpg')
        files.voc(f'{name}.xml', 'cat')
    files.write('ImageSets/Main/Training.txt', 'a  1\n')
    files.write('ImageSets/Main/valid.txt', 'a b \n')
    files.write('ImageSets/Main/testing.txt', 'a c')
    source = read(files)
    assert splits(source) == {'a.jpg': 'train', 'a b.jpg': 'val', 'a c.jpg': 'test'}
    assert source.faults == []


def test_an_image_without_xml_is_named_and_one_of_a_broken_xml_counted_once(files):
    for name in ('a', 'b', 'c', 'd'):
        files.image(f'photos/{name}.jpg')
    files.voc('a.xml', 'cat')
    files.write('b.xml', '<annotation>')
    files.write('d.xml', '<settings/>')  # of something else
    source = read(files)
    assert boxes(source) == [('photos/a.jpg', 'cat')]
    assert [(fault.kind, fault.where) for fault in source.faults] == [
        ('broken xml', 'b'),
        ('image without xml', 'photos/c.jpg'),
        ('image without xml', 'photos/d.jpg'),
    ]


def test_lists_that_name_none_of_the_images_are_named(files):
    files.image('a.jpg')
    files.voc('a.xml', 'cat')
    files.write('ImageSets/Main/train.txt', 'a.jpg\nb.jpg\n')
    files.write('ImageSets/Main/val.txt', 'c.jpg\n')
    source = read(files)
    assert boxes(source) == [('a.jpg', 'cat')]
    assert list(map(str, source.faults)) == [
        'source: missing xml: 3 names in ImageSets/Main have none, the first a.jpg'
    ]


def test_of_images_with_one_name_the_nearest_belongs_to_an_annotation(files):
    for split in ('train', 'valid'):
        files.image(f'{split}/images/1.jpg')
    files.yolo('train/labels/1.txt', 0)
    files.yolo('valid/labels/1.txt', 1)
    files.write('data.yaml', 'names: {0: cat, 1: dog}')
    source = read(files)
    assert boxes(source) == [('train/images/1.jpg', 'cat'), ('valid/images/1.jpg', 'dog')]
    assert splits(source) == {'train/images/1.jpg': 'train', 'valid/images/1.jpg': 'val'}


def test_of_images_with_one_name_that_of_the_jsons_split_belongs_to_it(files):
    for split in ('train2017', 'val2017'):
        files.image(f'{split}/1.jpg')
    files.coco('annotations/instances_train.json', {'1.jpg': ['cat']}, ['cat', 'dog'])
    files.coco('annotations/instances_val.json', {'1.jpg': ['dog']}, ['cat', 'dog'])
    source = read(files)
    assert boxes(source) == [('train2017/1.jpg', 'cat'), ('val2017/1.jpg', 'dog')]
    assert not source.faults


def test_yolo_images_without_labels_are_kept_without_boxes(files):
    for name in ('a', 'b', 'c'):
        files.image(f'images/{name}.jpg')
    files.yolo('labels/a.txt', 0)
    files.yolo('labels/b.txt')
    files.write('classes.txt', 'cat\n')
    source = read(files)
    assert boxes(source) == [('images/a.jpg', 'cat')]
    assert len(source.data['images']) == 3
    assert [(f.kind, f.detail) for f in source.faults] == [
        ('image without labels', '1 image without a text file, used as having no boxes')
    ]


def test_yolo_with_lists_has_the_splits_that_they_say(files):
    for name in ('a', 'b', 'c'):
        files.image(f'images/{name}.jpg')
        files.yolo(f'labels/{name}.txt', 0)
    files.write('classes.txt', 'cat')
    files.write('train.txt', 'images/a.jpg')
    assert splits(read(files)) == {
        **dict.fromkeys(('images/b.jpg', 'images/c.jpg')),
        'images/a.jpg': 'train',
    }
    files.write('val.txt', 'images/b.jpg')
    source = read(files)
    assert splits(source) == {'images/a.jpg': 'train', 'images/b.jpg': 'val'}
    assert list(map(str, source.faults)) == [
        'source: image in no list: 1 image left out, the first images/c.jpg'
    ]
    assert len(boxes(read(files, listed_only=False))) == 3


def test_keypoints_of_yolo_are_no_polygon(files):
    files.image('a.jpg')
    path = files.yolo('a.txt', 0)
    path.write_text(f'{path.read_text().strip()} 0.9 0.9 2 0 0 0')
    files.write('data.yaml', 'names: [cat]\nkpt_shape: [2, 3]')
    source = read(files)
    assert boxes(source) == [('a.jpg', 'cat')] and source.faults == []


def test_an_image_whose_labels_are_not_utf_8_is_left_out_and_named(files):
    for name in ('a', 'b'):
        files.image(f'{name}.jpg')
        path = files.yolo(f'{name}.txt', 0)
    path.write_bytes(b'0 .5 .5 .3 .3 # \xe9')
    files.write('classes.txt', 'cat')
    source = read(files)
    assert [image['file_name'] for image in source.data['images']] == ['a.jpg']
    assert [(f.kind, f.where) for f in source.faults] == [('broken labels', 'b')]


def test_a_list_of_images_that_is_not_utf_8_is_named(files):
    files.image('a.jpg')
    files.voc('a.xml', 'cat')
    files.write('ImageSets/Main/train.txt', '').write_bytes(b'\xe9')
    with pytest.raises(ValueError, match='train.txt is not UTF-8: '):
        read(files)


@pytest.mark.parametrize('format', ['voc', 'coco', 'yolo'])
def test_hidden_files_and_folders_are_passed_over(files, format):
    files.image('a.jpg')
    if format == 'voc':
        files.voc('a.xml', 'cat')
        files.write('ImageSets/Main/train.txt', 'a')
    elif format == 'coco':
        files.coco('train.json', {'a.jpg': ['cat']}, ['cat'])
    else:
        files.yolo('a.txt', 0)
        files.write('data.yaml', 'names: [cat]')
    for path in [path for path in files.root.rglob('*.*') if path.is_file()]:
        path.with_name(f'._{path.name}').write_bytes(b'\0\5\x16\7 Mac OS X \xa3\xff')
        copy = files.root / '.ipynb_checkpoints' / path.name
        copy.parent.mkdir(exist_ok=True)
        copy.write_bytes(path.read_bytes())
    source = read(files)
    assert source.format == format and boxes(source) == [('a.jpg', 'cat')] and source.faults == []


@pytest.mark.parametrize('format', ['voc', 'yolo'])
def test_what_could_belong_to_several_images_or_files_is_named(files, format):
    for name in ('full/a', 'small/a', 'b'):
        files.image(f'{name}.jpg')
    if format == 'voc':
        for name in ('x/a', 'x/b'):
            files.voc(f'{name}.xml', 'cat')
        fault = 'missing image', 'no image of'
    else:
        for name in ('x/a', 'y/a', 'x/b'):
            files.yolo(f'{name}.txt', 0)
        files.write('classes.txt', 'cat')
        fault = 'labels in several files', 'x/a.txt, y/a.txt'
    source = read(files)
    assert boxes(source) == [('b.jpg', 'cat')]
    assert (source.faults[0].kind, source.faults[0].detail[: len(fault[1])]) == fault


def test_yolo_numbers_without_names_need_them(files):
    files.image('a.jpg')
    files.yolo('a.txt', 1, 0)
    how = r'name all of them in the order of their numbers by --classes \(0 to 1 occur\)'
    with pytest.raises(ValueError, match=f'no data.yaml or classes.txt with names: {how}'):
        read(files)
    assert boxes(read(files, classes=['cat', 'dog'])) == [('a.jpg', 'dog'), ('a.jpg', 'cat')]


def test_fewer_names_than_yolo_numbers_in_use_are_refused(files):
    for name, numbers in dict(a=[0, 1], b=[1, 7]).items():
        files.image(f'{name}.jpg')
        files.yolo(f'{name}.txt', *numbers)
    files.write('readme.txt', '9 is no label')
    says = r'in use 7, first in .*b.txt, is beyond the 2 names given .*\(0, 1, 7 occur\)'
    with pytest.raises(ValueError, match=says):
        read(files, classes=['cat', 'dog'])
    assert len(boxes(read(files, classes=list('abcdefgh')))) == 4


def test_coco_of_several_files_is_one_set_with_one_numbering(files):
    for name in ('a', 'b'):
        files.image(f'photos/{name}.jpg')
    files.coco('instances_train2017.json', {'a.jpg': ['dog']}, ['nothing', 'cat', 'dog'])
    files.coco('instances_val2017.json', {'photos/b.jpg': ['cat', 'dog']}, ['dog', 'cat'])
    source = read(files)
    assert boxes(source) == [
        ('photos/a.jpg', 'dog'),
        ('photos/b.jpg', 'cat'),
        ('photos/b.jpg', 'dog'),
    ]
    assert splits(source) == {'photos/a.jpg': 'train', 'photos/b.jpg': 'val'}
    assert [category['name'] for category in source.data['categories']] == ['cat', 'dog']
    assert [(f.kind, f.detail) for f in source.faults] == [
        ('class without boxes', 'nothing; left out')
    ]


def test_one_coco_file_with_its_images_elsewhere(files):
    files.image('photos/deep/a.jpg')
    path = files.coco('boxes/mine.json', {'deep/a.jpg': ['cat']}, ['cat'], site='north')
    files.coco('boxes/other.json', {'deep/a.jpg': ['cat']}, ['cat'])
    source = read(files, 'boxes/mine.json', images='photos')
    assert boxes(source) == [('deep/a.jpg', 'cat')] and source.data['images'][0]['site'] == 'north'
    with pytest.raises(ValueError, match='deep/a.jpg is in .*mine.json and in .*other.json: name'):
        read(files, 'boxes', images='photos')
    data = json.loads(path.read_text())
    data['categories'].append(data['categories'][0])
    path.write_text(json.dumps(data))
    with pytest.raises(ValueError, match='mine.json has faults for a person .*listed twice.*`'):
        read(files, 'boxes/mine.json', images='photos')


def test_a_json_that_cannot_be_read_stops_a_set_of_coco_and_no_other(files):
    files.image('a.jpg')
    path = files.write('train.json', '{"images": [')
    with pytest.raises(ValueError, match='has no boxes: .*; .*train.json is not json: JSONDecode'):
        read(files)
    with pytest.raises(ValueError, match='train.json is not json: JSONDecode.*expected COCO json'):
        read(files, format='coco')
    files.voc('a.xml', 'cat')
    assert read(files).format == 'voc'
    files.coco('val.json', {'a.jpg': ['cat']}, ['cat'])
    with pytest.raises(ValueError, match='train.json is not json: JSONDecode.*expected COCO json'):
        read(files, format='coco')
    path.unlink()
    assert boxes(read(files, format='coco')) == [('a.jpg', 'cat')]


@pytest.mark.parametrize('name', ['', 'all.json'])
def test_a_json_may_have_a_byte_order_mark(files, name):
    files.image('a.jpg')
    path = files.coco('all.json', {'a.jpg': ['cat']}, ['cat'])
    path.write_text(path.read_text(), encoding='utf-8-sig')
    assert boxes(read(files, name)) == [('a.jpg', 'cat')]


@pytest.mark.parametrize('again', ['photos/a.jpg', 'a.jpg'])
def test_of_a_file_listed_twice_in_a_json_the_first_entry_counts(files, again):
    files.image('photos/a.jpg')
    path = files.coco(
        'all.json', {'photos/a.jpg': ['cat'], 'again': ['dog', 'cat']}, ['cat', 'dog']
    )
    path.write_text(path.read_text().replace('"again"', f'"{again}"'))
    source = read(files)
    assert boxes(source) == [('photos/a.jpg', 'cat')]
    assert str(source.faults[0]) == (
        f'all.json: {again}: file listed twice: an earlier entry has it, too; left out'
    )
    assert kinds(source)[1:] == ['class without boxes']


@pytest.mark.parametrize('format', ['voc', 'coco', 'yolo'])
def test_missing_and_broken_images_are_left_out_and_named(files, format):
    for name in ('a', 'cut'):
        files.image(f'{name}.jpg')
    path = files.root / 'cut.jpg'
    path.write_bytes(path.read_bytes()[:-200])
    if format == 'coco':
        files.coco('all.json', {f'{n}.jpg': ['cat'] for n in ('a', 'cut', 'gone')}, ['cat'])
    for name in ('a', 'cut', 'gone'):
        if format == 'voc':
            files.voc(f'{name}.xml', 'cat')
        elif format == 'yolo':
            files.yolo(f'{name}.txt', 0)
            files.write('data.yaml', 'names: [cat]')
    source = read(files)
    assert boxes(source) == [('a.jpg', 'cat')] and len(source.data['images']) == 1
    assert kinds(source)[:2] == ['broken image', 'missing image']


def test_label_files_without_an_image_that_is_read_are_counted(files):
    for name in ('a.jpg', 'b.jfif.jpg', 'd.jpg'):
        files.image(name)
    (files.root / 'b.jfif.jpg').rename(files.root / 'b.jfif')
    for name in ('a', 'b', 'c'):
        files.yolo(f'labels/{name}.txt', 0)
    files.write('labels/e.txt', '')
    files.write('labels/f.txt', 'cat 5 5 5 5')
    files.write('classes.txt', 'cat\n2\n')
    source = read(files)
    assert boxes(source) == [('a.jpg', 'cat')]
    assert str(source.faults[0]) == (
        'source: missing image: 2 label files left out, the first labels/b.txt'
    )


def test_images_that_no_json_names_are_counted(files):
    for name in ('a', 'b', 'c'):
        files.image(f'{name}.jpg')
    files.coco('train.json', {'a.jpg': ['cat']}, ['cat'])
    source = read(files)
    assert list(map(str, source.faults)) == [
        'source: image in no json: 2 images left out, the first b.jpg'
    ]
    assert read(files, 'train.json').faults == []


def test_an_image_of_another_size_than_its_json_says_is_left_out(files):
    for name in ('a', 'b'):
        files.image(f'{name}.jpg')
    path = files.coco('all.json', {'a.jpg': ['cat'], 'b.jpg': ['cat']}, ['cat'])
    data = json.loads(path.read_text())
    data['images'][1]['width'] = 80
    path.write_text(json.dumps(data))
    source = read(files)
    assert boxes(source) == [('a.jpg', 'cat')]
    assert [(f.kind, f.detail) for f in source.faults] == [
        ('image size differs', 'json says 80x30, file has 40x30; left out')
    ]


def test_nor_is_one_of_another_size_than_its_xml_says_used(files):
    for name in ('a', 'b', 'c'):
        files.image(f'{name}.jpg')
        path = files.voc(f'{name}.xml', 'cat')
        path.write_text(path.read_text().replace('>40<', dict(a='>40<', b='>80<', c='><')[name]))
    path.write_text(path.read_text().replace('>30<', '><'))
    source = read(files)
    assert boxes(source) == [('a.jpg', 'cat'), ('c.jpg', 'cat')]
    assert [(f.kind, f.where) for f in source.faults] == [
        ('image size differs', 'b'),
        ('image size missing', 'c'),
    ]


@pytest.mark.parametrize('format', ['voc', 'coco', 'yolo'])
def test_only_the_classes_asked_for_are_kept_in_their_order(files, format):
    files.image('a.jpg')
    names = ['cat', 'dog', 'emu']
    if format == 'voc':
        files.voc('a.xml', *names)
    elif format == 'coco':
        files.coco('a.json', {'a.jpg': names}, names)
    else:
        files.yolo('a.txt', 0, 1, 2)
        files.write('obj.names', '\n'.join(names))
    source = read(files, classes=['emu', 'cat'])
    assert sorted(boxes(source)) == [('a.jpg', 'cat'), ('a.jpg', 'emu')]
    assert [category['name'] for category in source.data['categories']] == ['emu', 'cat']
    assert source.faults == []
    with pytest.raises(ValueError, match='no box .* classes with boxes: cat, dog, emu; faults: no'):
        read(files, classes=['gnu'])


def test_what_has_no_format_or_several_is_refused(files, tmp_path):
    files.image('a.jpg')
    with pytest.raises(ValueError, match='has no boxes: expected COCO json, .* such as a.xml'):
        read(files)
    files.voc('a.xml', 'cat')
    files.yolo('a.txt', 0)
    with pytest.raises(ValueError, match=r"several formats, \['voc', 'yolo'\]: name .* `--format`"):
        read(files)
    assert read(files, format='voc').format == 'voc'
    with pytest.raises(
        ValueError, match='no box of .* can be used; classes with boxes: none; faults: none'
    ):
        files.voc('a.xml')
        read(files, format='voc')
    with pytest.raises(ValueError, match='a.jpg is a file: expected a folder, or a COCO json'):
        read(files, 'a.jpg')
    with pytest.raises(ValueError, match='the folder .*nowhere does not exist'):
        read(files, 'nowhere')
    with pytest.raises(ValueError, match='the image folder .*nowhere does not exist'):
        read(files, images='nowhere')
    (tmp_path / 'source' / 'empty').mkdir()
    with pytest.raises(
        ValueError, match='no image below .*empty: expected names in .bmp .*`--images`'
    ):
        read(files, images='empty')


@pytest.mark.parametrize(
    'path, split',
    [
        ('instances_train2017.json', 'train'),
        ('valid/_annotations.coco.json', 'val'),
        ('Testing/a.jpg', 'test'),
        ('train/test/a.jpg', 'test'),
        ('trainval/a.jpg', None),
        ('train_and_val/a.jpg', None),
        ('latest/a.jpg', None),
    ],
)
def test_a_split_is_read_from_words_in_a_path(path, split):
    assert split_in(PurePath(path)) == split
