import pytest

from condconv_det.analysis import read_config


@pytest.fixture
def config(tmp_path):
    (tmp_path / 'base.py').write_text('model = dict(depth=18)')
    (tmp_path / 'config.py').write_text("_base_ = 'base.py'")
    return tmp_path / 'config.py'


def test_options_override_what_is_inherited(config):
    assert read_config(config).model.depth == 18
    assert read_config(config, {'model.depth': 50}).model.depth == 50


@pytest.mark.parametrize(
    'name, content, error, says',
    [
        (
            'broken.py',
            'model = dict(',
            ValueError,
            'broken.py is not a config file: .* never closed',
        ),
        ('weights.pth', 'model', ValueError, 'weights.pth is not a config file: Only py'),
        ('data.py', 'dataset = dict()', ValueError, 'config .*data.py has no model'),
        ('nowhere.py', None, FileNotFoundError, 'config .*nowhere.py does not exist'),
        ('folder.py', '', FileNotFoundError, 'config .*folder.py does not exist'),
    ],
)
def test_what_is_no_config_of_a_network_is_named(tmp_path, name, content, error, says):
    if content:
        (tmp_path / name).write_text(content)
    elif content == '':
        (tmp_path / name).mkdir()
    with pytest.raises(error, match=says):
        read_config(tmp_path / name)
