import os

# Two test processes share two cores; a thread pool in each would only make them wait.
os.environ.setdefault('OMP_NUM_THREADS', '1')

from pathlib import Path

import numpy as np
import pytest
import torch

import condconv_det  # noqa: F401  registers everything

GOLDEN = Path(__file__).parent / 'golden'


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
    np.random.seed(0)
