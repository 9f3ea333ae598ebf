"""The table of kernels, from one layer of its grid."""

import re

import pytest

from benchmarks import kernels

LAYER = '1x1 64->128 at 3, batch 8'


def test_a_row_has_every_kernel_and_form_and_the_table_is_written(tmp_path, capsys):
    out = tmp_path / 'kernels.md'
    kernels.main(['--only', LAYER, '--rounds', '1', '--out', str(out)])
    (row,) = [line for line in out.read_text().splitlines() if line.startswith('- ')]
    assert row.startswith(f'- {LAYER}: plain conv ') and row in capsys.readouterr().out
    times = dict(re.findall(r'([a-z][\w ]*) (\d+\.\d+ / \d+\.\d+)', row))
    (shape,) = (shape for shape in kernels.grid() if str(shape) == LAYER)
    assert {*kernels.kernels(shape), 'chosen', 'one by one kept', 'tap by tap'} <= {*times}
    assert re.search(r'chosen / best other: median \d+\.\d+, most \d+\.\d+\n', out.read_text())


def test_a_layer_that_is_not_in_the_grid_is_one_error(capsys):
    with pytest.raises(SystemExit):
        kernels.main(['--only', 'nosuch'])
    assert "--only 'nosuch' is in no row, such as 1x1 64->128 at 1" in capsys.readouterr().err
