"""The commands of docs/tutorial.md, run as they stand there on a few images, one epoch long."""

import re
import subprocess
from pathlib import Path

import pytest

from condconv_det.data.shapes import make_shapes

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(
    r'```bash\n(.+?)```', (ROOT / 'docs' / 'tutorial.md').read_text(), flags=re.DOTALL
)
SHORT = ' '.join(
    [
        'train_cfg.max_epochs=1 train_cfg.val_interval=1 default_hooks.checkpoint.interval=1',
        # all runs are in one process, and so small that workers only take time
        *(f'{split}_dataloader.num_workers=0' for split in ('train', 'val')),
        *(f'{split}_dataloader.persistent_workers=False' for split in ('train', 'val')),
    ]
)


def shortened(line):
    if 'tools/make_shapes.py' in line:
        return f'{line} --train 8 --val 6 --test 6'
    if 'tools/train.py' in line:
        # what trains on shapes keeps its five epochs, for its last checkpoint's name
        short = SHORT.replace('max_epochs=1', 'max_epochs=5') if '_shapes.py' in line else SHORT
        return f'{line} --cfg-options {short}'
    # NMS of a detector that knows nothing is a matter of rounding
    line = line.replace(' --nms', '')
    # and its routing is what it started as
    return line.replace('tools/freeze_routing.py', 'tools/freeze_routing.py --limit 0')


def expanded(assignments, line, folder):
    """The arguments of a command as bash makes them of its variables and patterns."""
    script = ['python() { printf "%s\\0" "$@"; }', *assignments, line]
    done = subprocess.run(
        ['bash', '-euo', 'pipefail', '-c', '\n'.join(script)],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split('\0')[:-1]


@pytest.mark.long
def test_every_command_of_the_tutorial_runs(tmp_path, monkeypatch, run_tool):
    make_shapes(tmp_path / 'photos', dict(train=12, val=4, test=4), size=96)
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    monkeypatch.chdir(tmp_path)
    assignments, tools = [], []
    for line in '\n'.join(BLOCKS).replace('\\\n', ' ').splitlines():
        if not line.startswith('python '):
            assignments.append(line)
            continue
        tool, *args = expanded(assignments, shortened(line), tmp_path)
        tools.append(tool.removeprefix('tools/'))
        try:
            run_tool(tools[-1], *args)
        except SystemExit as end:
            assert not end.code, (line, end.code)
    assert len(tools) == 12 and tools[0] == 'new_config.py' and tools[-1] == 'test.py'
    trained = tmp_path / 'work_dirs' / 'mine'
    for kind in ('_', '-condconv-e8-head_'):
        assert list(trained.glob(f'ssd300_mobilenet-v1-0.5{kind}*/epoch_1.pth'))
    for made in (
        'pictures/train/000000.jpg.json',
        'routing/index.html',
        'mine.onnx',
    ):
        assert (tmp_path / 'work_dirs' / made).is_file(), made
    assert list((tmp_path / 'work_dirs' / 'site').glob('*.pth'))
