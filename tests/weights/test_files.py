"""Files and folders that are there whole or not at all."""

import os

import pytest
import torch

from condconv_det.weights.files import folder_written_whole, read_checkpoint, written_whole


def test_a_file_is_written_through_a_link(tmp_path):
    file, link = tmp_path / 'file', tmp_path / 'link.txt'
    file.write_text('old')
    link.symlink_to(file)
    with written_whole(link) as partial:
        partial.write_text('new')
    assert partial.suffix == '.txt'  # some that write a file go by it
    assert link.is_symlink() and file.read_text() == 'new'
    assert sorted(tmp_path.iterdir()) == [file, link]


def test_of_two_processes_that_write_a_file_at_once_each_writes_its_own_whole(
    tmp_path, monkeypatch
):
    file = tmp_path / 'file.txt'
    with written_whole(file) as slow:
        slow.write_text('half')
        monkeypatch.setattr(os, 'getpid', lambda: -1)
        with written_whole(file) as quick:
            quick.write_text('whole')
        assert (slow.read_text(), file.read_text()) == ('half', 'whole')
    assert file.read_text() == 'half' and list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize('is_there', [True, False])
def test_a_folder_is_written_through_a_link(tmp_path, is_there):
    folder, link = tmp_path / 'elsewhere' / 'folder', tmp_path / 'link'
    folder.parent.mkdir()
    link.symlink_to(folder)
    if is_there:
        folder.mkdir()
    with folder_written_whole(link) as partial:
        (partial / 'file').touch()
    assert link.is_symlink()
    assert sorted(tmp_path.rglob('*')) == [folder.parent, folder, folder / 'file', link]


def test_a_folder_that_fails_midway_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), folder_written_whole(tmp_path / 'out') as partial:
        (partial / 'file').touch()
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'meta',
    [
        dict(CLASSES=('cat', 'dog')),
        dict(dataset_meta=dict(CLASSES=('cat', 'dog'), PALETTE=None)),
        dict(dataset_meta=dict(classes=('cat', 'dog'))),
        dict(dataset_meta=[dict(classes=('cat', 'dog'), palette=each) for each in (None, 'coco')]),
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
