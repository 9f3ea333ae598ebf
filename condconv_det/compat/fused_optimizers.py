"""torch < 2.4 has fused optimizers on GPUs alone; the recipes ask for AdamW's wherever they run."""

from collections.abc import Iterable
from functools import wraps
from types import ModuleType
from typing import Any

import torch
from mmengine.utils import digit_version
from torch import Tensor


class FusedOnGPUs(torch.optim.AdamW):
    """AdamW that takes `fused=True` on any device, and heeds it on GPUs."""

    @wraps(torch.optim.AdamW.__init__)  # those who look for defaults find AdamW's
    def __init__(
        self, params: Iterable, *args: Any, fused: bool | None = None, **kwargs: Any
    ) -> None:
        params = list(params)
        groups = [group['params'] if isinstance(group, dict) else group for group in params]
        tensors = [t for group in groups for t in ([group] if isinstance(group, Tensor) else group)]
        if fused and not all(tensor.is_cuda for tensor in tensors):
            fused = None
        super().__init__(params, *args, fused=fused, **kwargs)


def mend(builder: ModuleType) -> None:
    """Puts it in the place of AdamW in mmengine.optim.optimizer.builder's registry, if need be."""
    if digit_version(torch.__version__) < digit_version('2.4'):
        builder.OPTIMIZERS.register_module('AdamW', force=True, module=FusedOnGPUs)
