from pathlib import Path

import pytest
from mmengine.config import Config

from condconv_det.analysis.configs import build_model, read_config


@pytest.fixture
def config(tmp_path):
    (tmp_path / 'base.py').write_text('model = dict(depth=18)')
    (tmp_path / 'config.py').write_text("_base_ = 'base.py'")
    return tmp_path / 'config.py'


def test_options_override_what_is_inherited(config):
    assert read_config(config).model.depth == 18
    assert read_config(config, {'model.depth': 50}).model.depth == 50


def test_a_config_may_name_types_by_class_and_no_scope(tmp_path):
    path = tmp_path / 'classes.py'
    path.write_text(
        'from mmdet.models import DetDataPreprocessor\n'
        'default_scope = None\n'
        'model = dict(type=DetDataPreprocessor, pad_size_divisor=8)\n'
    )
    assert build_model(read_config(path)).pad_size_divisor == 8


@pytest.mark.parametrize(
    'name, content, error, says',
    [
        (
            'broken.py',
            'model = dict(',
            ValueError,
            'broken.py is not a config file: .* never closed',
        ),
        ('broken.json', '{', ValueError, 'broken.json is not a config file: Expecting'),
        (
            'unknown.py',
            'model = dict(depth=depth)',
            ValueError,
            "config .*unknown.py: NameError: name 'depth' is not defined",
        ),
        ('zero.py', 'model = dict(depth=1 / 0)', ValueError, 'config .*zero.py: ZeroDivisionError'),
        (
            'lacking.py',
            "custom_imports = dict(imports=['no_such_module'])",
            ImportError,
            'Failed to import custom modules .*no_such_module',
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


@pytest.mark.parametrize(
    'option, says',
    [
        ('schedule.1.end', 'KeyError: .Index 1 exceeds the length'),
        ('schedule.last', 'TypeError: list indices must be'),
    ],
)
def test_options_that_fit_no_list_name_the_config(tmp_path, option, says):
    (tmp_path / 'config.py').write_text('model = dict()\nschedule = [dict(end=5)]')
    with pytest.raises(ValueError, match=f'config .*config.py: {says}'):
        read_config(tmp_path / 'config.py', {option: 3})


@pytest.mark.parametrize(
    'model, says',
    [
        (dict(type='Unknown'), 'KeyError: .Unknown is not in the mmdet::model registry'),
        (dict(type='CondConvMobileNetV1', depth=18), "TypeError: .* argument 'depth'"),
        (dict(), 'KeyError: .* must contain the key "type"'),
    ],
)
def test_a_network_that_cannot_be_built_names_the_config(config, model, says):
    with pytest.raises(ValueError, match=f'config {config}: {says}'):
        build_model(Config(dict(model=model), filename=config))


def test_errors_of_a_networks_own_arguments_stay_as_they_are(config):
    model = dict(type='CondConvMobileNetV1', cond_cfg=dict(num_experts=0))
    with pytest.raises(ValueError, match='^num_experts must be an integer of at least 1'):
        build_model(Config(dict(model=model), filename=config))


def test_a_config_is_not_changed_by_building_its_network():
    shapes = Path(__file__).parents[2] / 'configs/shapes/ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
    cfg = read_config(shapes)
    before = cfg.pretty_text
    build_model(cfg)
    assert cfg.pretty_text == before


def test_a_network_gets_the_data_preprocessor_beside_it_as_the_runner_gives_it():
    pytest.importorskip('mmpretrain')
    imagenet = Path(__file__).parents[2] / 'configs/imagenet/mobilenet-v1-0.25_8xb32_in1k.py'
    cfg = read_config(imagenet)
    assert 'data_preprocessor' not in cfg.model
    preprocessor = build_model(cfg).data_preprocessor
    assert preprocessor.mean.flatten().tolist() == pytest.approx(cfg.data_preprocessor.mean)
