"""What is freed is used again: counted in pages that the system hands out."""

import subprocess
import sys

import pytest

from condconv_det.compat.memory import keep_freed_memory

PAGES = """
import resource
import sys

import torch

from condconv_det.compat.memory import keep_freed_memory

if sys.argv[1:] == ['keep'] and not keep_freed_memory():
    sys.exit("another allocator than glibc's")


def pages_of_a_step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.ones(2**size) for size in range(18, 24)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before, tensors


for _ in range(10):
    pages, _ = pages_of_a_step()
print(pages)
"""


def pages_of_a_step(*args):
    """Handed out for 66 MB of tensors, after the same nine times before."""
    found = subprocess.run([sys.executable, '-c', PAGES, *args], capture_output=True, text=True)
    if "another allocator than glibc's" in found.stderr:
        pytest.skip("needs glibc's allocator")
    assert found.returncode == 0, found.stderr
    return int(found.stdout)


def test_freed_memory_is_used_again():
    assert pages_of_a_step('keep') < pages_of_a_step() / 10


@pytest.mark.parametrize('platform', ['darwin', 'win32'])
def test_other_allocators_are_left_alone(platform, monkeypatch):
    monkeypatch.setattr(sys, 'platform', platform)
    monkeypatch.delenv('THP_MEM_ALLOC_ENABLE', raising=False)
    assert not keep_freed_memory()
