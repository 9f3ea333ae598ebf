import pytest
import torch

from benchmarks import timing


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


@pytest.mark.gpu
def test_peak_memory_on_a_gpu():
    x = torch.ones(2**20, device='cuda')
    assert timing.peak_memory(lambda: x.sin().cos(), 'cuda') == 2 * x.nbytes
