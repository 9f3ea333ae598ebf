"""How the tools end where their user pressed Ctrl+C, or whoever read their output has left.

Needs Python alone, as tools/doctor.py does.
"""

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

# what a shell reports of programs that SIGINT and SIGPIPE end
INTERRUPTED, NOBODY_READS = 130, 141


def run(main: Callable[[], object], again: Sequence[str] | None = None) -> None:
    """Runs a tool, and ends the process unless all went well.

    Args:
        main: parses the arguments, then imports what is heavy; what it returns that is not None is
            the exit code.
        again: options that the command takes, in place of their own values, to go on after Ctrl+C;
            None if it cannot.
    """
    try:
        try:
            code = main()
        except SystemExit as end:
            code = end.code
        sys.stdout.flush()  # or Python would complain of a pipe that is closed
    except KeyboardInterrupt:
        print(_how_to_go_on(again), file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:
        # what is left of the output goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = NOBODY_READS
    if code is not None:
        sys.exit(code)


def _how_to_go_on(again: Sequence[str] | None) -> str:
    if again is None:
        return '\nended by Ctrl+C'
    command = [Path(sys.executable).name, *_without(again, sys.argv), *again]
    return f'\nended by Ctrl+C; to go on: {shlex.join(command)}'


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
