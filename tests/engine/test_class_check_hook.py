"""The hook, and `analysis.classes`, which does its work."""

import json
from types import SimpleNamespace

import pytest
from torch import nn

from condconv_det.engine import ClassCheckHook


class Head(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes


def runner(num_classes, classes, found, place='bbox_head'):
    model = nn.Module()
    parent = model
    *parents, name = place.split('.')
    for part in parents:
        parent.add_module(part, nn.Module())
        parent = getattr(parent, part)
    parent.add_module(name, Head(num_classes))
    dataset = SimpleNamespace(
        metainfo=dict(classes=classes), cat_ids=list(range(found)), ann_file='boxes.json'
    )
    loader = SimpleNamespace(dataset=SimpleNamespace(dataset=dataset, metainfo=dataset.metainfo))
    return SimpleNamespace(
        model=model,
        train_dataloader=loader,
        val_dataloader=loader,
        test_dataloader=loader,
    )


STAGES = [ClassCheckHook().before_train, ClassCheckHook().before_val, ClassCheckHook().before_test]


@pytest.mark.parametrize('stage', STAGES)
def test_matching_lists_pass(stage):
    stage(runner(2, ('cat', 'dog'), found=2))


@pytest.mark.parametrize(
    'place', ['bbox_head', 'head', 'roi_head.bbox_head', 'module.roi_head.bbox_head.0']
)
@pytest.mark.parametrize('stage', STAGES)
def test_a_head_of_another_size_is_named(stage, place):
    with pytest.raises(ValueError, match='Head has num_classes=80.* 2 classes: cat, dog'):
        stage(runner(80, ('cat', 'dog'), found=2, place=place))


@pytest.mark.parametrize('stage', STAGES)
@pytest.mark.parametrize(
    'has, classes, says',
    [
        (
            ('cat', 'bird'),
            ('cat', 'dog'),
            'lacks 1 of the 2 classes .*: dog; it has bird, cat. Set',
        ),
        (('Cat',), ('cat', 'dog'), 'lacks 2 of the 2 .*: cat, dog; it has Cat. Set metainfo'),
        (('cat', 'dog', 'cat'), ('cat', 'dog'), 'or the config names a class twice: cat$'),
        (('cat', 'dog'), ('cat', 'cat', 'dog'), 'or the config names a class twice: cat$'),
    ],
)
def test_classes_that_the_file_lacks_are_named_and_those_that_it_has(
    stage, tmp_path, has, classes, says
):
    found = len([name for name in has if name in classes])
    run = runner(len(classes), classes, found)
    file = tmp_path / 'boxes.json'
    categories = [dict(id=index, name=name) for index, name in enumerate(has)]
    file.write_text(json.dumps(dict(categories=categories)))
    run.train_dataloader.dataset.dataset.ann_file = str(file)
    with pytest.raises(ValueError, match=f'boxes.json {says}'):
        stage(run)


def of_folders(folders, classes):
    run = runner(len(classes), classes, found=len(classes), place='head')
    dataset = run.train_dataloader.dataset.dataset
    dataset.folder_to_idx = {folder: index for index, folder in enumerate(folders)}
    dataset.img_prefix = 'crops/train'
    return run


@pytest.mark.parametrize('stage', STAGES)
def test_class_folders_in_another_order_are_named(stage):
    stage(of_folders(('cat', 'dog'), ('cat', 'dog')))
    with pytest.raises(ValueError, match='crops/train has .* cat, dog, but .* names dog, cat'):
        stage(of_folders(('cat', 'dog'), ('dog', 'cat')))


@pytest.mark.parametrize('stage', STAGES)
def test_folders_with_names_of_their_own_as_imagenets_pass(stage):
    stage(of_folders(('n01440764', 'n01443537'), ('tench', 'goldfish')))
