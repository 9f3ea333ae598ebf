import sys

import pytest


def test_missing_gradio_is_one_line(run_tool, trained, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    with pytest.raises(SystemExit, match='error: the page needs gradio: install it with'):
        run_tool('serve.py', *trained['routed'], '--device', 'cpu')


@pytest.mark.parametrize('port', ['0', '-1', '65536', 'http'])
def test_an_impossible_port_is_named(run_tool, capsys, port):
    with pytest.raises(SystemExit):
        run_tool('serve.py', '--port', port)
    assert f"--port: a number from 1 to 65535, not '{port}'" in capsys.readouterr().err


@pytest.mark.parametrize('static', [False, True])
def test_a_checkpoint_of_another_config_is_one_line(run_tool, trained, static):
    mismatched = trained['routed'][0], trained['static'][1]
    files = (*trained['routed'], '--static', *mismatched) if static else mismatched
    with pytest.raises(SystemExit, match='error: checkpoint .* does not fit SingleStageDetector'):
        run_tool('serve.py', *files, '--device', 'cpu')
