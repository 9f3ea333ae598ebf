"""Runs of a study carried out, one after another or several at a time."""

import fcntl
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path

from .plan import SPLITS
from .runs import Run
from .work_dirs import CHECKPOINTS

LOG_LINES = 15  # of a failed command's output


class RunFailed(Exception):
    """A run did not come to its end; the message says why."""


class Trainings:
    """Carries out what is left of a study's runs, and tells how they went; a context manager.

    Args:
        tools: folder of train.py and test.py.
        out: the study's folder, which only one at a time works in.
        jobs: how many runs at a time.
        threads: of each.
        say: takes each line for the user.

    Raises:
        BlockingIOError: another one, or a training that a killed one left, is at work in `out`.
    """

    def __init__(
        self, tools: Path, out: Path, jobs: int, threads: int, say: Callable[[str], None]
    ) -> None:
        self.tools, self.jobs, self.say = tools, jobs, say
        self.environment = {**os.environ, 'OMP_NUM_THREADS': str(threads)}
        # The trainings inherit the lock, so that it outlives a killed study as long as they do.
        self.lock = (out / '.lock').open('w')
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BlockingIOError(
                f'{out}: another study, or a training that a killed one left, is at work there'
            ) from None
        self.processes: set[subprocess.Popen] = set()
        self.stopped = False
        self.starting = threading.Lock()

    def __enter__(self) -> 'Trainings':
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.close()

    def carry_out(self, runs: Sequence[Run]) -> dict[Run, str]:
        """Carries out runs, each after the one it starts from; returns why some failed."""
        left = [run for run in runs if not run.is_done]
        done = len(runs) - len(left)
        self.say(f'{len(runs)} runs, done before: {done}')
        work, took = {run: 1 - run.trained_part for run in left}, {}
        began = time.monotonic()
        failed: dict[Run, str] = {}
        futures: dict[Run, Future] = {}
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                for run in left:
                    # which is ahead in the queue, so that waiting for it ends
                    start = futures.get(run.start)
                    futures[run] = pool.submit(self._carry_out, run, start)
                of_future = {future: run for run, future in futures.items()}
                for ended, future in enumerate(as_completed(of_future), 1):
                    run = of_future[future]
                    try:
                        took[run] = future.result()
                        measured = [f'{split} mAP {run.measured(split):.3f}' for split in SPLITS]
                        result = f'{", ".join(measured)}, {took[run]:.1f} minutes'
                    except RunFailed as error:
                        failed[run] = str(error)
                        result = f'FAILED {error}'
                    self.say(
                        f'[{done + ended}/{len(runs)}] {run.name}: {result}\n'
                        f'  {_times((time.monotonic() - began) / 60, work, took, self.jobs)}'
                    )
            except BaseException:  # or the pool would wait for what is left
                self._stop()
                raise
        return failed

    def _carry_out(self, run: Run, start: Future | None) -> float:
        """A run's training and tests, as far as they are left; returns the minutes they took."""
        if start is not None and start.exception():
            raise RunFailed(f'since it starts from {run.start.name}, which failed')
        began = time.monotonic()
        for tool, *args in run.commands():
            log = run.work_dir / f'{Path(tool).stem}.log'
            self._call([sys.executable, str(self.tools / tool), *args], log)
        # earlier checkpoints were for resuming
        for checkpoint in run.work_dir.glob(CHECKPOINTS[run.unit].format('*')):
            if checkpoint != run.checkpoint:
                checkpoint.unlink()
        return (time.monotonic() - began) / 60

    def _call(self, command: list[str], log: Path) -> None:
        """Runs a command with its output behind the log's.

        Raises:
            RunFailed: it ended with an error, or everything is about to stop.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open('a') as output:
            with self.starting:
                if self.stopped:
                    raise RunFailed('interrupted')
                self.say(f'$ {shlex.join(command)}')
                process = subprocess.Popen(
                    command,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=self.environment,
                    pass_fds=[self.lock.fileno()],
                )
                self.processes.add(process)
            code = process.wait()
            self.processes.discard(process)
        if code:
            end = log.read_text(errors='replace').splitlines()[-LOG_LINES:]
            raise RunFailed('\n    '.join([f'with {code}; the end of {log}:', *end]))

    def _stop(self) -> None:
        """Ends what runs, and lets nothing start."""
        with self.starting:
            self.stopped = True
            for process in list(self.processes):  # which their threads empty
                process.terminate()


def _times(minutes: float, work: Mapping[Run, float], took: Mapping[Run, float], jobs: int) -> str:
    """The time gone and, by the trainings that came to their end, the time to go.

    Args:
        minutes: since the runs began.
        work: the part of its training that each run lacked then, of 1.
        took: minutes of each run that came to its end.
        jobs: how many run at a time.
    """
    trained = [run for run in took if work[run]]  # others had only their tests to do
    if not trained:
        return f'{minutes:.1f} minutes gone'
    whole = sum(took[run] for run in trained) / sum(work[run] for run in trained)
    to_go = whole * sum(work.values()) / jobs - minutes
    return f'{minutes:.1f} minutes gone, about {max(0, to_go):.0f} to go'
