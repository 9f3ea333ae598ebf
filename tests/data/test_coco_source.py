"""COCO json in folders of any name."""

import json

import pytest
from reading import boxes, kinds, read, splits


def test_of_images_with_one_name_that_of_the_jsons_split_belongs_to_it(files):
    for split in ('train2017', 'val2017'):
        files.image(f'{split}/1.jpg')
    files.coco('annotations/instances_train.json', {'1.jpg': ['cat']}, ['cat', 'dog'])
    files.coco('annotations/instances_val.json', {'1.jpg': ['dog']}, ['cat', 'dog'])
    source = read(files)
    assert boxes(source) == [('train2017/1.jpg', 'cat'), ('val2017/1.jpg', 'dog')]
    assert not source.faults


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


def test_beside_cocos_instances_its_files_for_other_tasks_are_left_out_and_named(files):
    files.image('a.jpg')
    files.coco('annotations/instances_val2017.json', {'a.jpg': ['cat']}, ['cat'])
    for task in ('captions', 'person_keypoints', 'stuff'):
        files.coco(f'annotations/{task}_val2017.json', {'a.jpg': ['person']}, ['person'])
    files.write('annotations/panoptic_val2017.json', 'no json')
    source = read(files)
    assert source.format == 'coco' and boxes(source) == [('a.jpg', 'cat')]
    assert list(map(str, source.faults)) == [
        'source: json of another task: 4 jsons left out, the first '
        'annotations/captions_val2017.json'
    ]
    (files.root / 'annotations/instances_val2017.json').unlink()
    (files.root / 'annotations/panoptic_val2017.json').unlink()
    with pytest.raises(ValueError, match='captions_val2017.json and in .*: name one of these'):
        read(files)


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
        f'all.json: {again}: file listed twice: another entry has it, too; left out'
    )
    assert kinds(source)[1:] == ['class without boxes']


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


@pytest.mark.parametrize('said', [{}, {'width': None, 'height': None}, {'width': 0, 'height': 0}])
def test_where_a_json_has_no_sizes_the_files_count(files, said):
    for name in ('photos/a.jpg', 'photos/b.jpg'):
        files.image(name)
    path = files.coco('all.json', {'a.jpg': ['cat'], 'b.jpg': ['cat']}, ['cat'])
    data = json.loads(path.read_text())
    for image in data['images']:
        del image['width'], image['height']
        image.update(said)
    path.write_text(json.dumps(data))
    source = read(files)
    assert boxes(source) == [('photos/a.jpg', 'cat'), ('photos/b.jpg', 'cat')]
    assert {(image['width'], image['height']) for image in source.data['images']} == {(40, 30)}
    assert list(map(str, source.faults)) == [
        f"all.json: image {number} '{name}': image size missing: json says none, file has 40x30; "
        'used the file'
        for number, name in enumerate(('a.jpg', 'b.jpg'))
    ]


@pytest.mark.parametrize('listed', [True, False])
def test_a_missing_image_is_not_that_of_another_folder(files, listed):
    for name in ('camA/6.jpg', 'camB/7.jpg'):
        files.image(name)
    images = {'camA/6.jpg': ['cat'], 'camA/7.jpg': ['cat']}
    files.coco(
        'all.json', {**images, **({'camB/7.jpg': ['dog']} if listed else {})}, ['cat', 'dog']
    )
    source = read(files)
    assert boxes(source) == [('camA/6.jpg', 'cat')] + [('camB/7.jpg', 'dog')] * listed
    assert (source.faults[0].kind, source.faults[0].where) == (
        'missing image',
        'all.json: camA/7.jpg',
    )


def test_an_entry_that_names_an_image_by_its_path_comes_first(files):
    files.image('camB/7.jpg')
    files.coco('all.json', {'gone/7.jpg': ['cat'], 'camB/7.jpg': ['dog']}, ['cat', 'dog'])
    source = read(files)
    assert boxes(source) == [('camB/7.jpg', 'dog')]
    assert source.faults[0].kind == 'file listed twice'


def test_a_path_with_dots_is_the_image_that_it_leads_to(files):
    files.image('images/a.jpg')
    files.coco('all.json', {'images/../images/a.jpg': ['cat']}, ['cat'])
    source = read(files)
    assert boxes(source) == [('images/a.jpg', 'cat')] and source.faults == []


def test_a_path_counts_from_the_json_before_it_does_from_the_folder(files):
    for path in ('1.jpg', 'train/1.jpg', 'valid/1.jpg'):
        files.image(path)
    files.coco('train/_annotations.coco.json', {'1.jpg': ['cat']}, ['cat', 'dog'])
    files.coco('valid/_annotations.coco.json', {'1.jpg': ['dog']}, ['cat', 'dog'])
    source = read(files)
    assert boxes(source) == [('train/1.jpg', 'cat'), ('valid/1.jpg', 'dog')]
    assert splits(source) == {'train/1.jpg': 'train', 'valid/1.jpg': 'val'}
    assert kinds(source) == ['image in no json']


@pytest.mark.parametrize(
    'file, name',
    [
        ('a b#1.jpg', 'https://somewhere.org/x/a%20b%231.jpg?raw=1'),
        ('images/a b.jpg', 'images/a%20b.jpg'),
        ('images/a b.jpg', '/data/local-files/?d=mine/images/a%20b.jpg'),
        ('a.jpg', '/data/local-files/?d=a.jpg'),
        ('100%25.jpg', '100%25.jpg'),
        ('Ka\u0308se.jpg', 'K\u00e4se.jpg'),  # as macOS packs it
        ('images/Ka\u0308se.jpg', 'images/K\u00e4se.jpg'),
        ('K\u00e4se.jpg', 'Ka\u0308se.jpg'),
    ],
)
def test_names_of_web_addresses_and_of_macos_find_their_image(files, file, name):
    files.image(file)
    files.coco('boxes.json', {name: ['cat']}, ['cat'])
    source = read(files)
    assert boxes(source) == [(file, 'cat')] and not source.faults


def test_images_in_a_linked_folder_are_found_once(files):
    files.image('photos/1.jpg')
    files.coco('data/train.json', {'1.jpg': ['cat']}, ['cat'])
    (files.root / 'data/images').symlink_to(files.root / 'photos')
    (files.root / 'photos/above').symlink_to(files.root / 'photos')
    source = read(files, 'data', images='data')
    assert boxes(source) == [('images/1.jpg', 'cat')] and not source.faults
