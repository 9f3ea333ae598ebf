"""Pascal VOC in folders of any name."""

from reading import boxes, kinds, read, splits


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


def test_an_xml_of_another_name_is_that_of_the_image_that_it_says(files):
    files.image('photos/IMG_1.jpg')
    files.voc('boxes/0001.xml', 'cat', filename='IMG_1.jpg')
    files.write('boxes/0000.xml', '<annotation>')
    source = read(files)
    assert source.format == 'voc' and boxes(source) == [('photos/IMG_1.jpg', 'cat')]
    assert kinds(source) == ['broken xml']


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


def test_images_of_two_lists_are_counted(files):
    for name in ('a', 'b', 'c'):
        files.image(f'{name}.jpg')
        files.voc(f'{name}.xml', 'cat')
    files.write('ImageSets/Main/train.txt', 'a\n')
    for split in ('val', 'test'):
        files.write(f'ImageSets/Main/{split}.txt', 'b\nc\n')
    assert list(map(str, read(files).faults)) == [
        'source: image in several splits: 2 images, the first b; each used in one'
    ]


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
    files.write('ImageSets/Main/train.txt', 'b.jpg\nc.jpg\n')
    files.write('ImageSets/Main/val.txt', 'd.jpg\n')
    source = read(files)
    assert boxes(source) == [('a.jpg', 'cat')]
    assert list(map(str, source.faults)) == [
        'source: missing xml: 3 names in ImageSets/Main have none, the first b.jpg',
        'source: splits not kept: no name in ImageSets/Main has an xml; all images are dealt out '
        'anew',
    ]


def test_lists_may_have_folders_and_endings(files):
    for name in ('a', 'b'):
        files.image(f'{name}.JPG')
        files.voc(f'{name}.XML', 'cat')
    files.write('ImageSets/Main/train.txt', 'JPEGImages\\a.JPG\n')
    files.write('ImageSets/Main/val.txt', 'images/b.jpg 1\n')
    source = read(files)
    assert splits(source) == {'a.JPG': 'train', 'b.JPG': 'val'} and source.faults == []


def test_sets_side_by_side_have_lists_of_their_own(files):
    for year, first, second in (('VOC2007', 'train', 'val'), ('VOC2012', 'val', 'train')):
        for name, split in (('1', first), ('2', second)):
            files.image(f'{year}/JPEGImages/{name}.jpg')
            files.voc(f'{year}/Annotations/{name}.xml', 'cat')
            files.write(f'{year}/ImageSets/Main/{split}.txt', name)
    files.image('VOC2012/JPEGImages/3.jpg')
    files.voc('VOC2012/Annotations/3.xml', 'cat')
    files.write('VOC2007/ImageSets/Main/test.txt', '3')  # whose own xml is missing
    source = read(files)
    assert kinds(source) == ['missing xml', 'image in no list'] and splits(source) == {
        'VOC2007/JPEGImages/1.jpg': 'train',
        'VOC2007/JPEGImages/2.jpg': 'val',
        'VOC2012/JPEGImages/1.jpg': 'val',
        'VOC2012/JPEGImages/2.jpg': 'train',
    }


def test_folders_say_the_split_before_names_do(files):
    for path in ('train/test 1', 'valid/train 2', 'test/rail 3', 'test rail 4'):
        files.image(f'{path}.jpg')
        files.voc(f'{path}.xml', 'cat')
    assert splits(read(files)) == {
        'train/test 1.jpg': 'train',
        'valid/train 2.jpg': 'val',
        'test/rail 3.jpg': 'test',
        'test rail 4.jpg': 'test',
    }


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


def test_an_xml_whose_image_is_missing_does_not_get_that_of_another(files):
    for camera, label in (('camA', 'cat'), ('camB', 'dog')):
        files.voc(f'{camera}/annotations/7.xml', label, filename='7.jpg')
    files.image('camB/images/7.jpg')
    source = read(files)
    assert boxes(source) == [('camB/images/7.jpg', 'dog')]
    assert [(f.kind, f.where) for f in source.faults] == [
        ('missing image', 'camA/annotations/7'),
        ('class without boxes', 'source'),
    ]
