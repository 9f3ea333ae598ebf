import sys

import pytest


def test_missing_gradio_is_one_line(run_tool, trained, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    with pytest.raises(SystemExit, match='error: the page needs gradio: install it with'):
        run_tool('serve.py', *trained['routed'], '--device', 'cpu')
