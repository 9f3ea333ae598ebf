import json
import shutil

import pytest
from mmdet.datasets import CocoDataset

from condconv_det.data.select_images import select_images
from condconv_det.data.shapes import CLASSES, DOMAINS, make_shapes

NUM_TRAIN = 18


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp('shapes') / 'shapes'
    make_shapes(root, dict(train=NUM_TRAIN, val=6, test=6), size=64)
    return root


def looks(path):
    return [image['domain'] for image in json.loads(path.read_text())['images']]


def file_names(path):
    return {image['file_name'] for image in json.loads(path.read_text())['images']}


def test_all_images_of_the_values_are_taken(shapes, tmp_path):
    files = select_images(shapes, tmp_path / 'out', 'domain', ['fog', 'night'], None, 0)
    assert sorted(looks(files['train'])) == ['fog'] * 3 + ['night'] * 3
    assert sorted(looks(files['val'])) == ['fog', 'night']
    assert sorted(looks(files['test'])) == ['fog', 'night']


def test_training_images_are_shared_out_equally_and_a_smaller_share_lies_in_a_larger(
    shapes, tmp_path
):
    some = select_images(shapes, tmp_path / 'some', 'domain', ['fog', 'night'], 3, 0)
    more = select_images(shapes, tmp_path / 'more', 'domain', ['fog', 'night'], 4, 0)
    assert sorted(looks(some['train'])) == ['fog', 'fog', 'night']
    assert sorted(looks(more['train'])) == ['fog', 'fog', 'night', 'night']
    assert file_names(some['train']) < file_names(more['train'])
    assert len(looks(some['val'])) == 2


def test_seeds_draw_other_images(shapes, tmp_path):
    drawn = {
        frozenset(
            file_names(
                select_images(shapes, tmp_path / str(seed), 'domain', DOMAINS, 6, seed)['train']
            )
        )
        for seed in range(5)
    }
    assert len(drawn) > 1


def test_configs_of_the_whole_set_and_what_they_trained_stay_with_it(shapes, tmp_path):
    source = tmp_path / 'mine'
    shutil.copytree(shapes, source)
    (source / 'ssd300_mobilenet-v1-0.5_mine.py').touch()
    (source / 'ssd300_mobilenet-v1-0.5_mine').mkdir()
    select_images(source, tmp_path / 'out', 'domain', ['fog'], None, 0)
    left = {path.name for path in source.iterdir()} - {path.name for path in shapes.iterdir()}
    assert left == {'ssd300_mobilenet-v1-0.5_mine.py', 'ssd300_mobilenet-v1-0.5_mine'}
    found = {path.name for path in (tmp_path / 'out').iterdir()}
    assert found == {path.name for path in source.iterdir()} - left


def test_a_folder_in_the_source_has_no_link_to_itself(shapes, tmp_path):
    source = tmp_path / 'mine'
    shutil.copytree(shapes, source)
    select_images(source, source / 'fog', 'domain', ['fog'], None, 0)
    found = {path.name for path in (source / 'fog').iterdir()}
    assert found == {path.name for path in shapes.iterdir()}


def test_mmdet_reads_what_is_written(shapes, tmp_path):
    select_images(shapes, tmp_path / 'out', 'domain', ['fog', 'night'], 4, 0)
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='mmdet.LoadAnnotations', with_bbox=True),
    ]
    dataset = CocoDataset(
        data_root=str(tmp_path / 'out'),
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        metainfo=dict(classes=CLASSES),
        pipeline=pipeline,
    )
    boxes = json.loads((tmp_path / 'out/annotations/train.json').read_text())['annotations']
    assert len(dataset) == 4
    assert sum(len(dataset[i]['gt_bboxes']) for i in range(4)) == len(boxes)
    assert dataset[0]['img'].shape == (64, 64, 3)


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (dict(key='camera'), "18 images have no 'camera', as "),
        (dict(values=['fog', 'mist']), "no image has domain 'mist', but daylight, fog, night"),
        (dict(values=['fog', 'fog']), "values of 'domain' are named twice: fog"),
        (dict(num_train=9), "'fog' has 3 training images, 5 are wanted"),
        (dict(num_train=1), '1 training images are too few for 2 values'),
    ],
)
def test_what_cannot_be_selected_is_an_error_and_leaves_nothing(shapes, tmp_path, change, message):
    arguments = dict(key='domain', values=['fog', 'night'], num_train=None, seed=0) | change
    with pytest.raises(ValueError, match=message):
        select_images(shapes, tmp_path / 'out', **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('content', ['[]', '{"images": []}', 'no json'])
def test_a_json_of_another_kind_is_named(tmp_path, content):
    for split in ('train', 'val', 'test'):
        path = tmp_path / 'source/annotations' / f'{split}.json'
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    with pytest.raises(ValueError, match=r'train\.json is not'):
        select_images(tmp_path / 'source', tmp_path / 'out', 'domain', ['fog'], None, 0)


def test_what_is_there_is_not_written_over(shapes, tmp_path):
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/mine.txt').write_text('mine')
    with pytest.raises(FileExistsError, match='not an empty folder'):
        select_images(shapes, tmp_path / 'out', 'domain', ['fog'], None, 0)
    assert (tmp_path / 'out/mine.txt').read_text() == 'mine'
