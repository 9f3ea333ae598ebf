import pytest
import torch

from condconv_det.weights.files import read_checkpoint


@pytest.mark.parametrize(
    'meta',
    [
        dict(CLASSES=('cat', 'dog')),
        dict(dataset_meta=dict(CLASSES=('cat', 'dog'), PALETTE=None)),
        dict(dataset_meta=dict(classes=('cat', 'dog'))),
        dict(dataset_meta=[dict(classes=('cat', 'dog'), palette=each) for each in (None, 'coco')]),
        dict(dataset_meta=[dict(classes=('cat', 'dog')), dict(classes=['cat', 'dog'])]),
    ],
)
def test_classes_are_found_under_all_their_names(tmp_path, meta):
    torch.save(dict(state_dict=dict(x=torch.zeros(1)), meta=meta), tmp_path / 'a.pth')
    found = read_checkpoint(tmp_path / 'a.pth')[1]
    assert found['dataset_meta']['classes'] == ('cat', 'dog')


def test_parts_of_other_classes_give_no_classes(tmp_path):
    meta = dict(dataset_meta=[dict(classes=('cat',)), dict(classes=('dog',))], epoch=3)
    torch.save(dict(state_dict=dict(x=torch.zeros(1)), meta=meta), tmp_path / 'a.pth')
    assert read_checkpoint(tmp_path / 'a.pth')[1] == dict(epoch=3)
