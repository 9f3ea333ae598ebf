import pytest
from mmengine.config import Config
from mmengine.model import PretrainedInit

from condconv_det.compat.missing_files import missing_files


def said(splits=('train', 'val'), training=True, **cfg):
    return list(missing_files(Config(cfg), splits, training))


def dataset(**arguments):
    return dict(dataset=dict(type='CocoDataset', **arguments))


def test_annotations_are_named_with_their_key_and_where_they_count_from(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = f'counts from the working folder, {tmp_path}'
    assert said(train_dataloader=dataset(data_root='data/', ann_file='train.json')) == [
        'annotation file data/train.json (train_dataloader.dataset.ann_file) does not exist; '
        f"ann_file counts from data_root, 'data/', which {here}"
    ]
    assert said(val_evaluator=[dict(ann_file='data/val.json')]) == [
        f'annotation file data/val.json (val_evaluator.0.ann_file) does not exist; ann_file {here}'
    ]
    assert said(val_evaluator=dict(ann_file='/data/val.json')) == [
        'annotation file /data/val.json (val_evaluator.ann_file) does not exist'
    ]
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data' / 'train.json').touch()
    assert said(train_dataloader=dataset(data_root='data/', ann_file='train.json')) == []


def test_a_data_set_inside_others_is_found():
    inner = dict(datasets=[dataset(ann_file='/no.json')['dataset']])
    loader = dict(dataset=dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', **inner)))
    (found,) = said(train_dataloader=loader)
    assert '(train_dataloader.dataset.dataset.datasets.0.ann_file)' in found


def test_what_the_run_does_not_read_or_is_elsewhere_is_not_looked_for():
    assert said(test_evaluator=dict(ann_file='no.json')) == []
    assert said(val_evaluator=None, val_dataloader=dataset(ann_file='')) == []
    assert said(train_dataloader=dataset(ann_file='s3://data/train.json')) == []
    assert (
        said(train_dataloader=dataset(ann_file='a.json', backend_args=dict(backend='petrel'))) == []
    )
    start = dict(backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='no.pth')))
    assert said(training=False, model=start) == []
    start['backbone']['init_cfg']['checkpoint'] = 'torchvision://resnet50'
    assert said(model=start, load_from='https://here/no.pth') == []


@pytest.mark.parametrize('kind', ['Pretrained', PretrainedInit])
def test_checkpoints_are_named_with_the_commands_that_make_them(kind):
    start = dict(init_cfg=dict(type=kind, checkpoint='no.pth'))
    assert said(load_from='no.pth') == ['checkpoint no.pth does not exist']
    assert said(model=dict(neck=start), trained_by=['train']) == [
        'checkpoint no.pth (model.neck.init_cfg.checkpoint) does not exist'
    ]
    (found,) = said(model=dict(backbone=start), trained_by=['make', 'train'])
    assert found.splitlines()[1:3] == ['  make', '  train'] and '--weights none' in found
