"""What autocast would make of a tensor, on every supported PyTorch."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """What autocast makes of x, None where it leaves x alone."""
    device_type = x.device.type
    if x.dtype == torch.float64 or not _is_enabled(device_type):
        return None
    return _dtype_of(device_type)


if hasattr(torch, 'get_autocast_dtype'):  # torch >= 2.4
    _dtype_of = torch.get_autocast_dtype

    def _is_enabled(device_type: str) -> bool:
        return torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(
            device_type
        )

else:

    def _is_enabled(device_type: str) -> bool:
        if device_type == 'cpu':
            return torch.is_autocast_cpu_enabled()
        return device_type == 'cuda' and torch.is_autocast_enabled()

    def _dtype_of(device_type: str) -> torch.dtype:
        if device_type == 'cpu':
            return torch.get_autocast_cpu_dtype()
        return torch.get_autocast_gpu_dtype()


def without_autocast(x: Tensor) -> AbstractContextManager:
    """A context in which autocast leaves tensors of x's device alone.

    Where it does so anyway, to enter `torch.autocast` would take as long as a small layer.
    """
    if autocast_dtype(x) is None:
        return nullcontext()
    return torch.autocast(x.device.type, enabled=False)
