"""Times of calls that compete with each other."""

import math
import time
from collections import deque
from collections.abc import Callable, Mapping

import torch

Call = Callable[[], object]

# A measurement shorter than this says more about the clock than about the call.
SHORTEST = 0.005
FEWEST_ROUNDS = 3


def seconds(call: Call, device: str, repeats: int = 1) -> float:
    """Wall-clock time of one call, kernels included; the mean of `repeats` in a row."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    if device == 'cuda':
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats


def interleave(
    calls: Mapping[str, Call],
    rounds: int,
    device: str = 'cpu',
    budget: float = math.inf,
    warm: bool = False,
) -> dict[str, list[float]]:
    """Times of calls that take turns within a round, so that a busy machine slows all alike.

    Each round starts with the next call. A short call is repeated within its turn, after one that
    does not count, so that caches and the allocator are its own. Before the first round every call
    runs twice.

    Args:
        calls: by name.
        rounds: at least 1.
        device: 'cpu' or 'cuda'.
        budget: seconds after which no round starts, once there are three.
        warm: whether each turn, not only that of a short call, begins with one that does not count.

    Returns:
        Seconds of each call, one a round, under the calls' names.
    """
    repeats = {
        name: math.ceil(SHORTEST / min(SHORTEST, seconds(call, device), seconds(call, device)))
        for name, call in calls.items()
    }
    times = {name: [] for name in calls}
    order = deque(calls)
    deadline = time.perf_counter() + budget
    for done in range(rounds):
        if done >= FEWEST_ROUNDS and time.perf_counter() > deadline:
            break
        for name in order:
            if warm or repeats[name] > 1:
                calls[name]()
            times[name].append(seconds(calls[name], device, repeats[name]))
        order.rotate(-1)
    return times
