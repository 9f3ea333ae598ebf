"""The commands of docs/tutorial.md, run as they stand there on a small folder, one epoch long."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from condconv_det.data.shapes import make_shapes

ROOT = Path(__file__).parents[1]
COMMANDS = re.findall(
    r'```bash\n(.+?)```', (ROOT / 'docs' / 'tutorial.md').read_text(), flags=re.DOTALL
)
SHORT = 'train_cfg.max_epochs=1 train_cfg.val_interval=1 default_hooks.checkpoint.interval=1'


@pytest.mark.long
def test_every_command_of_the_tutorial_runs(tmp_path):
    (tmp_path / 'tools').symlink_to(ROOT / 'tools')
    make_shapes(tmp_path / 'photos', dict(train=24, val=8, test=8), size=96)
    script = '\n'.join(COMMANDS).replace('python ', f'{sys.executable} ')
    script = re.sub(r'(tools/train\.py .+)', rf'\1 --cfg-options {SHORT}', script)
    # NMS of a detector that knows nothing is a matter of rounding
    script = script.replace(' --nms', '')
    # and its routing is what it started as
    script = script.replace('--out work_dirs/site', '--limit 0 --out work_dirs/site')
    done = subprocess.run(
        ['bash', '-euo', 'pipefail', '-c', script],
        cwd=tmp_path,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for made in (
        'static/epoch_1.pth',
        'condconv/epoch_1.pth',
        'pictures/train/000000.jpg.json',
        'routing/index.html',
        'mine.onnx',
    ):
        assert (tmp_path / 'work_dirs' / made).is_file(), made
    assert list((tmp_path / 'work_dirs' / 'site').glob('*.pth'))
