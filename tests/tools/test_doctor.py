import ast
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from condconv_det.compat.versions import PYTHON, TESTED

ROOT = Path(__file__).parents[2]
DOCTOR = ROOT / 'tools' / 'doctor.py'
judge = runpy.run_path(str(DOCTOR))['judge']


def doctor(python=sys.executable, **env):
    return subprocess.run(
        [python, DOCTOR],
        env={**os.environ, 'PYTHONPATH': str(ROOT), **env},
        capture_output=True,
        text=True,
    )


def pinned(name):
    return dict(line.split('==') for line in (ROOT / name).read_text().split())


def test_the_tested_versions_are_those_of_the_constraints():
    oldest, newest = pinned('constraints-torch2.1.txt'), pinned('constraints.txt')
    assert {name: tested[:2] for name, tested in TESTED.items()} == {
        name: (oldest[name], newest[name]) for name in TESTED
    }


def test_the_tested_pythons_are_those_that_setup_names():
    named = re.findall(r'Python :: (3\.\d+)', (ROOT / 'setup.py').read_text())
    assert (named[0], named[-1]) == PYTHON[:2]


def test_the_tested_versions_cover_what_setup_asks_for():
    tree = ast.parse((ROOT / 'setup.py').read_text())
    texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
    asked = {
        re.split('[<>=]', text)[0] for text in texts if re.fullmatch(r'[\w-]+[<>]=?.+', str(text))
    }
    assert asked and asked <= {*TESTED}


@pytest.mark.parametrize(
    'found, says',
    [
        ('2.1.2', ''),
        ('2.14.1+cu130', ''),
        ('2.14.1.post1', ''),
        ('2.9.0.dev1', ''),
        ('2.1.1', 'older than 2.1.2'),
        ('2.14.2', 'newer than 2.14.1'),
        ('3', 'newer than 2.14.1'),
        ('1.13.1+cpu', 'older than 2.1.2'),
    ],
)
def test_a_version_outside_the_tested_range_is_named(found, says):
    assert judge(found, '2.1.2', '2.14.1').startswith(says)
    assert bool(judge(found, '2.1.2', '2.14.1')) == bool(says)


@pytest.mark.long
def test_a_working_environment_is_described():
    done = doctor()
    assert (done.returncode, done.stderr) == (0, '')
    lines = dict(re.findall(r'^(\w[^ ]*(?: \w+)*) {2,}(.+)$', done.stdout, flags=re.MULTILINE))
    import torch

    assert lines['torch'].startswith(torch.__version__.split('+')[0])
    assert {'cores', 'threads', 'GPUs', 'mmcv operators'} <= set(lines)


def test_the_forks_stand_for_what_they_replace(tmp_path):
    """In an environment of nothing else, given as the folders that pip leaves."""
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', tmp_path], check=True)
    (site_packages,) = tmp_path.glob('lib/python*/site-packages')
    for name, version in (('onedl-mmdetection', '3.5.1'), ('onedl-mmengine', '0.11')):
        folder = site_packages / f'{name.replace("-", "_")}-{version}.dist-info'
        folder.mkdir()
        (folder / 'METADATA').write_text(f'Name: {name}\nVersion: {version}\n')
    out = doctor(tmp_path / 'bin' / 'python').stdout
    assert re.search(r'^onedl-mmdetection +3.5.1$', out, flags=re.MULTILINE)
    newer = 'newer than 0.10.12, the newest tested; `pip install onedl-mmengine==0.10.12`'
    assert re.search(rf'^onedl-mmengine +0.11  <- {newer}$', out, flags=re.MULTILINE)
    assert not re.search(r'^(mmdet|mmengine) ', out, flags=re.MULTILINE)


def test_without_any_package_it_says_what_is_missing(tmp_path):
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', tmp_path], check=True)
    done = doctor(tmp_path / 'bin' / 'python')
    assert done.returncode == 1
    assert 'Traceback' not in done.stdout + done.stderr
    assert re.search(r'^torch +not installed  <- `pip install', done.stdout, flags=re.MULTILINE)
    assert "No module named 'torch'" in done.stdout


@pytest.mark.long
def test_a_package_that_breaks_on_import_is_named_with_its_error(tmp_path):
    (tmp_path / 'mmdet').mkdir()
    (tmp_path / 'mmdet' / '__init__.py').write_text("raise RuntimeError('broken build')")
    done = doctor(PYTHONPATH=f'{tmp_path}{os.pathsep}{ROOT}')
    assert done.returncode == 1
    assert 'does not import  <- RuntimeError: broken build' in done.stdout


def test_error_reports_ask_for_it():
    asked = [ROOT / 'CONTRIBUTING.md', ROOT / '.github' / 'ISSUE_TEMPLATE' / 'bug.md']
    assert all('python tools/doctor.py' in path.read_text() for path in asked)
