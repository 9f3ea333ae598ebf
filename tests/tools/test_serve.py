import sys

import pytest


def test_a_detector_without_routed_layers_is_one_line(run_tool, trained):
    with pytest.raises(SystemExit, match='error: the detector has no routed layers'):
        run_tool('serve.py', *trained['static'], '--device', 'cpu')


def test_missing_gradio_is_one_line(run_tool, trained, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    with pytest.raises(SystemExit, match='error: the page needs gradio: install it with'):
        run_tool('serve.py', *trained['routed'], '--device', 'cpu')
