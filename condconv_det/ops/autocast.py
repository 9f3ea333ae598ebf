"""What autocast would make of a tensor, on every supported PyTorch."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """What autocast makes of x, None where it leaves x alone."""
    if x.dtype == torch.float64:
        return None
    device_type = x.device.type
    if hasattr(torch, 'get_autocast_dtype'):  # torch >= 2.4
        if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
            return torch.get_autocast_dtype(device_type)
    elif device_type == 'cpu' and torch.is_autocast_cpu_enabled():
        return torch.get_autocast_cpu_dtype()
    elif device_type == 'cuda' and torch.is_autocast_enabled():
        return torch.get_autocast_gpu_dtype()
    return None


def without_autocast(x: Tensor) -> AbstractContextManager:
    """A context in which autocast leaves tensors of x's device alone.

    Where it does so anyway, to enter `torch.autocast` would take as long as a small layer.
    """
    if autocast_dtype(x) is None:
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)
