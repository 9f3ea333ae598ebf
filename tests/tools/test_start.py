"""How every tool starts and ends: it answers at once, and Ctrl+C or a closed pipe is no error."""

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from condconv_det import command_line, deploy, weights
from condconv_det.deploy.images import MAX_PIXELS
from condconv_det.deploy.sites import LIMIT
from condconv_det.layers.router import ACTIVATIONS

TOOLS = Path(__file__).parents[2] / 'tools'
NAMES = sorted(str(path.relative_to(TOOLS)) for path in TOOLS.glob('**/*.py'))
GO_ON = {'train.py': ' --resume', 'demo.py': '', 'pretrain_then_detect.py': '', 'study.py': ''}
# Each tool in turn, in one process; what it imports stays, so that torch shows in all after it.
PROBE = """
import argparse, contextlib, io, json, os, runpy, sys

def call(path, *args):
    sys.argv = [path, *args]
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stderr(error), contextlib.redirect_stdout(out):
        try:
            runpy.run_path(path, run_name='__main__')
            code = None
        except SystemExit as end:
            code = end.code
    heavy = sorted({'torch', 'mmdet'} & sys.modules.keys())
    return dict(code=code, out=out.getvalue(), error=error.getvalue(), heavy=heavy)

def interrupted(*_, **__):
    raise KeyboardInterrupt

found = {}
for path in sys.argv[1:]:
    answers = dict(help=call(path, '--help'), wrong=call(path, '--no-such-option'))
    if os.path.basename(path) in ('train.py', 'test.py'):
        answers['missing'] = call(path, 'nope.py', *['nope.pth'] * path.endswith('test.py'))
    parse, argparse.ArgumentParser.parse_known_args = (
        argparse.ArgumentParser.parse_known_args, interrupted)
    answers['interrupted'] = call(path, 'config.py')
    argparse.ArgumentParser.parse_known_args = parse
    found[path] = answers
print(json.dumps(found))
"""


@pytest.fixture(scope='module')
def answers():
    """By tool and question: exit code, output, errors, and what was imported that is heavy."""
    done = subprocess.run(
        [sys.executable, '-c', PROBE, *(str(TOOLS / name) for name in NAMES)],
        env={**os.environ, 'PYTHONPATH': str(TOOLS.parent)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return {str(Path(path).relative_to(TOOLS)): answer for path, answer in found.items()}


@pytest.mark.parametrize('name', NAMES)
def test_help_needs_neither_torch_nor_mmdet(answers, name):
    answer = answers[name]['help']
    assert (answer['code'], answer['heavy']) == (0, [])
    assert 'usage: ' in answer['out']


@pytest.mark.parametrize('name', NAMES)
def test_nor_does_an_option_that_does_not_exist(answers, name):
    answer = answers[name]['wrong']
    assert (answer['code'], answer['heavy']) == (2, [])
    assert re.search(r'error: .*(--no-such-option|required)', answer['error'])


@pytest.mark.parametrize('name', ['train.py', 'test.py'])
def test_a_config_that_is_not_there_is_one_error_at_once(answers, name):
    answer = answers[name]['missing']
    assert (answer['code'], answer['heavy']) == (2, [])
    assert answer['error'] == 'error: config nope.py does not exist\n'


@pytest.mark.parametrize('name', NAMES)
def test_ctrl_c_is_one_line_with_the_command_that_goes_on(answers, name):
    answer = answers[name]['interrupted']
    assert answer['code'] == 130
    says = 'ended by Ctrl+C'
    if name in GO_ON:
        says += f'; to go on: {Path(sys.executable).name} {TOOLS / name} config.py{GO_ON[name]}'
    assert answer['error'].strip() == says


@pytest.mark.parametrize(
    'arguments',
    [
        ['config.py'],
        ['config.py', '--resume'],
        ['config.py', '--resume', 'epoch_3.pth'],
        ['--resume', 'epoch_3.pth', 'config.py'],
        ['config.py', '--resume=epoch_3.pth'],
    ],
)
def test_after_ctrl_c_it_goes_on_from_the_newest_checkpoint(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'argv', ['train.py', *arguments, '--work-dir', 'work'])

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit):
        command_line.run(interrupted, again=('--resume',))
    command = capsys.readouterr().err.partition('to go on: ')[2].split()
    assert command[1:] == ['train.py', 'config.py', '--work-dir', 'work', '--resume']


TERMINATED = """
import os, signal, sys
from pathlib import Path
from condconv_det.command_line import run
from condconv_det.data.whole_files import folder_written_whole, written_whole

def main():
    with written_whole(Path('file')) as file, folder_written_whole(Path('folder')) as folder:
        (folder / 'part').touch()
        os.kill(os.getpid(), signal.SIGTERM)

run(main, again=())
"""


def test_sigterm_leaves_no_parts_of_files_and_says_how_to_go_on(tmp_path):
    (tmp_path / 'tool.py').write_text(TERMINATED)
    done = subprocess.run(
        [sys.executable, 'tool.py', 'config.py'],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(TOOLS.parent)},
        capture_output=True,
        text=True,
    )
    command = f'{Path(sys.executable).name} tool.py config.py'
    assert (done.returncode, done.stderr) == (
        143,
        f'\nended by SIGTERM; to go on: {command}\n',
    )
    assert [path.name for path in tmp_path.iterdir()] == ['tool.py']


@pytest.mark.parametrize('unbuffered', ['', '1'])
def test_a_tool_whose_reader_has_left_ends_quietly(tmp_path, unbuffered):
    command = [TOOLS / 'make_shapes.py', tmp_path / 'shapes', '--train', 1, '--val', 1, '--test', 1]
    tool = subprocess.Popen(
        [sys.executable, *map(str, command)],
        env={**os.environ, 'PYTHONPATH': str(TOOLS.parent), 'PYTHONUNBUFFERED': unbuffered},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    tool.stdout.close()  # as `| head` does, but before the first line
    assert (tool.stderr.read(), tool.wait()) == (b'', 141)
    tool.stderr.close()


def test_what_parsers_offer_is_what_the_package_has():
    export = runpy.run_path(str(TOOLS / 'export.py'))
    assert export['SUFFIXES'] == deploy.SUFFIXES and export['MAX_PIXELS'] == MAX_PIXELS
    assert runpy.run_path(str(TOOLS / 'freeze_routing.py'))['LIMIT'] == LIMIT
    convert = runpy.run_path(str(TOOLS / 'convert_checkpoint.py'))
    assert set(convert['SOURCES']) == set(weights.SOURCES)
    assert convert['ACTIVATIONS'] == ACTIVATIONS
