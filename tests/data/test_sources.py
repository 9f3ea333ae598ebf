"""Data sets in folders of any name, read as one COCO data set."""

from pathlib import PurePath

import pytest
from reading import boxes, kinds, read, splits

from condconv_det.data.image_index import split_in


def test_of_images_with_one_name_the_nearest_belongs_to_an_annotation(files):
    for split in ('train', 'valid'):
        files.image(f'{split}/images/1.jpg')
    files.yolo('train/labels/1.txt', 0)
    files.yolo('valid/labels/1.txt', 1)
    files.write('data.yaml', 'names: {0: cat, 1: dog}')
    source = read(files)
    assert boxes(source) == [('train/images/1.jpg', 'cat'), ('valid/images/1.jpg', 'dog')]
    assert splits(source) == {'train/images/1.jpg': 'train', 'valid/images/1.jpg': 'val'}


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
def test_a_file_may_be_named_after_an_image_with_its_ending(files, format):
    for number, name in enumerate(('camB/7.jpg', 'camB/7.png', 'camB/8.jpg')):
        files.image(name)
        for path in (name, name.replace('B', 'A')):  # whose images are missing
            if format == 'voc':
                files.voc(f'{path}.xml', ('cat', 'dog', 'emu')[number])
            else:
                files.yolo(f'{path}.txt', number)
    files.write('classes.txt', 'cat\ndog\nemu')
    source = read(files)
    assert source.format == format
    assert boxes(source) == [('camB/7.jpg', 'cat'), ('camB/7.png', 'dog'), ('camB/8.jpg', 'emu')]


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
    'name, text, found',
    [
        ('a.jpg.json', '{"tags": [], "size": {}}', '1 .json, the first a.jpg.json with tags, size'),
        ('all.json', '[{"image": "a.jpg"}]', '1 .json, the first all.json, a list'),
        ('all.json', '[', '1 .json, the first all.json; .*all.json is not json'),
        ('b/a.xml.gz', '', '1 .gz, the first b/a.xml.gz'),
        ('b.csv', 'image_id,bbox\n', "1 .csv, the first b.csv with 'image_id,bbox'"),
        ('a.txt', 'Car 0.00 0 1 2 3 4', "1 .txt, the first a.txt with 'Car 0.00 0 1 2 3 4'"),
        ('a.txt', '1 2 3 4 5 6 7 8 ship 0', "1 .txt, the first a.txt with '1 2 .* ship 0'"),
        ('a.txt', '', '1 .txt, the first a.txt'),
        ('LICENSE', 'MIT', "1 without ending, the first LICENSE with 'MIT'"),
        (None, '', 'images alone'),
    ],
)
def test_what_a_folder_of_another_format_has_is_said(files, name, text, found):
    files.image('a.jpg')
    if name:
        files.write(name, text)
    with pytest.raises(ValueError, match=f'has no boxes: expected .* such as a.xml; found {found}'):
        read(files)


def test_texts_beside_images_that_are_no_boxes_make_no_second_format(files):
    files.image('a.jpg')
    files.write('a.txt', 'A cat on a mat.')
    files.coco('all.json', {'a.jpg': ['cat']}, ['cat'])
    assert boxes(read(files)) == [('a.jpg', 'cat')]


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
