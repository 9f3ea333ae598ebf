"""Time and memory of CondConv beside plain convolution and what else a user might pick.

    python -m benchmarks.speed --level backbones --out work_dirs/speed

The forms take turns within a round; docs/measured/performance.md says what is measured, and how to
read it.
Rows are written as they are measured, and those that --out has already are left as they are: a run
that was interrupted, or split by --level or --only, goes on.
"""

import argparse
import datetime
import json
import platform
import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import timm
import torch
from torch import Tensor, nn

from benchmarks.forms import expert_bytes
from benchmarks.layers import TINY, TYPICAL, distinct, expert_subjects, layer_subjects
from benchmarks.networks import backbone_subjects, detector_subjects, networks_geometries
from benchmarks.report import goals_table, label, summary, write_report
from benchmarks.subject import Subject, check_same
from benchmarks.timing import copy_bandwidth, peak_memory
from condconv_det.analysis.interleave import Call, interleave
from condconv_det.data.whole_files import written_whole

LEVELS = ('layers', 'experts', 'backbones', 'detectors')
MODES = ('inference', 'training')
BATCHES = dict(
    cpu=dict(inference=(1, 8), training=(8, 24)),
    cuda=dict(inference=(1, 32, 128), training=(32, 128)),
)
QUICK_BATCHES = dict(inference=(1,), training=(2,))
SETTINGS = dict(
    cpu=('float32',),
    cuda=('bf16', 'bf16 channels-last', 'float32', 'bf16 CUDA graph', 'float32 CUDA graph'),
)
# Seconds of a row after which no round starts.
BUDGET = dict(layers=1.5, experts=5, backbones=20, detectors=20)


def subjects(quick: bool, device: str = 'cpu') -> list[Subject]:
    """All that is measured, level by level; of layers on a GPU the typical ones."""
    geometries = TYPICAL[:2] if quick else (*TYPICAL, *TINY)
    if not quick and device == 'cpu':
        geometries = distinct([*TYPICAL, *TINY, *networks_geometries()])
    found = [
        *layer_subjects(geometries),
        *expert_subjects(TYPICAL[:1] if quick else TYPICAL),
        *backbone_subjects(quick),
        *detector_subjects(quick),
    ]
    return sorted(found, key=lambda subject: LEVELS.index(subject.level))


def place(value: object, device: str, layout: torch.memory_format) -> object:
    """A subject's input on the device."""
    if isinstance(value, list):
        return [place(item, device, layout) for item in value]
    if not isinstance(value, Tensor):
        return value.to(device)
    moved = value.detach().to(device).contiguous(memory_format=layout)
    return moved.requires_grad_(value.requires_grad)


def lay_out(form: nn.Module, layout: torch.memory_format) -> None:
    """Puts plain kernels in a memory format; experts, of five axes, have no channels-last."""
    for parameter in form.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)


def rows_of(subject: Subject, args: argparse.Namespace) -> list[dict]:
    """What identifies each row that measuring a subject gives."""
    batches = QUICK_BATCHES if args.quick else BATCHES[args.device]
    settings = ('float32 channels-last',) if args.channels_last else SETTINGS[args.device]
    return [
        dict(level=subject.level, name=subject.name, mode=mode, batch=batch, setting=setting)
        for setting in settings
        for mode in MODES
        for batch in batches[mode]
        # launches are what a graph saves, and what one image waits for
        if 'graph' not in setting or (mode, batch) == ('inference', 1)
    ]


def measure(
    subject: Subject, rows: Sequence[dict], bandwidth: float, args: argparse.Namespace
) -> Iterator[dict]:
    """Fills rows of a subject with the time and memory of its forms.

    Raises:
        ValueError: forms that should compute the same do not.
    """
    torch.manual_seed(0)
    forms = {name: form.to(args.device) for name, form in subject.forms().items()}
    x, *others = (place(x, args.device, torch.contiguous_format) for x in subject.inputs(2))
    check_same(subject, forms, x, *others)
    size = {name: expert_bytes(form) for name, form in forms.items()}
    for row in rows:
        training = row['mode'] == 'training'
        layout = torch.contiguous_format
        if 'channels-last' in row['setting']:
            layout = torch.channels_last
        inputs = [place(x, args.device, layout) for x in subject.inputs(row['batch'])]
        prepare = subject.training_step if training else subject.inference
        graph = 'graph' in row['setting']
        autocast = torch.autocast(
            args.device, torch.bfloat16, 'bf16' in row['setting'], cache_enabled=not graph
        )
        calls = {}
        for name, form in forms.items():
            lay_out(form, layout)
            with autocast:
                calls[name] = autocast(prepare(form, *inputs))
            if graph:
                calls[name] = captured(calls[name])
        passes = subject.training_passes if training else 1
        yield dict(
            row,
            peak_bytes={name: peak_memory(call, args.device) for name, call in calls.items()},
            times=interleave(calls, args.rounds, args.device, BUDGET[row['level']]),
            expert_bytes=size,
            expert_seconds={name: passes * size[name] / bandwidth for name in forms},
        )


def captured(call: Call) -> Call:
    """The same on a GPU by one launch: replays what it put into a CUDA graph."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):  # allocations and choices of the first calls stay outside
        for _ in range(3):
            call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def machine(device: str) -> dict:
    """What figures of one file have in common."""
    name = f'{platform.machine()} CPU, {torch.backends.cpu.get_cpu_capability()}'
    if device == 'cuda':
        name = torch.cuda.get_device_name()
    return dict(
        device=name, threads=torch.get_num_threads(), torch=torch.__version__, timm=timm.__version__
    )


def load(path: Path, here: dict) -> dict:
    """The rows measured so far, and the runs that measured them.

    Raises:
        ValueError: they were measured elsewhere, so that others do not compare with them.
    """
    if not path.exists():
        return dict(machine=here, runs=[], rows=[])
    results = json.loads(path.read_text())
    if results['machine'] != here:
        raise ValueError(
            f'{path} must be of this machine, {here}, got {results["machine"]}: name another --out'
        )
    return results


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print a line a row, and write JSON, tables and chart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--level', choices=LEVELS, help='all levels unless given')
    parser.add_argument('--only', type=re.compile, default='', help='rows that match this pattern')
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'])
    parser.add_argument(
        '--channels-last', action='store_true', help='images in that layout, in float32'
    )
    parser.add_argument('--rounds', type=int, default=9, help='at most; long ones fewer')
    parser.add_argument(
        '--minutes', type=float, default=float('inf'), help='after which no row starts'
    )
    parser.add_argument('--quick', action='store_true', help='tiny sizes, one round: does it run?')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/speed'))
    args = parser.parse_args(argv)
    if args.quick:
        args.rounds = 1

    path = args.out / 'speed.json'
    results = load(path, dict(machine(args.device), quick=args.quick))
    measured = {label(row) for row in results['rows']}
    bandwidth = copy_bandwidth(args.device)
    command = shlex.join(['python', '-m', 'benchmarks.speed', *(argv or sys.argv[1:])])
    date = datetime.date.today().isoformat()
    results['runs'].append(dict(command=command, date=date, copy_bandwidth=bandwidth))
    print(f'{results["machine"]}, copies {bandwidth / 1e9:.1f} GB/s; median ms, (ratio to plain)')
    deadline = time.monotonic() + 60 * args.minutes
    for subject in subjects(args.quick, args.device):
        if args.level not in (None, subject.level) or time.monotonic() > deadline:
            continue
        rows = [row for row in rows_of(subject, args) if label(row) not in measured]
        rows = [row for row in rows if re.search(args.only, label(row))]
        if not rows:
            continue
        for row in measure(subject, rows, bandwidth, args):
            results['rows'].append(row)
            with written_whole(path) as partial:  # so that what was measured is never lost
                partial.write_text(json.dumps(results, indent=1))
            print(summary(row), flush=True)
            if time.monotonic() > deadline:
                break
    if results['rows']:
        print('\n' + goals_table(results['rows']))
        print(f'\n{path}, {write_report(path, args.out / "speed.md")}')


if __name__ == '__main__':
    main()
