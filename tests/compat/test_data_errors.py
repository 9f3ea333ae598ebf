import json

import pytest
from mmdet.datasets import CocoDataset
from mmengine.registry import init_default_scope

from condconv_det.compat.data_errors import AnnotationError, ImageError
from condconv_det.data.shapes import CLASSES, make_shapes

WHOLE = dict(
    images=[dict(id=1, file_name='a.jpg', width=8, height=8)],
    annotations=[],
    categories=[dict(id=1, name='cell')],
)


def load(path):
    return CocoDataset(
        ann_file=str(path), metainfo=dict(classes=('cell',)), data_prefix=dict(img=''), pipeline=[]
    )


@pytest.mark.parametrize(
    'text, says',
    [
        ('', 'is not COCO json: JSONDecodeError'),
        (json.dumps(WHOLE)[:-20], 'is not COCO json: JSONDecodeError'),
        ('[1, 2]', 'is not COCO json'),
        (json.dumps({**WHOLE, 'images': [dict(file_name='a.jpg')]}), "KeyError: 'id'"),
        (json.dumps({**WHOLE, 'images': []}), 'has 0 images and 1 categories'),
        (json.dumps({'images': WHOLE['images']}), 'has 1 images and 0 categories'),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, says):
    path = tmp_path / 'broken.json'
    path.write_text(text)
    with pytest.raises(AnnotationError, match=says) as error:
        load(path)
    assert 'broken.json' in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere.json'):
        load(tmp_path / 'nowhere.json')


def test_annotation_ids_that_occur_twice_are_named_by_an_assertion_error_as_in_mmdet(tmp_path):
    path = tmp_path / 'twice.json'
    annotation = dict(id=1, image_id=1, category_id=1, bbox=[0, 0, 4, 4], area=16, iscrowd=0)
    path.write_text(json.dumps({**WHOLE, 'annotations': [annotation, annotation]}))
    with pytest.raises(
        AssertionError, match='twice.json.* are not unique!.*check_dataset'
    ) as error:
        load(path)
    assert isinstance(error.value, AnnotationError)


def test_other_entries_that_mmdet_cannot_read_are_no_assertion_error(tmp_path):
    path = tmp_path / 'my half.json'
    path.write_text(json.dumps({**WHOLE, 'annotations': [dict(id=1, image_id=1, category_id=1)]}))
    with pytest.raises(AnnotationError, match="KeyError: 'bbox'.*py '.*/my half.json'`") as error:
        load(path)
    assert not isinstance(error.value, AssertionError)


def test_a_whole_file_loads(tmp_path):
    path = tmp_path / 'whole.json'
    path.write_text(json.dumps(WHOLE))
    assert len(load(path)) == 1


def test_a_set_of_which_nothing_is_left_to_train_on_is_named(tmp_path):
    path = tmp_path / 'cells.json'
    path.write_text(json.dumps(WHOLE))
    usual = dict(ann_file=str(path), data_prefix=dict(img=''), pipeline=[])
    says = "'filter_empty_gt': True.*cells.json, leaves none of its 1 .*person, .*, the file cell$"
    with pytest.raises(AnnotationError, match=says):
        CocoDataset(**usual, filter_cfg=dict(filter_empty_gt=True))
    missing = dict(metainfo=dict(classes='no.txt'), filter_cfg=dict(min_size=9))
    with pytest.raises(AnnotationError, match="'min_size': 9.* the classes no.txt, the file cell$"):
        CocoDataset(**usual, **missing)
    assert len(load(path)) == 1


@pytest.fixture
def dataset(tmp_path):
    make_shapes(tmp_path / 'shapes', dict(train=2), size=64)
    init_default_scope('mmdet')
    return CocoDataset(
        data_root=str(tmp_path / 'shapes'),
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        metainfo=dict(classes=CLASSES),
        pipeline=[dict(type='LoadImageFromFile')],
    )


def test_the_command_for_a_broken_image_can_be_run_where_a_name_has_a_blank(dataset, tmp_path):
    (tmp_path / 'shapes' / 'train' / '000000.jpg').unlink()
    dataset.test_mode, dataset.ann_file = True, 'my train.json'
    with pytest.raises(ImageError, match="check_dataset.py 'my train.json' --images .* --decode"):
        dataset[0]


@pytest.mark.parametrize('content', [None, b'', b'not a picture'], ids=['gone', 'empty', 'text'])
def test_a_missing_or_broken_image_is_named(dataset, tmp_path, content):
    image = tmp_path / 'shapes' / 'train' / '000000.jpg'
    image.unlink() if content is None else image.write_bytes(content)
    with pytest.raises(ImageError, match='image .*000000.jpg cannot be read'):
        dataset[0]
