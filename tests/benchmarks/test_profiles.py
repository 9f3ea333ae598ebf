import pytest
import torch

from benchmarks import profiles
from benchmarks.layers import TYPICAL, layer_subjects


def test_operations_come_with_their_time_largest_first():
    a, x = torch.randn(300, 300), torch.randn(300)
    found = profiles.operations(lambda: (a @ a, x + x), times=5)
    assert {'aten::mm', 'aten::add'} <= set(found) and min(found.values()) >= 0
    assert list(found.values()) == sorted(found.values(), reverse=True)


@pytest.mark.long
def test_a_report_has_every_form_with_its_operations(monkeypatch, capsys):
    monkeypatch.setattr(profiles, 'subjects', lambda quick: layer_subjects(TYPICAL))
    monkeypatch.setattr(profiles, 'LARGEST', 100)  # which are the largest differs by machine
    profiles.main([f'layers: {TYPICAL[2]}, training, batch 2', '--rounds', '1'])
    title, _, *lines = capsys.readouterr().out.splitlines()
    assert title == 'layers: 1x1 192->1152 at 7x7, training, batch 2'
    assert [line.split(':')[0] for line in lines] == ['- plain', '- ours', '- timm', '- outputs']
    assert '_RunBackward' in lines[1] and 'convolution_backward' in lines[2]


def test_a_row_that_does_not_exist_is_named(monkeypatch):
    monkeypatch.setattr(profiles, 'subjects', lambda quick: layer_subjects(TYPICAL))
    with pytest.raises(SystemExit, match="no row is called 'layers: none, training, batch 2'"):
        profiles.main(['layers: none, training, batch 2'])
