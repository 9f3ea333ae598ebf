"""Files from elsewhere run no code; annotations: tests/compat, the web page: tests/deploy."""

import ast
import os
import pickle
from pathlib import Path

import pytest
import torch

from condconv_det.compat.checkpoints import CheckpointError, load_from_local

ROOT = Path(__file__).parents[2]
SOURCES = [
    path
    for folder in ('condconv_det', 'tools', 'benchmarks')
    for path in sorted((ROOT / folder).rglob('*.py'))
]
RUNNING_CODE = {
    *('eval', 'exec', 'compile', '__import__', 'os.system', 'os.popen', 'shelve.open'),
    *('pickle.load', 'pickle.loads', 'pickle.Unpickler', 'marshal.loads', 'joblib.load'),
    *('yaml.load', 'yaml.load_all', 'yaml.unsafe_load', 'yaml.full_load'),
}


def dangers(source):
    """Calls that may run what a file says."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        arguments = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if name in RUNNING_CODE or 'shell' in arguments:
            yield ast.unparse(node)
        if name == 'torch.load' and arguments.get('weights_only') != 'True':
            yield ast.unparse(node)
        if name in ('np.load', 'numpy.load') and 'allow_pickle' in arguments:
            yield ast.unparse(node)


def test_such_calls_are_found():
    source = """
eval(x); yaml.load(f); torch.load(f); torch.load(f, weights_only=False)
np.load(f, allow_pickle=True); subprocess.run(x, shell=True)
model.eval(); yaml.safe_load(f); torch.load(f, weights_only=True); np.load(f)
"""
    assert len(list(dangers(source))) == 6


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_call_runs_what_a_file_says(path):
    found = list(dangers(path.read_text()))
    if path.name == 'checkpoints.py':  # before torch 2.6, by an unpickler with a list of its own
        (call,) = found
        assert 'pickle_module=_RESTRICTED_PICKLE' in call
    elif path.name == 'openmmlab_tools.py':  # the parser of a script that it is about to run
        assert [call.partition('(')[0] for call in found] == ['exec', 'compile']
    else:
        assert found == []


class RunsCode:
    def __reduce__(self):
        return os.system, ('touch ran',)


# Wherever a command line takes a checkpoint, with CONFIG and FILE in place of both.
COMMANDS = {
    'train': 'train.py CONFIG --cfg-options load_from=FILE',
    'resume': 'train.py CONFIG --resume FILE',
    'pretrained': 'train.py CONFIG --cfg-options model.backbone.init_cfg.type=Pretrained'
    ' model.backbone.init_cfg.checkpoint=FILE',
    'test': 'test.py CONFIG FILE',
    'convert': 'convert_checkpoint.py FILE new.pth --from condconv_det --to-static',
    'routing': 'analyze_routing.py CONFIG FILE --out routing',
    'export': 'export.py CONFIG FILE',
    'detect': 'detect.py plain.jpg CONFIG FILE',
    'serve': 'serve.py CONFIG FILE',
}


@pytest.mark.parametrize('command', COMMANDS)
def test_no_command_line_runs_code_in_a_checkpoint(
    run_tool, training_config, tmp_path, monkeypatch, command
):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / 'from_elsewhere.pth'
    torch.save(dict(state_dict={}, meta={}, optimizer={}, more=RunsCode()), file)
    (tmp_path / 'plain.jpg').write_bytes((ROOT / 'tests/reliability/corpus/plain.jpg').read_bytes())
    places = dict(CONFIG=training_config, FILE=file)
    tool, *args = [
        word.replace('FILE', str(file)) if 'FILE' in word else places.get(word, word)
        for word in COMMANDS[command].split()
    ]
    says = 'from_elsewhere.pth holds .*system|export needs torch'  # of which 2.1 has too little
    with pytest.raises((CheckpointError, SystemExit), match=says):
        run_tool(tool, *args)
    assert not (tmp_path / 'ran').exists()


def test_nor_does_a_bare_pickle(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'from_elsewhere.pth').write_bytes(pickle.dumps(RunsCode()))
    with pytest.raises(CheckpointError, match='from_elsewhere.pth (is not a whole|holds .*system)'):
        load_from_local('from_elsewhere.pth')
    assert not (tmp_path / 'ran').exists()
