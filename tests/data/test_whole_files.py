"""Files and folders that are there whole or not at all."""

import os

import pytest

from condconv_det.data.whole_files import folder_written_whole, written_whole


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
