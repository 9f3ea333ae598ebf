from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from condconv_det.weights import SOURCES

CLASSES = 10
# Channels before, and between, the linear layers of the classifier.
WIDTHS = {
    'mobilenet_v2': [1280],
    'mobilenet_v3_small': [576, 1024],
    'mobilenet_v3_large': [960, 1280],
    'efficientnet_b0': [1280],
    'resnet18': [512],
    'resnet50': [2048],
}


@pytest.fixture
def small_images(monkeypatch):
    """Networks are compared on images of a sixth of their size, which takes as much less time."""
    for library, sources in SOURCES.items():
        small = {arch: replace(source, side=96) for arch, source in sources.items()}
        monkeypatch.setitem(SOURCES, library, small)


@pytest.fixture
def original(settle):
    """A library's network with random weights, under which its features don't fade."""

    def original(library, arch, image=None):
        source = SOURCES[library][arch]
        widths = [*WIDTHS.get(arch, [None]), CLASSES] if source.classifier else []
        return settle(source.build(widths), torch.randn(2, 3, 64, 64) if image is None else image)

    return original


@pytest.fixture
def save(tmp_path):
    """Writes a state dict as a library would publish it, and says where."""

    def save(state_dict, suffix='.pth'):
        path = tmp_path / f'original{suffix}'
        if suffix == '.safetensors':
            save_file({key: value.contiguous() for key, value in state_dict.items()}, path)
        else:
            torch.save(state_dict, path)
        return path

    return save
