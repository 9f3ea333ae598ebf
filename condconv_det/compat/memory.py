"""Memory that a process keeps from step to step, for PyTorch 2 on a CPU.

A training step frees all its activations and gradients, and asks for the same again. glibc gives
each large one back to the system, which hands out the next page by page and cleared: to write 32 MB
anew takes several times as long as to write over it.
"""

import ctypes
import os
import sys

# of mallopt(3)
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Lets this process, and those that it forks, use again what they have freed.

    It changes no result. The most that the process has needed stays its own until it ends. Tensors
    of 2 MB and more lie in large pages, if PyTorch has made no tensor yet and the environment says
    nothing else.

    Returns:
        Whether it does; only glibc's allocator can.
    """
    libc = ctypes.CDLL(None) if sys.platform == 'linux' else None
    if not hasattr(libc, 'gnu_get_libc_version'):
        return False
    os.environ.setdefault('THP_MEM_ALLOC_ENABLE', '1')  # read once, at the first tensor
    return bool(libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, -1))
