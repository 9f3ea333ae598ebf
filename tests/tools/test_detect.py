import shutil

import cv2
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    """Works in a folder with an image and a file that is none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'in').mkdir()
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    cv2.imwrite('in/a.png', pixels)
    (tmp_path / 'in' / 'empty.jpg').touch()


def test_draws_lists_and_reports_broken_images_at_the_end(run_tool, trained, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        run_tool('detect.py', 'in', *trained['routed'], '--out-dir', 'out', '--device', 'cpu')
    assert '1 of 2 images could not be read:\n' in str(ended.value)
    assert 'empty.jpg cannot be read: its 0 bytes' in str(ended.value)
    assert '1 picture, and as many lists of boxes, in out' in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / 'out').iterdir()) == ['a.png', 'a.png.json']


def test_takes_the_demos_checkpoint_if_none_is_named(run_tool, trained, tmp_path):
    with pytest.raises(
        SystemExit, match='work_dirs/demo/condconv/seed0 holds no trained detector.*`make demo`'
    ):
        run_tool('detect.py', 'in/a.png')
    shutil.copytree(trained['routed'][0].parent, tmp_path / 'work_dirs/demo/condconv/seed0')
    run_tool('detect.py', 'in/a.png')
    assert (tmp_path / 'work_dirs' / 'detect' / 'a.png').is_file()


@pytest.mark.parametrize(
    'arguments, says',
    [
        (['nowhere'], 'error: there is no image in nowhere'),
        (['in', 'no.py', 'no.pth'], 'error: config no.py does not exist'),
    ],
)
def test_what_is_missing_is_one_line(run_tool, arguments, says):
    with pytest.raises(SystemExit, match=says):
        run_tool('detect.py', *arguments)


def test_a_module_that_a_config_cannot_import_is_an_error(run_tool, tmp_path):
    (tmp_path / 'lacking.py').write_text("custom_imports = dict(imports=['no_such_module'])")
    with pytest.raises(SystemExit, match='^error: Failed to import .*no_such_module'):
        run_tool('detect.py', 'in', 'lacking.py', 'none.pth')


@pytest.mark.parametrize(
    'arguments, says',
    [
        (['--score-thr', '1.5'], 'expected a score from 0 to 1, got 1.5'),
        (['config.py'], 'a config needs its checkpoint'),
        (['--wait'], 'unrecognized arguments: --wait'),
    ],
)
def test_an_unsupported_option_is_named(run_tool, capsys, arguments, says):
    with pytest.raises(SystemExit):
        run_tool('detect.py', 'in', *arguments)
    assert says in capsys.readouterr().err
