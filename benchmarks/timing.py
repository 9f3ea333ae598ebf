"""Time and memory of calls that compete with each other."""

import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from condconv_det.analysis.interleave import Call, interleave

COPIED_BYTES = 2**29


def spread(times: Sequence[float]) -> float:
    """Interquartile range."""
    low, high = np.percentile(times, [25, 75])
    return float(high - low)


def ratio(times: Sequence[float], baseline: Sequence[float]) -> float:
    """Median over the rounds of a call's time over another's in the same round."""
    return statistics.median(a / b for a, b in zip(times, baseline, strict=True))


def copy_bandwidth(device: str) -> float:
    """Bytes per second that a copy reads and writes in memory, median of five."""
    source = torch.ones(COPIED_BYTES, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = interleave({'copy': lambda: target.copy_(source)}, rounds=5, device=device)
    return 2 * COPIED_BYTES / statistics.median(times['copy'])


def peak_memory(call: Call, device: str) -> int:
    """Most bytes that a call holds at once beyond those held before it.

    On a GPU the allocator counts them. On a CPU every allocation and release that PyTorch's own
    allocator reports, temporary memory of its operators included, is added up, so that the figure
    is the same in every run.
    """
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / 'trace.json'
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())['traceEvents']
    blocks = sorted((e for e in events if e['name'] == '[memory]'), key=lambda event: event['ts'])
    held: dict[int, int] = {}
    now = peak = 0
    for args in (event['args'] for event in blocks):
        if args['Bytes'] > 0:
            held[args['Addr']] = args['Bytes']
            now += args['Bytes']
        else:  # what was held before the call does not count, nor does its release
            now -= held.pop(args['Addr'], 0)
        peak = max(peak, now)
    return peak
