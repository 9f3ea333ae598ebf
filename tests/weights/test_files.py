"""Files and folders that are there whole or not at all."""

import pytest

from condconv_det.weights.files import folder_written_whole


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
