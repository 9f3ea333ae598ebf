"""From images and boxes to a trained pair of detectors, by the commands that are printed."""

import json
import re
import shlex
from pathlib import Path

import pytest

from condconv_det.data.shapes import make_shapes
from condconv_det.study.twins import DETECTORS


@pytest.fixture
def shapes(tmp_path, monkeypatch):
    """Twenty images of shapes with one json."""
    monkeypatch.chdir(tmp_path)
    make_shapes(tmp_path / 'shapes', dict(train=20), size=64)
    return tmp_path / 'shapes'


@pytest.fixture
def make(run_tool, capsys):
    """Runs the command line; returns exit code, output and errors."""

    def make(*args):
        with pytest.raises(SystemExit) as exited:
            run_tool('new_config.py', *args)
        return exited.value.code, *capsys.readouterr()

    return make


def commands(out):
    found = [shlex.split(line) for line in out.splitlines() if line.startswith('  python ')]
    return [(Path(command[1]).name, *command[2:]) for command in found]


def test_it_prints_three_commands_that_fit_what_it_wrote(make, shapes):
    (shapes / 'train' / '000003.jpg').write_bytes(b'')
    code, out, error = make(shapes, '--out', 'mine', '--ratios', 3, 1, 1)
    assert code == 0
    assert error.splitlines() == [
        'fault: train.json: 000003.jpg: broken image: ' + error.partition('broken image: ')[2][:-1]
    ]
    assert 'coco: circle, square' in out and 'faults: 1' in out
    assert 'near-duplicates: 0 images; in two splits: 0 of val and test\n' in out
    counts = [
        len(json.loads(path.read_text())['images'])
        for path in sorted(Path('mine').glob('*/*.json'))
    ]
    assert sum(counts) == 19 and f'val: {counts[2]} images' in out
    static, condconv = (
        Path('mine', f'ssd300_mobilenet-v1-0.5{kind}_1xb8-{{}}e_shapes.py')
        for kind in ('', '-condconv-e8')
    )
    epochs = re.search(r'-(\d+)e_', out)[1]
    static, condconv = (str(path).format(epochs) for path in (static, condconv))
    assert commands(out) == [
        ('train.py', static),
        ('train.py', condconv),
        ('test.py', condconv, f'work_dirs/{Path(condconv).stem}/epoch_{epochs}.pth'),
    ]
    assert Path(static).exists() and Path(condconv).exists()


@pytest.mark.long
@pytest.mark.parametrize('detector', DETECTORS)
def test_its_commands_train_and_test(make, run_tool, shapes, detector, capsys):
    _, out, _ = make(shapes, '--out', 'mine', '--detector', detector)
    train, train_routed, test = commands(out)
    short = [
        *('--cfg-options', 'train_cfg.max_epochs=1', 'train_cfg.val_interval=1'),
        *('train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False'),
        *('val_dataloader.num_workers=0', 'val_dataloader.persistent_workers=False'),
    ]
    for command in (train, train_routed):
        run_tool(*command, *short)
    checkpoint = re.sub(r'epoch_\d+', 'epoch_1', test[2])
    # after an epoch nothing scores much
    options = ['test_dataloader.num_workers=0', 'model.test_cfg.score_thr=0.0']
    run_tool(*test[:2], checkpoint, '--cfg-options', *options)
    assert 'coco/bbox_mAP: ' in capsys.readouterr().out


@pytest.mark.parametrize(
    'args, says',
    [
        (['nowhere', '--out', 'mine'], 'error: the image folder nowhere does not exist\n'),
        (
            ['shapes', '--out', 'mine', '--classes', 'dog'],
            'error: no box of shapes can be used; classes',
        ),
        (['shapes', '--out', 'mine', '--name', 'a b'], 'error: a data set is named by letters'),
        (['shapes', '--out', 'mine', '--detector', 'yolo'], "invalid choice: 'yolo'"),
        (['shapes'], 'the following arguments are required: --out'),
    ],
)
def test_bad_arguments_are_one_error(make, shapes, args, says):
    code, _, error = make(*args)
    assert code == 2 and re.search(says, error)
    assert not Path('mine').exists()
