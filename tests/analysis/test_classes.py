import json
from types import SimpleNamespace

import pytest
from mmdet.datasets import CocoDataset, ConcatDataset, MOTChallengeDataset
from torch import nn

from condconv_det.analysis.classes import check_classes


class Head(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes


def network_and_data(num_classes, classes, found, place='bbox_head'):
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
    return model, SimpleNamespace(dataset=dataset, metainfo=dataset.metainfo)  # in a wrapper


def test_matching_lists_pass():
    check_classes(*network_and_data(2, ('cat', 'dog'), found=2))


@pytest.mark.parametrize(
    'place', ['bbox_head', 'head', 'roi_head.bbox_head', 'module.roi_head.bbox_head.0']
)
def test_a_head_of_another_size_is_named(place):
    with pytest.raises(ValueError, match='Head has num_classes=80.* 2 classes: cat, dog'):
        check_classes(*network_and_data(80, ('cat', 'dog'), found=2, place=place))


def test_a_name_without_its_comma_is_not_a_class_for_each_letter():
    with pytest.raises(ValueError, match=r"got 'cat', which is no file; one class is \('cat',\)$"):
        check_classes(*network_and_data(1, ('cat'), found=1))


def test_the_box_head_of_a_panoptic_detector_has_the_things_alone():
    for num_classes in (1, 2):
        model, data = network_and_data(num_classes, ('cat', 'grass'), found=2)
        data.metainfo['thing_classes'] = ['cat', 'dog']
        check_classes(model, data)
    model, data = network_and_data(3, ('cat', 'grass'), found=2)
    data.metainfo['thing_classes'] = ['cat', 'dog']
    with pytest.raises(ValueError, match='Head has num_classes=3.* 2 classes: cat, grass'):
        check_classes(model, data)


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
def test_classes_that_the_file_lacks_are_named_and_those_that_it_has(tmp_path, has, classes, says):
    found = len([name for name in has if name in classes])
    model, data = network_and_data(len(classes), classes, found)
    file = tmp_path / 'boxes.json'
    categories = [dict(id=index, name=name) for index, name in enumerate(has)]
    file.write_text(json.dumps(dict(categories=categories)))
    data.dataset.ann_file = str(file)
    with pytest.raises(ValueError, match=f'boxes.json {says}'):
        check_classes(model, data)


@pytest.fixture
def coco(tmp_path):
    """A data set of the classes cat and dog on a json of the categories that are given."""

    def coco(*categories, **metainfo):
        file = tmp_path / f'{"_".join(categories)}.json'
        data = dict(
            images=[dict(id=1, file_name='a.png', height=4, width=4)],
            annotations=[],
            categories=[dict(id=3 * index, name=name) for index, name in enumerate(categories)],
        )
        file.write_text(json.dumps(data))
        metainfo = dict(classes=('cat', 'dog')) | metainfo
        return CocoDataset(
            ann_file=str(file),
            metainfo=metainfo,
            data_prefix=dict(img=''),
            pipeline=[],
            test_mode=True,
        )

    return coco


def test_heads_that_find_words_count_no_classes():
    model, data = network_and_data(256, ('cat', 'dog'), found=2)
    model.language_model = nn.Module()  # Grounding DINO's
    check_classes(model, data)


def test_their_classes_are_those_of_each_file_in_its_order(coco):
    model = network(256)
    model.language_model = nn.Module()
    several = ConcatDataset([coco('cat', 'dog'), coco('cow', classes=('cow',))])
    check_classes(model, several)
    with pytest.raises(ValueError, match="json has .* class 0 is 'dog' there and 'cat' here"):
        check_classes(model, ConcatDataset([several.datasets[1], coco('dog', 'cat')]))


def test_detectors_of_pedestrians_are_validated_on_mot():
    """As by mmdet's configs, whose validation set names all kinds of MOT's ground truth."""
    model, data = network_and_data(1, MOTChallengeDataset.METAINFO['classes'], found=1)
    check_classes(model, data)


def network(num_classes=2):
    return network_and_data(num_classes, ('cat', 'dog'), found=2)[0]


def test_categories_in_another_order_are_named(coco):
    check_classes(network(), coco('cat', 'cow', 'dog'))
    with pytest.raises(ValueError, match="json has .* class 0 is 'dog' there and 'cat' here"):
        check_classes(network(), coco('dog', 'cow', 'cat'))


def test_each_part_of_a_data_set_is_checked(coco):
    check_classes(network(), ConcatDataset([coco('cat', 'dog'), coco('cat', 'dog')]))
    with pytest.raises(ValueError, match='dog.json lacks 1 of the 2 classes .*: cat; it has dog'):
        check_classes(network(), ConcatDataset([coco('cat', 'dog'), coco('dog')]))


def test_parts_may_differ_in_colours_and_not_in_classes(coco):
    coloured = ConcatDataset([coco('cat', 'dog'), coco('cat', 'dog', palette=[(1, 2, 3)] * 2)])
    assert isinstance(coloured.metainfo, list)
    check_classes(network(), coloured)
    with pytest.raises(ValueError, match='Head has num_classes=3, .* 2 classes: cat, dog'):
        check_classes(network(num_classes=3), coloured)
    other = ConcatDataset([coco('cat', 'dog'), coco('dog', 'cat', classes=('dog', 'cat'))])
    with pytest.raises(ValueError, match='parts .* name other classes: cat, dog; dog, cat'):
        check_classes(network(), other)


def of_folders(folders, classes):
    model, data = network_and_data(len(classes), classes, found=len(classes), place='head')
    data.dataset.folder_to_idx = {folder: index for index, folder in enumerate(folders)}
    data.dataset.img_prefix = 'crops/train'
    return model, data


def test_class_folders_in_another_order_are_named():
    check_classes(*of_folders(('cat', 'dog'), ('cat', 'dog')))
    with pytest.raises(ValueError, match='crops/train has .* cat, dog, but .* names dog, cat'):
        check_classes(*of_folders(('cat', 'dog'), ('dog', 'cat')))


def test_folders_with_names_of_their_own_as_imagenets_pass():
    check_classes(*of_folders(('n01440764', 'n01443537'), ('tench', 'goldfish')))
