"""What the demo says while it trains."""

import json
import runpy
import time
from pathlib import Path
from types import SimpleNamespace

TOOL = Path(__file__).parents[2] / 'tools' / 'demo.py'


def test_it_says_what_its_own_trainings_log_not_those_of_an_interrupted_call(tmp_path, capsys):
    followed = runpy.run_path(str(TOOL))['followed']
    old, new = (tmp_path / name / 'vis_data' / 'scalars.json' for name in ('old', 'new'))
    old.parent.mkdir(parents=True)
    old.write_text(json.dumps(dict(epoch=1, step=5, loss=9.0)) + '\n')
    out = ''
    with followed([SimpleNamespace(arm='static', work_dir=tmp_path)]):
        new.parent.mkdir(parents=True)
        new.write_text(json.dumps(dict(epoch=2, step=10, loss=3.0)) + '\n')
        until = time.monotonic() + 20
        while not out and time.monotonic() < until:
            time.sleep(0.1)
            out = capsys.readouterr().out
    assert out + capsys.readouterr().out == 'static    epoch 2, step 10: loss 3.00\n'
