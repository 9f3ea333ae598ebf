"""How the tools end at Ctrl+C, at SIGTERM, or where whoever read their output has left.

Needs Python alone, as tools/doctor.py does.
"""

import os
import shlex
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

# what a shell reports of programs that SIGINT, SIGPIPE and SIGTERM end
INTERRUPTED, NOBODY_READS, TERMINATED = 130, 141, 143


class Terminated(KeyboardInterrupt):
    """SIGTERM, at which a tool clears up as it does at Ctrl+C."""


def run(main: Callable[[], object], again: Sequence[str] | None = None) -> None:
    """Runs a tool, and ends the process unless all went well.

    Args:
        main: parses the arguments, then imports what is heavy; what it returns that is not None is
            the exit code.
        again: options that the command takes, in place of their own values, to go on after Ctrl+C
            or SIGTERM; None if it cannot.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        try:
            code = main()
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()  # or Python would complain of a pipe that is closed
    except KeyboardInterrupt as end:
        terminated = isinstance(end, Terminated)
        by, code = ('SIGTERM', TERMINATED) if terminated else ('Ctrl+C', INTERRUPTED)
        print(f'\nended by {by}{_how_to_go_on(again)}', file=sys.stderr)
    except BrokenPipeError:
        # what is left of the output goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = NOBODY_READS
    finally:
        signal.signal(signal.SIGTERM, before)
    if code is not None:
        sys.exit(code)


def _terminate(*_: object) -> None:
    raise Terminated


def _how_to_go_on(again: Sequence[str] | None) -> str:
    if again is None:
        return ''
    command = [Path(sys.executable).name, *_without(again, sys.argv), *again]
    return f'; to go on: {shlex.join(command)}'


def _without(options: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """The arguments but for some options and the values of these."""
    kept: list[str] = []
    before = ''
    for argument in arguments:
        is_value = before in options and not argument.startswith('-')
        if not is_value and argument.partition('=')[0] not in options:
            kept.append(argument)
        before = argument
    return kept
