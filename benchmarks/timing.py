"""Time and memory of calls that compete with each other."""

import json
import math
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

Call = Callable[[], object]

# A measurement shorter than this says more about the clock than about the call.
SHORTEST = 0.005
FEWEST_ROUNDS = 3
COPIED_BYTES = 2**29


def seconds(call: Call, device: str, repeats: int = 1) -> float:
    """Wall-clock time of one call, kernels included; the mean of `repeats` in a row."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    if device == 'cuda':
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def interleave(
    calls: Mapping[str, Call], rounds: int, device: str = 'cpu', budget: float = math.inf
) -> dict[str, list[float]]:
    """Times of calls that take turns within a round, so that a busy machine slows all alike.

    Each round starts with the next call, and a short call is repeated within its turn. Before the
    first round every call runs once.

    Args:
        calls: by name.
        rounds: at least 1.
        device: 'cpu' or 'cuda'.
        budget: seconds after which no round starts, once there are three.

    Returns:
        Seconds of each call, one a round, under the calls' names.
    """
    repeats = {
        name: math.ceil(SHORTEST / min(SHORTEST, seconds(call, device)))
        for name, call in calls.items()
    }
    times = {name: [] for name in calls}
    order = deque(calls)
    deadline = time.perf_counter() + budget
    for done in range(rounds):
        if done >= FEWEST_ROUNDS and time.perf_counter() > deadline:
            break
        for name in order:
            times[name].append(seconds(calls[name], device, repeats[name]))
        order.rotate(-1)
    return times


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
