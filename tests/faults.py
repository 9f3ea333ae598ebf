"""Puts faults into the package, one at a time, and lists which of them the tests catch.

    python tests/faults.py --tests both --results faults.json --out docs/measured/faults.md

The working tree stays as it is: faults go into copies of the checkout. With --results a run that
was interrupted goes on where it was. Exit codes: 0 all faults are caught, 1 not all, or some tests
could not run, 2 unusable arguments, or a list that does not fit the code any more.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

from fault_list import FAULTS, Fault, rotten
from fault_table import MARKS, Results, outcome, to_markdown, totals, verdict

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT = 15 * 60
# Beside tests/ROOM: what tests a room elsewhere.
ALSO_LONG = {'compat': ('tests/reliability',), 'engine': ('tests/reliability',)}


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--only', default='', help='faults whose file, kind or change has this')
    parser.add_argument('--jobs', type=int, default=1, help='faults at a time (%(default)s)')
    parser.add_argument(
        '--tests',
        choices=[*MARKS, 'both'],
        default='short',
        help='both: the long ones where the short ones miss a fault (%(default)s)',
    )
    parser.add_argument('--out', type=Path, help='write a table in Markdown')
    parser.add_argument('--results', type=Path, help='json; faults that it has are not tried again')
    parser.add_argument('--before', type=Path, help='results of an earlier suite, for the table')
    parser.add_argument('--list', action='store_true', help='only check and print the list')
    parser.add_argument('--clean-first', action='store_true', help='stop if tests fail as it is')
    args = parser.parse_args()
    if args.jobs < 1:
        parser.error(f'--jobs must be at least 1, got {args.jobs}')
    return args


class Copy:
    """A copy of the checkout whose package its tests import.

    Raises:
        RuntimeError: they would import another one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = ['git', 'ls-files', '-z', '-co', '--exclude-standard']
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        for name in filter(None, listed.stdout.split('\0')):
            if (ROOT / name).is_file():  # else it is deleted, but not yet from git's list
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name, follow_symlinks=False)
        mim = folder / 'condconv_det' / '.mim'  # as setup.py makes it for an editable package
        mim.mkdir()
        for name in ('configs', 'tools', 'model-index.yml'):
            (mim / name).symlink_to(Path('../..', name))
        # PYTHONPATH comes before what is installed editable. A compiled file may pass for that of a
        # source of the same length and second, so none are written.
        self.environment = {
            **os.environ,
            'PYTHONPATH': str(folder),
            'PYTHONDONTWRITEBYTECODE': '1',
            'OMP_NUM_THREADS': '1',
            'CI': '1',
        }
        code = 'import condconv_det; print(condconv_det.__file__)'
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', code],
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        imported = (done.stdout.splitlines() or [''])[-1]
        if not imported or not Path(imported).resolve().is_relative_to(folder.resolve()):
            raise RuntimeError(
                f'tests in the copy {folder} would import {imported or "nothing"}\n{done.stderr}'
            )


class Tries:
    """Tries faults in copies, and remembers what came of them.

    Args:
        suites: 'short', 'long' or both; a later one where the earlier ones miss a fault.
        file: where results are kept; None keeps them in memory.
    """

    def __init__(self, suites: Sequence[str], file: Path | None) -> None:
        self.suites = suites
        self.file = file
        self.results: Results = json.loads(file.read_text()) if file and file.exists() else {}
        self.lock = threading.Lock()
        self.processes: set[subprocess.Popen] = set()
        self.stopped = False

    def left(self, fault: Fault) -> list[str]:
        """The suites that are still to be tried on a fault."""
        found = self.results.get(fault.id, {})
        if verdict(found) == 'caught':
            return []
        return [suite for suite in self.suites if found.get(suite, {}).get('verdict') != 'missed']

    def run_tests(self, copy: Copy, room: str, suite: str, stem: str = '') -> dict[str, Any]:
        """Verdict, failing test, note and seconds of a room's tests; first those of a module."""
        paths = [f'tests/{room}', *(ALSO_LONG.get(room, ()) if suite == 'long' else ())]
        paths = [*_nearest(copy.folder, paths[0], stem), *paths]
        began = time.monotonic()
        process = subprocess.Popen(
            [
                *(sys.executable, '-m', 'pytest', '-q', '-x', '-n', '0', '-rfE', '--color=no'),
                *('-p', 'no:cacheprovider', '-m', MARKS[suite], *paths),
            ],
            cwd=copy.folder,
            env=copy.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors='replace',
            start_new_session=True,  # so that it ends with all that its tests started
        )
        with self.lock:
            self.processes.add(process)
            if self.stopped:
                _end(process)
        try:
            output, _ = process.communicate(timeout=TIMEOUT)
            found = _judge(process.returncode, output)
        except subprocess.TimeoutExpired:
            _end(process)
            process.communicate()
            found = dict(verdict='caught', by='', note=f'hangs for {TIMEOUT // 60} minutes')
        with self.lock:
            self.processes.discard(process)
        return {**found, 'seconds': round(time.monotonic() - began, 1)}

    def try_fault(self, fault: Fault, copy: Copy) -> str:
        """Runs what is left for a fault; returns a line for the user.

        Raises:
            RuntimeError: the copy was made of a newer file, which the fault does not fit.
        """
        path = copy.folder / fault.path
        text = path.read_text()
        if text.count(fault.before) != 1:
            raise RuntimeError(f'{fault.file} was changed meanwhile: {fault.before!r} is not there')
        path.write_text(text.replace(fault.before, fault.after))
        try:
            for suite in self.left(fault):
                found = self.run_tests(copy, fault.room, suite, Path(fault.file).stem)
                if self.stopped:
                    break
                self._keep(fault, suite, found)
                if found['verdict'] == 'caught':
                    break
        finally:
            path.write_text(text)
        return f'{fault.file}: {fault.change}: {outcome(self.results.get(fault.id, {}))}'

    def _keep(self, fault: Fault, suite: str, found: dict[str, Any]) -> None:
        with self.lock:
            entry = self.results.setdefault(fault.id, {})
            entry.update(file=fault.file, kind=fault.kind, change=fault.change)
            entry[suite] = found
            if self.file is not None:
                part = self.file.with_name(f'{self.file.name}.part')
                part.write_text(json.dumps(self.results, indent=1))
                part.replace(self.file)

    def stop(self) -> None:
        """Ends what runs; what starts afterwards ends at once."""
        with self.lock:
            self.stopped = True
            for process in self.processes:
                _end(process)


def _nearest(folder: Path, tests: str, stem: str) -> list[str]:
    """Test files that name a module, those named after it first: they most likely catch a fault."""
    files = sorted(folder.glob(f'{tests}/**/test_*.py'))
    near = [file for file in files if stem and stem in file.read_text()]
    near.sort(key=lambda file: stem not in file.stem)
    return [str(file.relative_to(folder)) for file in near]


def _end(process: subprocess.Popen) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _judge(code: int, output: str) -> dict[str, Any]:
    match = re.search(r'^(?:FAILED|ERROR) (tests/.+?)(?: - .*)?$', output, flags=re.MULTILINE)
    by = match[1] if match else ''
    if code in (0, 5):
        return dict(verdict='missed', by='', note='' if code == 0 else 'no tests')
    if code in (1, 2):
        note = '' if code == 1 else 'tests could not be collected'
        return dict(verdict='caught', by=by, note=note)
    last = (output.strip().splitlines() or [''])[-1]
    return dict(verdict='error', by=by, note=f'pytest ended with {code}: {last}')


def try_all(faults: Sequence[Fault], tries: Tries, jobs: int, clean_first: bool) -> None:
    """Tries what is left of the faults, several at a time."""
    left = [fault for fault in faults if tries.left(fault)]
    print(f'{len(faults)} faults, {len(faults) - len(left)} of them tried before', flush=True)
    if not left:
        return
    with TemporaryDirectory(prefix='faults-') as folder, ThreadPoolExecutor(jobs) as pool:
        copies: SimpleQueue[Copy] = SimpleQueue()

        def try_in_a_copy(fault: Fault) -> str:
            copy = copies.get()
            try:
                return tries.try_fault(fault, copy)
            finally:
                copies.put(copy)

        try:
            for number in range(jobs):
                copies.put(copy := Copy(Path(folder, f'copy{number}')))
            if clean_first:
                check_clean(left, tries, copy)
            futures = [pool.submit(try_in_a_copy, fault) for fault in left]
            for number, future in enumerate(as_completed(futures), 1):
                print(f'[{number}/{len(left)}] {future.result()}', flush=True)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            tries.stop()
            raise


def check_clean(faults: Sequence[Fault], tries: Tries, copy: Copy) -> None:
    """Raises RuntimeError where tests fail without any fault: they would catch all of them."""
    for room in dict.fromkeys(fault.room for fault in faults):
        for suite in tries.suites:
            found = tries.run_tests(copy, room, suite)
            if found['verdict'] != 'missed':
                raise RuntimeError(f'{room}, {suite}: without any fault {outcome({suite: found})}')


def main() -> int:
    args = parse_args()
    faults = [f for f in FAULTS if args.only in f'{f.path} {f.kind} {f.change}']
    problems = rotten(ROOT)
    if problems or not faults:
        print('\n'.join(problems) or f'error: no fault has {args.only!r}', file=sys.stderr)
        return 2
    if args.list:
        for fault in faults:
            print(f'{fault.file}: {fault.kind}: {fault.change}')
        print(f'{len(faults)} faults')
        return 0
    before = json.loads(args.before.read_text()) if args.before else None
    for path in filter(None, (args.results, args.out)):
        path.parent.mkdir(parents=True, exist_ok=True)
    tries = Tries(list(MARKS) if args.tests == 'both' else [args.tests], args.results)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit('ended by SIGTERM'))
    try:
        try_all(faults, tries, args.jobs, args.clean_first)
    except RuntimeError as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    if args.out:
        args.out.write_text(to_markdown(faults, tries.results, before, args.tests, args.only))
    for name, number, caught, missed, unknown in totals(faults, tries.results):
        print(f'{name:<10} {number:>3} faults, {caught:>3} caught, {missed:>3} missed, {unknown} ?')
    return int(any(verdict(tries.results.get(f.id, {})) != 'caught' for f in faults))


if __name__ == '__main__':
    sys.exit(main())
