"""YOLO in folders of any name."""

import pytest
from reading import boxes, kinds, read, splits


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


@pytest.mark.parametrize('boxed', [True, False])
def test_a_folder_test_with_boxes_is_the_split_though_no_list_names_it(files, boxed):
    for name in ('train/1', 'valid/1', 'test/1', 'test/2', 'more/test_3'):
        files.image(f'{name}.jpg')
        files.yolo(f'{name}.txt', *[0] * (boxed or 'test/' not in name))
    files.write('data.yaml', 'names: [cat]\ntrain: ../train\nval: ../valid\n# test: ../test')
    source = read(files)
    assert splits(source) == {
        'train/1.jpg': 'train',
        'valid/1.jpg': 'val',
        **dict.fromkeys(['test/1.jpg', 'test/2.jpg'] * boxed, 'test'),
    }
    assert [(f.kind, f.detail) for f in source.faults] == [
        ('image in no list', '1 image left out, the first more/test_3.jpg')
        if boxed
        else ('image in no list', '3 images left out, the first more/test_3.jpg')
    ]


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


@pytest.mark.parametrize(
    ('mine', 'other', 'label'),
    [
        ('train/images/7.jpg', 'val/images/7.jpg', 'train/labels/7.txt'),
        ('images/camA/7.jpg', 'images/camB/7.jpg', 'labels/camA/7.txt'),
        ('images/7.jpg', 'images/a/7.jpg', 'labels/7.txt'),
    ],
)
def test_a_text_file_is_of_the_nearest_image_alone(files, mine, other, label):
    files.image(mine)
    files.image(other)
    files.yolo(label, 0)
    files.write('classes.txt', 'cat')
    source = read(files)
    assert boxes(source) == [(mine, 'cat')]
    assert {image['file_name'] for image in source.data['images']} == {mine, other}
    assert kinds(source) == ['image without labels']


def test_a_text_file_of_two_images_is_named(files):
    files.image('camA/7.jpg')
    files.image('camB/7.jpg')
    files.image('camB/8.jpg')
    files.yolo('labels/7.txt', 0)
    files.yolo('labels/8.txt', 0)
    files.write('classes.txt', 'cat')
    source = read(files)
    assert boxes(source) == [('camB/8.jpg', 'cat')]
    assert list(map(str, source.faults)) == [
        f'{camera}/7: labels of several images: labels/7.txt; image left out'
        for camera in ('camA', 'camB')
    ]


def test_images_of_one_name_at_two_depths_have_the_labels_at_theirs(files):
    for folder, label in (('', 0), ('a/', 1)):
        files.image(f'images/{folder}7.jpg')
        files.yolo(f'labels/{folder}7.txt', label)
    files.write('classes.txt', 'cat\ndog')
    assert boxes(read(files)) == [('images/7.jpg', 'cat'), ('images/a/7.jpg', 'dog')]


def test_accents_of_macos_and_endings_in_capitals_do_not_part_labels_from_images(files):
    files.image('Ka\u0308se.jpg')
    files.yolo('K\u00e4se.TXT', 0)
    files.write('classes.txt', 'cat')
    source = read(files)
    assert boxes(source) == [('Ka\u0308se.jpg', 'cat')] and not source.faults


def test_a_list_names_the_images_beside_it_before_those_of_the_folder(files):
    for path in ('1', 'a/1', 'b/1'):
        files.image(f'{path}.jpg')
        files.yolo(f'{path}.txt', 0)
    files.write('data.yaml', 'names: [cat]\ntrain: a/list.txt\nval: b/list.txt')
    for folder in 'ab':
        files.write(f'{folder}/list.txt', './1.jpg')
    assert splits(read(files)) == {'a/1.jpg': 'train', 'b/1.jpg': 'val'}
