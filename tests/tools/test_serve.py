import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from condconv_det.deploy import page

ROOT = Path(__file__).parents[2]


@pytest.mark.long
def test_the_page_is_up_until_it_is_ended_and_clears_up(trained, tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    command = [ROOT / 'tools' / 'serve.py', *trained['routed'], '--device', 'cpu', '--port', port]
    server = subprocess.Popen(
        [sys.executable, '-W', 'ignore', *map(str, command)],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'TMPDIR': str(tmp_path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        lines = (re.match(r'(http://127.0.0.1:\d+/?) is up', line) for line in server.stdout)
        address = next(match[1] for match in lines if match)
        assert 'gradio' in urlopen(address, timeout=60).read().decode()
        assert [*tmp_path.glob('condconv_det-*')]
        server.terminate()
        assert server.wait(60) == 0
        assert not [*tmp_path.glob('condconv_det-*')]
    finally:
        server.kill()


def test_a_missing_checkpoint_is_one_line(run_tool, trained):
    with pytest.raises(SystemExit, match='error: checkpoint nowhere.pth does not exist'):
        run_tool('serve.py', trained['routed'][0], 'nowhere.pth', '--device', 'cpu')


def test_missing_gradio_is_one_line(run_tool, trained, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    with pytest.raises(SystemExit, match='error: the page needs gradio: install it with'):
        run_tool('serve.py', *trained['routed'], '--device', 'cpu')


@pytest.mark.parametrize('port', ['0', '-1', '65536', 'http'])
def test_an_impossible_port_is_named(run_tool, capsys, port):
    with pytest.raises(SystemExit):
        run_tool('serve.py', '--port', port)
    assert f"--port: a number from 1 to 65535, not '{port}'" in capsys.readouterr().err


def test_a_routed_detector_is_not_shown_as_the_static_one(run_tool, trained, monkeypatch):
    monkeypatch.setattr(page, 'serve', None)
    files = (*trained['routed'], '--static', *trained['routed'])
    says = f'error: --static takes a detector without routed layers, got {trained["routed"][0]}'
    with pytest.raises(SystemExit, match=says):
        run_tool('serve.py', *files, '--device', 'cpu')


@pytest.mark.parametrize('static', [False, True])
def test_a_checkpoint_of_another_config_is_one_line(run_tool, trained, static):
    mismatched = trained['routed'][0], trained['static'][1]
    files = (*trained['routed'], '--static', *mismatched) if static else mismatched
    with pytest.raises(SystemExit, match='error: checkpoint .* does not fit SingleStageDetector'):
        run_tool('serve.py', *files, '--device', 'cpu')
