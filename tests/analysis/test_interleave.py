import time

import pytest

from condconv_det.analysis.interleave import SHORTEST, interleave


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
    monkeypatch.setattr(time, 'perf_counter', lambda: clock.now)
    return clock


def test_calls_take_turns_and_each_is_first_in_turn(clock):
    calls = dict(a=clock.call('a', 1), b=clock.call('b', 2), c=clock.call('c', 4))
    times = interleave(calls, rounds=3)
    assert times == dict(a=[1, 1, 1], b=[2, 2, 2], c=[4, 4, 4])
    assert ''.join(clock.log) == 'aabbcc' + 'abc' + 'bca' + 'cab'


def test_a_short_call_is_repeated_and_its_time_is_one_calls(clock):
    times = interleave({'short': clock.call('short', SHORTEST / 4)}, rounds=1)
    assert times['short'] == [pytest.approx(SHORTEST / 4)]
    assert len(clock.log) == 2 + 1 + 4  # to know it, to warm up, counted


def test_no_round_starts_after_the_budget_once_there_are_three(clock):
    assert len(interleave({'a': clock.call('a', 1)}, rounds=9, budget=0)['a']) == 3
    assert len(interleave({'a': clock.call('a', 1)}, rounds=9, budget=4.5)['a']) == 5


def test_only_the_first_call_of_a_form_may_take_longer(clock):
    durations = iter([1] + 9 * [0.6 * SHORTEST])
    times = interleave({'sets up': lambda: clock.call('', next(durations))()}, rounds=1)
    assert times['sets up'] == [pytest.approx(0.6 * SHORTEST)] and len(clock.log) == 2 + 1 + 2


def test_a_warm_turn_begins_with_a_call_that_does_not_count(clock):
    durations = iter([1, 1, 5, 1, 5, 1])
    times = interleave({'a': lambda: clock.call('a', next(durations))()}, rounds=2, warm=True)
    assert times['a'] == [1, 1]
