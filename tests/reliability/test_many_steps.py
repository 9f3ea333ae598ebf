"""Training steps of ever other batch and image sizes hold on to nothing."""

import gc
import os
import random
from pathlib import Path

import pytest
import torch

from condconv_det.backbones import CondConvMobileNetV1

STEPS = 2000


def resident_mb():
    pages = int(Path('/proc/self/statm').read_text().split()[1])
    return pages * os.sysconf('SC_PAGE_SIZE') / 2**20


def open_files():
    return len(os.listdir('/proc/self/fd'))


@pytest.mark.long
def test_memory_and_open_files_do_not_grow():
    rng = random.Random(0)
    sizes = [(batch, side) for batch in (1, 2, 3, 5) for side in (64, 96, 128)]
    model = CondConvMobileNetV1(0.25, cond_cfg=dict(num_experts=4)).train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)

    def step(batch, side):
        optimizer.zero_grad()
        loss = sum(level.square().mean() for level in model(torch.randn(batch, 3, side, side)))
        loss.backward()
        optimizer.step()

    for size in sizes * 3:  # oneDNN keeps a primitive for each shape
        step(*size)
    gc.collect()
    memory, files, tensors = resident_mb(), open_files(), count_tensors()
    for _ in range(STEPS):
        step(*rng.choice(sizes))
    gc.collect()
    print(f'{resident_mb() - memory:+.1f} MB after {STEPS} steps')
    assert count_tensors() == tensors
    assert open_files() == files
    assert resident_mb() - memory < 30


def count_tensors():
    return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())
