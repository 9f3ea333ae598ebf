import pytest
import torch


@pytest.fixture(autouse=True)
def _threads_as_before():
    """Benchmarks set PyTorch's threads for their whole process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
