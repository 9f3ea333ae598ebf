from pathlib import Path

import pytest

from benchmarks import hooks
from condconv_det.data.shapes import make_shapes

CONFIG = (
    Path(__file__).parents[2]
    / 'configs/shapes/ssd128_mobilenet-v1-0.5-condconv-e8_1xb8-5e_shapes.py'
)


@pytest.mark.long
def test_each_hook_has_its_share_of_a_step_or_an_epoch(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_shapes(Path('data/shapes'), dict(train=24, val=1), size=128)
    hooks.main([str(CONFIG), '--epochs', '4', '--cfg-options', 'train_dataloader.num_workers=1'])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith('| ')]
    rows = {name: (float(ms), share) for _, name, ms, share, _ in (
        map(str.strip, line.split('|')) for line in lines[1:]
    )}  # fmt: skip
    assert rows['an epoch'][0] > rows['a step'][0] > 0
    assert {
        'RoutingHook, listening, a step',
        'RoutingHook, its numbers, an epoch',
        'EpochSeedHook, new workers, an epoch',
        'FiniteLossHook, after_train_iter',
        'DatasetCheckHook, before_train',
    } <= set(rows)


def test_too_few_epochs_are_refused(capsys):
    with pytest.raises(SystemExit):
        hooks.main([str(CONFIG), '--epochs', '3'])
    assert '--epochs must be at least 4, got 3' in capsys.readouterr().err
