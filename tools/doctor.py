"""Prints what this package runs on, what of it was not tested, and what to do about it.

Needs Python alone, so that it also works where an import fails. Exit codes: 0 the package works
here, though maybe on versions that were not tested, 1 it does not.
"""

import argparse
import json
import os
import platform
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
TIMEOUT = 600  # seconds for a probe; a first import from a slow disk takes minutes
SHARED_MEMORY = Path('/dev/shm')
# Each runs in a process of its own: an import may fail, hang or kill it.
PROBES = {
    'torch': """
import json, torch
cuda = torch.cuda.is_available()
names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else []
print(json.dumps({'threads': torch.get_num_threads(), 'built for CUDA': torch.version.cuda,
                  'GPUs': names}))
""",
    'condconv_det': """
import json, condconv_det, mmcv._ext, condconv_det.backbones
print(json.dumps({'operators': mmcv._ext.__file__}))
""",
}


def package_folder() -> Path | None:
    """Where condconv_det lies, found without importing it."""
    spec = find_spec('condconv_det')
    if spec is not None and spec.origin:
        return Path(spec.origin).parent
    folder = CHECKOUT / 'condconv_det'
    return folder if folder.is_dir() else None


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def number(text: str) -> tuple[int, ...]:
    """A version to compare: 2.14.1+cu130 is (2, 14, 1)."""
    return tuple(map(int, re.findall(r'\d+', text.split('+')[0])[:4]))


def judge(found: str, oldest: str, newest: str) -> str:
    """'' for a version in the tested range, or how it is not."""
    if number(found) < number(oldest):
        return f'older than {oldest}, the oldest tested'
    if number(found)[: len(number(newest))] > number(newest):
        return f'newer than {newest}, the newest tested'
    return ''


def versions(tested: dict[str, Any], forks: dict[str, Any]) -> Iterator[tuple[str, str, str, bool]]:
    """Name, version, advice and whether the package cannot work so, of each distribution."""
    for name, (oldest, newest, extra) in tested.items():
        found = installed(name)
        if name == 'mmcv-lite' and installed('mmcv'):
            name, found, extra = 'mmcv', installed('mmcv'), ''
        if name == 'opencv-python' and found is None:
            name, found = 'opencv-python-headless', installed('opencv-python-headless')
        if found is None and name in forks:
            fork, (fork_oldest, fork_newest, _) = forks[name]
            if installed(fork):
                name, found, oldest, newest = fork, installed(fork), fork_oldest, fork_newest
        if found is None:
            needed = extra in ('', 'lite')
            where = f"'.[{extra}]'" if extra else '.'
            yield name, 'not installed', f'`pip install -e {where}` installs it', needed
            continue
        odd = judge(found, oldest, newest)
        yield name, found, f'{odd}; `pip install {name}=={newest}`' if odd else '', False


def probe(code: str) -> tuple[dict[str, Any] | None, str]:
    """What a probe printed, and the last line of its error if it failed."""
    try:
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', code],
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
        )
        return json.loads(done.stdout.splitlines()[-1]), ''
    except subprocess.TimeoutExpired:
        return None, f'took longer than {TIMEOUT} s'
    except (ValueError, IndexError):
        lines = done.stderr.strip().splitlines() or [f'exit code {done.returncode}, no message']
        return None, lines[-1]


def operators(file: str) -> str:
    ours = Path(file).name == 'ext.py'
    return "torchvision's, for mmcv-lite" if ours else f"mmcv's, compiled ({file})"


def gigabytes(path: Path) -> str:
    return f'{shutil.disk_usage(path).total / 1e9:.1f} GB'


def main(folder: Path) -> int:
    argparse.ArgumentParser(description=__doc__.split('\n')[0]).parse_args()
    works = True
    advice = []

    def line(name: str, value: object, note: str = '') -> None:
        print(f'{name:<22} {value}{"  <- " + note if note else ""}')
        if note:
            advice.append(f'{name}: {note}')

    ranges = runpy.run_path(str(folder / 'compat' / 'versions.py'))
    line('system', platform.platform())
    python = platform.python_version()
    line('python', python, judge(python, *ranges['PYTHON'][:2]))
    line('condconv_det', installed('condconv_det') or 'not installed', '')
    for name, found, note, fatal in versions(ranges['TESTED'], ranges['FORKS']):
        line(name, found, note)
        works &= not fatal
    if installed('mmcv') and installed('mmcv-lite'):
        line('mmcv', 'mmcv and mmcv-lite', '`pip uninstall mmcv-lite mmcv`, then install one')

    print()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    line('cores', cores)
    found, error = probe(PROBES['torch'])
    for name, value in (found or {}).items():
        if name == 'GPUs':
            value = ', '.join(value) or 'none'
            note = 'torch is built for CUDA, but finds no GPU: see `nvidia-smi`'
            blind = value == 'none' and found['built for CUDA'] and Path('/dev/nvidia0').exists()
            line(name, value, note if blind else '')
        else:
            line(name, value)
    if error:
        line('torch', 'does not import', error)
    if SHARED_MEMORY.is_dir():
        small = shutil.disk_usage(SHARED_MEMORY).total < 1e9
        note = 'workers may die: raise it (`docker run --shm-size 8g`), or set num_workers=0'
        line('shared memory', gigabytes(SHARED_MEMORY), note if small else '')
    line('OMP_NUM_THREADS', os.environ.get('OMP_NUM_THREADS', 'not set'))
    found, error = probe(PROBES['condconv_det'])
    if found:
        line('mmcv operators', operators(found['operators']))
    else:
        works = False
        line('condconv_det', 'does not import', error)

    print(f'\n{len(advice)} things to look at' if advice else '\neverything as tested')
    for text in advice:
        print(f'  {text}')
    return 0 if works else 1


if __name__ == '__main__':
    folder = package_folder()
    if folder is None:
        sys.exit('error: condconv_det is not installed: run `pip install -e .` in its folder')
    runpy.run_path(str(folder / 'command_line.py'))['run'](partial(main, folder))
