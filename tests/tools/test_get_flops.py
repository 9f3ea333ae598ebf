from pathlib import Path

import pytest

CONFIG = (
    Path(__file__).parents[2] / 'configs/ssd/ssd300_mobilenet-v1-0.5-condconv-e8_8xb128-20k_coco.py'
)

STATIC = CONFIG.with_name(CONFIG.name.replace('-condconv-e8', ''))


def test_prints_parameters_and_multiply_adds_without_a_data_set(run_tool, capsys):
    run_tool('get_flops.py', CONFIG, '--cfg-options', 'model.bbox_head.num_classes=90')
    title, *lines = capsys.readouterr().out.strip().splitlines()[-7:]
    assert title.endswith('at 300x300')
    figures = dict(line.rsplit(maxsplit=2)[:2] for line in lines)
    assert {key.strip(): float(value) for key, value in figures.items()} == {
        'parameters': 11.168,
        'experts': 10.355,
        'the rest': 0.813,
        'multiply-adds': 361.9,
        'mixing': 10.4,
        'routing': 0.0,
    }


def test_shape_overrides_the_configs_size(run_tool, capsys):
    run_tool('get_flops.py', CONFIG, '--shape', '160', '320')
    assert 'at 160x320' in capsys.readouterr().out


@pytest.mark.parametrize('shape', [['0'], ['300', '-1'], ['1', '2', '3']])
def test_an_impossible_shape_is_named(run_tool, capsys, shape):
    with pytest.raises(SystemExit):
        run_tool('get_flops.py', CONFIG, '--shape', *shape)
    numbers = ', '.join(shape)
    assert f'--shape takes one or two numbers of at least 1, got [{numbers}]' in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    'arguments, says',
    [
        (['nowhere.py'], 'error: config nowhere.py does not exist'),
        ([CONFIG, '--cfg-options', 'param_scheduler.9.end=1'], 'error: config .*: KeyError: .*9'),
        ([CONFIG, '--cfg-options', 'model.backbone.type=A'], 'error: config .*: KeyError: .A is'),
        (
            [STATIC, '--shape', '99', '--cfg-options', 'model.backbone.widen_factor=0.25'],
            'error: config .* at 99x99: RuntimeError: .* to have 512 channels',
        ),
        ([CONFIG, '--cfg-options', 'test_dataloader=None'], 'error: .* has no test_dataloader'),
        (
            [CONFIG, '--cfg-options', 'test_dataloader.dataset.pipeline=None'],
            'error: .* has no test_dataloader with a pipeline',
        ),
    ],
    ids=str,
)
def test_bad_input_is_one_line(run_tool, arguments, says):
    with pytest.raises(SystemExit, match=f'^{says}'):
        run_tool('get_flops.py', *arguments)
