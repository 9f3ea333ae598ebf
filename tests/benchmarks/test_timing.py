import pytest
import torch

from benchmarks import timing


class Clock:
    """Time that passes only in calls."""

    def __init__(self):
        self.now = 0.0
        self.log = []

    def call(self, name, duration):
        def advance():
            self.now += duration
            self.log.append(name)

        return advance


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing.time, 'perf_counter', lambda: clock.now)
    return clock


def test_calls_take_turns_and_each_is_first_in_turn(clock):
    calls = dict(a=clock.call('a', 1), b=clock.call('b', 2), c=clock.call('c', 4))
    times = timing.interleave(calls, rounds=3)
    assert times == dict(a=[1, 1, 1], b=[2, 2, 2], c=[4, 4, 4])
    assert ''.join(clock.log) == 'abc' + 'abc' + 'bca' + 'cab'


def test_a_short_call_is_repeated_and_its_time_is_one_calls(clock):
    times = timing.interleave({'short': clock.call('short', timing.SHORTEST / 4)}, rounds=1)
    assert times['short'] == [pytest.approx(timing.SHORTEST / 4)]
    assert len(clock.log) == 1 + 4


def test_no_round_starts_after_the_budget_once_there_are_three(clock):
    assert len(timing.interleave({'a': clock.call('a', 1)}, rounds=9, budget=0)['a']) == 3
    assert len(timing.interleave({'a': clock.call('a', 1)}, rounds=9, budget=4.5)['a']) == 5


def test_ratio_is_the_median_of_ratios_within_rounds():
    assert timing.ratio([2, 30, 9], [1, 10, 1]) == 3


def test_spread_is_the_distance_between_quartiles():
    assert timing.spread([1, 2, 3, 4, 100]) == 2


def test_peak_memory_is_what_is_held_at_once():
    x = torch.ones(2**16)
    size = x.nbytes

    def one_after_another():
        for _ in range(5):
            x.sin()

    def five_at_once():
        return [x.sin() for _ in range(5)]

    assert timing.peak_memory(one_after_another, 'cpu') == size
    assert timing.peak_memory(five_at_once, 'cpu') == 5 * size


def test_peak_memory_does_not_count_what_was_held_before():
    held = []
    timing.peak_memory(lambda: held.append(torch.ones(2**16)), 'cpu')

    def release_then_take():
        held.clear()
        return torch.ones(2**10)

    assert timing.peak_memory(release_then_take, 'cpu') == 4 * 2**10


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_peak_memory_on_a_gpu():
    x = torch.ones(2**20, device='cuda')
    assert timing.peak_memory(lambda: x.sin().cos(), 'cuda') == 2 * x.nbytes
