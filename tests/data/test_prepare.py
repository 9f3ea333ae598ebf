"""A folder of images and boxes, made ready to train on."""

import json

import pytest

from condconv_det.data import prepare as module
from condconv_det.data.check_coco import check_coco
from condconv_det.data.check_images import check_images
from condconv_det.data.coco_faults import level
from condconv_det.data.prepare import prepare


@pytest.fixture
def source(files):
    """Twenty images, the second half of which resembles the first; four have no box."""
    for number in range(20):
        like = f'photos/{number - 10}.jpg' if number >= 10 else None
        files.image(f'photos/{number}.jpg', like)
        files.voc(f'xmls/{number}.xml', *['cat', 'dog'][: (number % 5 > 0) * (1 + number % 2)])
    return files


def read(done):
    return {split: json.loads(path.read_text()) for split, path in done.files.items()}


def names(data):
    return {image['file_name'] for image in data['images']}


def test_what_is_written_is_whole_and_alike_images_are_together(source, tmp_path):
    done = prepare(source.root, tmp_path / 'out')
    written = read(done)
    assert done.classes == ('cat', 'dog') and done.kept_splits == () and done.faults == []
    assert done.num_images == {'train': 14, 'val': 4, 'test': 2}
    assert (done.alike, done.leaks) == (20, 0)
    for split, data in written.items():
        found = check_coco(data).faults + check_images(data, done.images).faults
        assert [fault for fault in found if level(fault, True) != 'note'] == []
        assert sum(done.boxes[split].values()) == len(data['annotations'])
        if split == 'train':
            with_boxes = {annotation['image_id'] for annotation in data['annotations']}
            assert done.background == len(data['images']) - len(with_boxes) > 0
        numbers = {int(name.removeprefix('photos/')[:-4]) for name in names(data)}
        assert numbers == {(number + 10) % 20 for number in numbers}
    assert len(set.union(*map(names, written.values()))) == 20
    # 20x12 in 40x30
    assert len(done.sides) == len(written['train']['annotations'])
    assert done.sides == pytest.approx(done.sides * 0 + [0.5, 0.4])
    assert (
        prepare(source.root, tmp_path / 'again').files['val'].read_text()
        == done.files['val'].read_text()
    )
    other = read(prepare(source.root, tmp_path / 'other', seed=1))
    assert names(other['test']) != names(written['test'])


def test_each_image_is_decoded_once(source, tmp_path, monkeypatch):
    decoded, decode = [], module.decode
    monkeypatch.setattr(
        module, 'decode', lambda content: decoded.append(content) or decode(content)
    )
    prepare(source.root, tmp_path / 'out')
    assert len(decoded) == 20 == len(set(decoded))


def test_an_image_whose_json_has_no_size_is_decoded_once(files, tmp_path, monkeypatch):
    for number in range(6):
        files.image(f'{number}.jpg')
    files.coco('all.json', {f'{number}.jpg': ['cat'] for number in range(6)}, ['cat'], width=0)
    path = files.root / 'all.json'
    path.write_text(path.read_text().replace('"height": 30', '"height": null'))
    decoded, decode = [], module.decode
    monkeypatch.setattr(
        module, 'decode', lambda content: decoded.append(content) or decode(content)
    )
    prepare(files.root, tmp_path / 'out')
    assert len(decoded) == 6 == len(set(decoded))


def test_the_sources_own_splits_are_kept_and_what_they_share_is_counted(source, tmp_path):
    numbers = list(map(str, range(20)))
    for split, part in dict(train=numbers[:12], val=numbers[12:16], test=numbers[16:]).items():
        source.write(f'ImageSets/Main/{split}.txt', '\n'.join(part))
    done = prepare(source.root, tmp_path / 'out')
    assert done.kept_splits == ('train', 'val', 'test')
    assert done.num_images == {'train': 12, 'val': 4, 'test': 4} and done.leaks == 8
    anew = prepare(source.root, tmp_path / 'anew', resplit=True)
    assert anew.kept_splits == () and anew.leaks == 0


def test_images_in_no_list_are_left_out_unless_all_are_dealt_anew(source, tmp_path):
    for split, numbers in dict(train=range(1, 12), val=range(12, 16), test=range(16, 20)).items():
        source.write(f'ImageSets/Main/{split}.txt', '\n'.join(map(str, numbers)))
    done = prepare(source.root, tmp_path / 'out')
    assert done.kept_splits == ('train', 'val', 'test')
    assert done.num_images == {'train': 11, 'val': 4, 'test': 4}
    assert [str(fault) for fault in done.faults] == [
        'source: image in no list: 1 image left out, the first xmls/0'
    ]
    anew = prepare(source.root, tmp_path / 'anew', resplit=True)
    assert sum(anew.num_images.values()) == 20 and anew.faults == []


@pytest.mark.parametrize(
    'folder, says',
    [('', '1 of 9 images are in none, the first 8.jpg'), ('valid/', 'none is train')],
)
def test_why_splits_are_not_kept_is_said(files, tmp_path, folder, says):
    for number in range(9):
        split = ('train/', 'test/')[number % 2] if not folder or number % 2 else folder
        name = f'{split if number < 8 else folder}{number}'
        files.image(f'{name}.jpg')
        files.voc(f'{name}.xml', 'cat')
    done = prepare(files.root, tmp_path / 'out')
    assert done.kept_splits == ()
    assert [str(fault) for fault in done.faults] == [
        f'source: splits not kept: {says}; all images are dealt out anew'
    ]
    assert prepare(files.root, tmp_path / 'anew', resplit=True).faults == []


def test_images_of_a_folder_stay_together(files, tmp_path):
    for number in range(12):
        files.image(f'site{number % 4}/{number}.jpg')
        files.yolo(f'site{number % 4}/{number}.txt', 0)
    files.write('classes.txt', 'cat')
    done = prepare(files.root, tmp_path / 'out', group_by='folder')
    folders = [{name[:5] for name in names(data)} for data in read(done).values()]
    assert sorted(map(len, folders)) == [1, 1, 2] and len(set.union(*folders)) == 4


def test_ignored_boxes_size_no_anchors(files, tmp_path):
    for number in range(6):
        files.image(f'{number}.jpg')
        path = files.voc(f'{number}.xml', 'cat', 'dog')
        path.write_text(path.read_text().replace('<bndbox>', '<difficult>1</difficult><bndbox>', 1))
    done = prepare(files.root, tmp_path / 'out')
    assert 2 * len(done.sides) == sum(done.boxes['train'].values())
    for path in files.root.glob('*.xml'):
        text = path.read_text()
        path.write_text(text.replace('</name><bndbox>', '</name><difficult>1</difficult><bndbox>'))
    with pytest.raises(ValueError, match='no box of the training images may be learned: all are '):
        prepare(files.root, tmp_path / 'none')
    assert not (tmp_path / 'none').exists()


def test_a_crowd_is_no_box(files, tmp_path):
    for split, crowds in dict(train=1, val=2, test=0).items():
        files.image(f'{split}.jpg')
        path = files.coco(f'{split}.json', {f'{split}.jpg': ['cat', 'cat']}, ['cat'])
        path.write_text(path.read_text().replace('"iscrowd": 0', '"iscrowd": 1', crowds))
    with pytest.raises(
        ValueError, match='1 images that .* for val has a box .* crowd; `--resplit`'
    ):
        prepare(files.root, tmp_path / 'out')
    with pytest.raises(ValueError, match='cannot be parted'):
        prepare(files.root, tmp_path / 'out', resplit=True)
    path = files.root / 'val.json'
    path.write_text(path.read_text().replace('"iscrowd": 1', '"iscrowd": 0', 1))
    done = prepare(files.root, tmp_path / 'out')
    assert [done.boxes[split]['cat'] for split in ('train', 'val', 'test')] == [1, 1, 2]
    assert len(read(done)['val']['annotations']) == 2


@pytest.mark.parametrize(
    'arguments, says',
    [
        (dict(ratios=dict(train=1, val=0, test=1)), "ratios must be above 0 for .* 'val': 0"),
        (dict(ratios=dict(train=0.8, val=0.2)), 'ratios must be above 0 for .*test'),
        (dict(ratios=dict(train=1, val=float('inf'), test=1)), "above 0 for .* 'val': inf"),
        (dict(seed=-1), 'seed must be at least 0, got -1'),
        (dict(classes=['cat', 'cat']), 'a class is given more than once: cat, cat'),
        (dict(group_by='site'), "20 of 20 images have no 'site' to group them by"),
        (
            dict(alike=-1),
            '20 images in 1 groups of alike images with boxes cannot be parted in train',
        ),
        (dict(classes=['emu']), 'no box of .*source can be used; classes with boxes: cat, dog;'),
        (dict(format='yolo'), 'has no data.yaml or classes.txt'),
    ],
)
def test_unusable_arguments_are_one_error_and_nothing_is_written(source, tmp_path, arguments, says):
    with pytest.raises(ValueError, match=says):
        prepare(source.root, tmp_path / 'out', **arguments)
    assert not (tmp_path / 'out').exists()


def test_the_source_is_not_written_into(source):
    with pytest.raises(
        ValueError, match='output folder .*out must lie outside the source .*source'
    ):
        prepare(source.root, source.root / 'out')
    assert not (source.root / 'out').exists()


def test_a_split_of_the_source_without_boxes_is_an_error(files, tmp_path):
    for number, split in enumerate(('train', 'train', 'train', 'val', 'test')):
        files.image(f'{split}/{number}.jpg')
        files.voc(f'{split}/{number}.xml', *['cat'] * (split != 'val'))
    with pytest.raises(
        ValueError, match='none of the 1 images .* for val has a box .* images that nobody labelled'
    ):
        prepare(files.root, tmp_path / 'out')
    assert prepare(files.root, tmp_path / 'out', resplit=True).boxes['val'] == {'cat': 1}
