import json

import pytest
from mmdet.datasets import CocoDataset

from condconv_det.compat.annotations import AnnotationError

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


def test_a_whole_file_loads(tmp_path):
    path = tmp_path / 'whole.json'
    path.write_text(json.dumps(WHOLE))
    assert len(load(path)) == 1
