"""The table of ways to suppress boxes, from a few of them."""

import re

from benchmarks import nms


def test_every_way_is_compared_with_torchvisions(capsys):
    nms.main(['--boxes', '200', '--rounds', '1'])
    title, _, *rows = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r'200 boxes, \d+ kept, cpu, median of 1 rounds', title)
    figures = dict(re.fullmatch(r'(.+?) +\d+\.\d+ +(\d+\.\d+)', row).groups() for row in rows)
    assert figures.pop('torchvision.ops.nms') == '1.000'
    assert list(figures) == ['mmcv._ext.nms', 'mmcv._ext.nms, offset 1', 'mmcv.ops.nms']
