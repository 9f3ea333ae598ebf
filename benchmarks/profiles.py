"""Where the time goes, by operation, in each form of what `benchmarks.speed` measures.

    python -m benchmarks.profiles 'layers: depthwise 3x3 512 at 19x19, training, batch 8'

The profiler adds some microseconds to each operation, so times without it stand beside. What is in
no operation is Python's; of ours, `_Run`, `_RunBackward` are themselves Python.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed import subjects
from benchmarks.subject import Subject
from benchmarks.timing import Call, interleave

LARGEST = 8


def operations(call: Call, times: int) -> dict[str, float]:
    """Milliseconds of a call within each operation itself, largest first."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for _ in range(times):
            call()
    events = profiler.key_averages()
    found = {event.key: event.self_cpu_time_total / times / 1000 for event in events}
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def calls(subject: Subject, mode: str, batch: int) -> dict[str, Call]:
    """A call of each form on the same input."""
    inputs = subject.inputs(batch)
    make = subject.inference if mode == 'inference' else subject.training_step
    return {name: make(form, *inputs) for name, form in subject.forms().items()}


def report(subject: Subject, mode: str, batch: int, rounds: int) -> str:
    """Lines of Markdown: each form's time and its largest operations."""
    forms = calls(subject, mode, batch)
    lines = [f'{subject.level}: {subject.name}, {mode}, batch {batch}', '']
    for name, seconds in interleave(forms, rounds).items():
        ms = statistics.median(seconds) * 1000
        found = operations(forms[name], max(3, min(200, round(1000 / ms))))
        profiled = sum(found.values())
        largest = list(found.items())[:LARGEST]
        rest = profiled - sum(time for _, time in largest)
        parts = ', '.join(f'{key} {time:.3g}' for key, time in largest)
        lines.append(f'- {name}: {ms:.3g} ms; profiled {profiled:.3g}: {parts}, others {rest:.2g}')
    return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('row', help='a row of docs/measured/performance-cpu.md, as in the example')
    parser.add_argument('--rounds', type=int, default=9, help='without profiler (%(default)s)')
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    for subject in subjects(quick=False):
        for mode in ('inference', 'training'):
            start = f'{subject.level}: {subject.name}, {mode}, batch '
            batch = args.row.removeprefix(start)
            if batch != args.row and batch.isdigit() and int(batch):
                print(report(subject, mode, int(batch), args.rounds))
                return
    sys.exit(f'error: no row is called {args.row!r}')


if __name__ == '__main__':
    main()
