"""Work done in several processes at a time, which talk through gloo."""

import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed
from torch.multiprocessing import start_processes


def in_processes(number: int, work: Callable[[int], Any]) -> list:
    """What work(rank) returned in each of so many forks of this process."""
    if torch.cuda.is_initialized():
        pytest.skip('a process that has used a GPU cannot be forked: run this file by itself')
    with tempfile.TemporaryDirectory() as path:
        folder = Path(path)

        def run(rank: int) -> None:
            distributed.init_process_group(
                'gloo',
                init_method=f'file://{folder}/group',
                rank=rank,
                world_size=number,
                timeout=timedelta(seconds=60),
            )
            torch.save(work(rank), folder / f'{rank}.pth')
            distributed.destroy_process_group()

        start_processes(run, nprocs=number, start_method='fork')
        return [torch.load(folder / f'{rank}.pth', weights_only=True) for rank in range(number)]


def share(batch: dict[str, list], rank: int, number: int) -> dict[str, list]:
    """The images of a batch that one of so many processes gets."""
    return {key: values[rank::number] for key, values in batch.items()}


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor], bound: float = 1e-6) -> None:
    """No value is off by more than `bound` of the tensor's largest."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        scale = value.abs().max().item()
        assert scale > 0 or not found[key].any(), key
        torch.testing.assert_close(found[key], value, rtol=0, atol=bound * scale, msg=key)
