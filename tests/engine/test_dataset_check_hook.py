import json
import logging
from types import SimpleNamespace

import pytest
from mmdet.datasets import CocoDataset
from mmdet.evaluation import CocoMetric
from mmengine.dataset import ClassBalancedDataset, ConcatDataset, RepeatDataset
from mmengine.evaluator import Evaluator

from condconv_det.compat.data_errors import AnnotationError
from condconv_det.data.shapes import CLASSES, make_shapes
from condconv_det.engine import DatasetCheckHook


@pytest.fixture
def root(tmp_path):
    make_shapes(tmp_path / 'shapes', dict(train=4, val=4), size=64)
    return tmp_path / 'shapes'


def dataset(root, split='train', **kwargs):
    return CocoDataset(
        data_root=str(root),
        ann_file=f'annotations/{split}.json',
        data_prefix=dict(img=f'{split}/'),
        metainfo=dict(classes=CLASSES),
        pipeline=[],
        test_mode=split != 'train',
        **kwargs,
    )


def runner(train, val=None, *metrics):
    loop = SimpleNamespace(evaluator=Evaluator(metrics))
    return SimpleNamespace(
        rank=0,
        iter=0,
        logger=logging.getLogger('test'),
        train_dataloader=SimpleNamespace(dataset=train),
        val_loop=val and loop,
        val_dataloader=SimpleNamespace(dataset=val),
        test_loop=loop,
        test_dataloader=SimpleNamespace(dataset=val),
    )


def change(root, split='train', **values):
    path = root / 'annotations' / f'{split}.json'
    data = json.loads(path.read_text())
    data['annotations'][0].update(values)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize(
    'wrap',
    [
        lambda plain: plain,
        lambda plain: RepeatDataset(plain, 2),
        lambda plain: ConcatDataset([plain, plain]),
        lambda plain: ClassBalancedDataset(plain, 0.0),
    ],
)
def test_an_error_stops_the_training_and_is_named_inside_any_wrapper(root, wrap):
    DatasetCheckHook().before_train(runner(wrap(dataset(root)), dataset(root, 'val')))
    change(root, bbox=[90, 5, 9, 9])
    says = (
        r'(?s)train.json has 1 fault:.*annotation .*box outside.*tools/check_dataset.py .*train'
        r'.*; with `--fix OUT.json` it writes a file without them'
    )
    with pytest.raises(AnnotationError, match=says):
        DatasetCheckHook().before_train(runner(wrap(dataset(root))))


def test_its_command_can_be_run_where_a_folder_has_a_blank_in_its_name(root):
    root = root.rename(root.with_name('my shapes'))
    change(root, bbox=[90, 5, 9, 9])
    says = "check_dataset.py '.*/my shapes/.*/train.json' --images '.*/my shapes/train/'`"
    with pytest.raises(AnnotationError, match=says):
        DatasetCheckHook().before_train(runner(dataset(root)))


def test_no_mended_file_is_promised_where_none_is_written(root):
    path = root / 'annotations' / 'train.json'
    data = json.loads(path.read_text())
    data['categories'].append(data['categories'][0])  # which a person has to decide on
    path.write_text(json.dumps(data))
    with pytest.raises(AnnotationError, match='category listed twice(?s:.*)` names all$'):
        DatasetCheckHook().before_train(runner(dataset(root)))


def test_of_many_errors_the_first_are_named(root):
    path = root / 'annotations' / 'train.json'
    data = json.loads(path.read_text())
    extra = [dict(data['annotations'][0], id=n, bbox=[90, 5, 9, 9]) for n in range(100, 120)]
    data['annotations'] += extra
    path.write_text(json.dumps(data))
    with pytest.raises(AnnotationError, match=r'has 20 faults:(\n  .*){5}\n  ... and 15 more\n'):
        DatasetCheckHook().before_train(runner(dataset(root)))


def test_a_warning_is_logged_and_training_goes_on(root, caplog):
    change(root, category_id=99)
    DatasetCheckHook().before_train(runner(dataset(root)))
    assert 'unknown category: category_id 99' in caplog.text


def test_what_stops_validation_alone_is_found_before_training(root):
    for split in ('train', 'val'):
        change(root, split, iscrowd=None)
    DatasetCheckHook().before_train(runner(dataset(root)))
    with pytest.raises(AnnotationError, match='val.json has 1 fault:'):
        DatasetCheckHook().before_train(runner(dataset(root), dataset(root, 'val')))


def test_a_broken_image_is_an_error_in_validation_and_a_warning_in_training(root, caplog):
    for split in ('train', 'val'):
        (root / split / '000000.jpg').write_bytes(b'')
    DatasetCheckHook().before_train(runner(dataset(root)))
    assert 'image file broken' in caplog.text
    with pytest.raises(AnnotationError, match='image file broken'):
        DatasetCheckHook().before_train(runner(dataset(root), dataset(root, 'val')))
    DatasetCheckHook(max_images=0).before_train(runner(dataset(root), dataset(root, 'val')))


def test_an_image_folder_without_the_images_stops_the_training(root):
    for path in (root / 'train').iterdir():
        path.rename(path.with_suffix('.jpeg'))
    with pytest.raises(AnnotationError, match='no usable image'):
        DatasetCheckHook().before_train(runner(dataset(root)))


def test_images_alone_need_no_list_of_annotations_where_none_are_filtered(root):
    path = root / 'annotations' / 'train.json'
    data = json.loads(path.read_text())
    del data['annotations']
    path.write_text(json.dumps(data))
    unlabeled = dataset(root, filter_cfg=dict(filter_empty_gt=False))
    DatasetCheckHook().before_train(runner(unlabeled))
    for train, val in ((dataset(root), None), (dataset(root, 'val'), unlabeled)):
        with pytest.raises(AnnotationError, match='expected a list of annotations, found null'):
            DatasetCheckHook().before_train(runner(train, val))


def test_sets_of_other_formats_are_passed_over():
    other = SimpleNamespace(ann_file=__file__, metainfo={})
    DatasetCheckHook().before_train(runner(other))


@pytest.mark.parametrize('stage', ['train', 'val', 'test'])
def test_detections_are_not_measured_by_the_boxes_of_other_images(root, stage):
    def measure(path, **kwargs):
        metric = CocoMetric(str(path), **kwargs)
        by = runner(dataset(root), dataset(root, 'val'), CocoMetric(), metric)
        getattr(DatasetCheckHook(), f'before_{stage}')(by)

    files = root / 'annotations'
    copy = files / 'copy.json'
    copy.write_bytes((files / 'val.json').read_bytes())
    measure(files / 'val.json')
    measure(copy)
    own = files / 'results.gt.json'  # as the metric writes it, without names
    own.write_bytes((files / 'train.json').read_bytes())
    measure(own)
    # of the same names
    measure(files / 'train.json', format_only=True, outfile_prefix='results')
    with pytest.raises(AnnotationError, match='boxes of .*train.json, but the data set .*val.json'):
        measure(files / 'train.json')
    data = json.loads(copy.read_text())
    data['images'].append(dict(data['images'][0], id=len(data['images']) + 1, file_name='more.jpg'))
    copy.write_text(json.dumps(data))
    measure(copy)  # of more images
    data['images'][0]['file_name'] = 'another.jpg'
    copy.write_text(json.dumps(data))
    with pytest.raises(AnnotationError, match='boxes of .*copy.json, but the data set .*val.json'):
        measure(copy)


def test_an_argument_out_of_range_is_named():
    with pytest.raises(ValueError, match='max_images must be at least 0, got -1'):
        DatasetCheckHook(max_images=-1)
