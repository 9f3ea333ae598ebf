import pytest

from condconv_det.data.shapes import make_shapes


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_shapes(tmp_path / 'shapes', dict(train=6, val=6, test=6), size=64)


def test_says_what_was_selected(shapes, tmp_path, run_tool, capsys):
    run_tool('select_images.py', 'shapes', 'some', '--key', 'domain', '--values', 'fog', 'night')
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(';')[0] for line in lines] == [
        f'{split}: night 1, fog 1' for split in ('train', 'val', 'test')
    ]
    assert (tmp_path / 'some/train').samefile(tmp_path / 'shapes/train')


def test_a_folder_without_annotations_is_one_line(shapes, run_tool):
    arguments = ('nowhere', 'some', '--key', 'domain', '--values', 'fog')
    with pytest.raises(SystemExit, match=r'error: nowhere/annotations/train\.json does not exist'):
        run_tool('select_images.py', *arguments)
