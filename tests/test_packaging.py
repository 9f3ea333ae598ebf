"""The package built, installed into an environment of its own and used there.

mim is not among our tests' packages: its dependencies pin a setuptools older than torch asks for.
What it runs is tried here, and mmengine finds a package by the same steps as mim.
"""

import json
import os
import shutil
import site
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
from mmengine.config import Config

from condconv_det.data.shapes import make_shapes

ROOT = Path(__file__).parents[1]
SOURCES = [
    *('LICENSE', 'MANIFEST.in', 'README.md', 'model-index.yml', 'pyproject.toml', 'setup.py'),
    *('condconv_det', 'configs', 'tests', 'tools'),
]
CONFIG = 'shapes/ssd128_mobilenet-v1-0.5-condconv-e8_1xb8-5e_shapes.py'
OFFLINE = ['--no-deps', '--no-index', '--no-build-isolation']
FIND_AND_LOAD = """
import json, sys
from mmengine.config import Config
from mmengine.utils import get_installed_path
path = get_installed_path('condconv_det')
import condconv_det
print(json.dumps([path, condconv_det.__file__, str(Config.fromfile(sys.argv[1]).to_dict())]))
"""


def for_mim(root):
    """The files below a folder that belong into .mim."""
    files = {root / 'model-index.yml', *root.glob('configs/**/*.*'), *root.glob('tools/**/*.*')}
    return {str(path.relative_to(root)) for path in files if path.suffix != '.pyc'}


class Environment:
    """A virtual environment with the packages of this one but ours, however that is installed."""

    def __init__(self, folder):
        self.folder = folder
        subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder / 'venv'], check=True)
        (site_packages,) = folder.glob('venv/lib/python*/site-packages')
        for path in (path for f in site.getsitepackages() for path in Path(f).glob('*')):
            if 'condconv_det' not in path.name and not (site_packages / path.name).exists():
                (site_packages / path.name).symlink_to(path)

    def python(self, *args, cwd=None):
        """Runs Python; returns the lines that it printed."""
        done = subprocess.run(
            [self.folder / 'venv/bin/python', '-W', 'ignore', *map(str, args)],
            cwd=cwd or self.folder,
            env={key: value for key, value in os.environ.items() if key != 'PYTHONPATH'},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout.splitlines()

    def build_wheel(self, source):
        """Builds a source tree, or an archive of one."""
        self.python('-m', 'pip', 'wheel', *OFFLINE, '--wheel-dir', 'wheels', source)
        (wheel,) = self.folder.glob('wheels/*.whl')
        return wheel


@pytest.fixture
def environment(tmp_path):
    return Environment(tmp_path)


@pytest.fixture
def source(tmp_path):
    """A copy of the sources, so that building leaves nothing in the checkout."""
    copy = tmp_path / 'source'
    copy.mkdir()
    for path in (ROOT / name for name in SOURCES):
        if path.is_dir():
            ignore = shutil.ignore_patterns('.mim', '__pycache__')
            shutil.copytree(path, copy / path.name, ignore=ignore)
        else:
            shutil.copy2(path, copy)
    return copy


def names(wheel):
    return {name for name in ZipFile(wheel).namelist() if '.dist-info/' not in name}


def test_a_wheel_carries_the_package_configs_and_tools_alone(environment, source):
    build_sdist = "from setuptools import build_meta; build_meta.build_sdist('dist')"
    environment.python('-c', build_sdist, cwd=source)
    (archive,) = source.glob('dist/*.tar.gz')
    modules = {str(path.relative_to(ROOT)) for path in ROOT.glob('condconv_det/**/*.py')}
    expected = modules | {f'condconv_det/.mim/{name}' for name in for_mim(ROOT)}
    assert names(environment.build_wheel(archive)) == expected


@pytest.mark.long
def test_a_wheel_carries_nothing_that_was_deleted_since_the_last(environment, source):
    before = names(environment.build_wheel(source))
    (source / 'configs' / CONFIG).unlink()
    (source / 'condconv_det/compat/openmmlab_tools.py').unlink()
    after = names(environment.build_wheel(source))
    assert before - after == {
        f'condconv_det/.mim/configs/{CONFIG}',
        'condconv_det/compat/openmmlab_tools.py',
    }


@pytest.mark.long
@pytest.mark.parametrize('kind', ['wheel', 'editable'])
def test_an_installed_package_lends_its_configs_and_trains_by_mims_command(
    kind, environment, source, tmp_path
):
    what = ['--editable', source] if kind == 'editable' else [environment.build_wheel(source)]
    environment.python('-m', 'pip', 'install', '--ignore-installed', *OFFLINE, *what)

    users_config = tmp_path / 'users_config.py'
    users_config.write_text(f"_base_ = 'condconv_det::{CONFIG}'")
    printed = environment.python('-c', FIND_AND_LOAD, users_config)[-1]
    package, imported, cfg = json.loads(printed)
    package = Path(package)
    assert package.is_relative_to(source if kind == 'editable' else tmp_path / 'venv')
    assert Path(imported) == package / '__init__.py'
    assert for_mim(package / '.mim') == for_mim(ROOT)
    assert cfg == str(Config.fromfile(ROOT / 'configs' / CONFIG).to_dict())

    make_shapes(tmp_path / 'data' / 'shapes', dict(train=8, val=2, test=2), size=128)
    environment.python(
        *(package / '.mim/tools/train.py', users_config, '--launcher', 'none'),
        *('--cfg-options', 'train_cfg.max_epochs=1'),
    )
    assert (tmp_path / 'work_dirs/users_config/epoch_1.pth').exists()
