"""Mixing by an operator in C++: as exact as PyTorch's, used where it is asked for and can be."""

import copy
import shutil
import sys
from importlib import import_module

import pytest
import torch
from torch.torch_version import TorchVersion

from condconv_det.deploy import cast_experts, compile_mixing
from condconv_det.layers import CondConv2d, CondLinear
from condconv_det.ops import cond_conv2d, mix_kernels

MODULE = import_module('condconv_det.ops.compiled_mixing')
builds = pytest.mark.skipif(
    not (shutil.which('c++') and shutil.which('ninja')), reason='needs a C++ compiler and ninja'
)

new_torch = pytest.mark.skipif(
    TorchVersion(torch.__version__) < MODULE.MIN_TORCH, reason=f'needs torch {MODULE.MIN_TORCH}'
)


@pytest.fixture(autouse=True)
def not_in_use(monkeypatch):
    monkeypatch.setattr(MODULE, 'operator', None)


@pytest.fixture
def calls(monkeypatch):
    """The shapes of experts that the operator has mixed."""
    assert compile_mixing(verbose=True)
    built, shapes = MODULE.operator, []

    def record(routing, weight):
        shapes.append(tuple(weight.shape))
        return built(routing, weight)

    monkeypatch.setattr(MODULE, 'operator', record)
    return shapes


@builds
@pytest.mark.long
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    'shape', [(1, 1, 1, 1, 1), (3, 5, 7, 3, 3), (8, 64, 1, 3, 3), (5, 300, 200, 1, 1)]
)
@torch.no_grad()
def test_it_mixes_as_float64_does(calls, shape, dtype):
    routing, weight = torch.randn(1, shape[0]), torch.randn(shape).to(dtype)
    expected = mix_kernels(routing.double(), weight.double())
    torch.testing.assert_close(mix_kernels(routing, weight).double(), expected, rtol=0, atol=1e-5)
    assert calls == [shape]


@builds
@pytest.mark.long
@torch.no_grad()
def test_experts_may_lie_apart(calls):
    routing, whole = torch.randn(1, 4), torch.randn(4, 50, 30, 1, 1).half()
    rows = whole[:, 7:40]
    torch.testing.assert_close(
        mix_kernels(routing, rows), mix_kernels(routing, rows.float()), rtol=0, atol=1e-5
    )
    assert calls == [(4, 33, 30, 1, 1)]


@builds
@pytest.mark.long
@torch.no_grad()
def test_one_image_takes_it_in_every_layer_and_gives_the_same(calls):
    layers = torch.nn.Sequential(
        CondConv2d(8, 8, 3, padding=1, groups=8, num_experts=3),
        CondConv2d(8, 1100, 1, num_experts=8),
        CondConv2d(1100, 6, 3, stride=2, padding='same', num_experts=3),
    )
    half, x = cast_experts(layers, torch.float16), torch.randn(1, 8, 9, 9)
    expected = copy.deepcopy(half).double()(x.double())
    torch.testing.assert_close(half(x).double(), expected, rtol=0, atol=1e-5)
    assert [shape[:3] for shape in calls] == [tuple(layer.weight.shape[:3]) for layer in layers]


@builds
@pytest.mark.long
@torch.no_grad()
def test_autocast_convolves_in_its_own_type_by_kernels_that_it_mixed(calls):
    layer = cast_experts(CondConv2d(8, 16, 3, num_experts=3), torch.float16)
    x = torch.randn(1, 8, 9, 9)
    with torch.autocast('cpu', torch.bfloat16):
        y = layer(x)
    assert y.dtype == torch.bfloat16 and calls
    torch.testing.assert_close(y.float(), layer(x), rtol=0.05, atol=0.05)


@builds
@pytest.mark.long
def test_all_else_is_computed_as_before(calls):
    x, routing = torch.randn(1, 4, 6, 6), torch.rand(1, 3)
    weight = torch.randn(3, 8, 4, 1, 1).half()
    cond_conv2d(x, routing, weight.clone().requires_grad_())  # gradients
    cond_conv2d(x, routing.requires_grad_(), weight)
    with torch.no_grad():
        cond_conv2d(x.expand(2, -1, -1, -1), routing.expand(2, -1), weight)  # two images
        cond_conv2d(x, routing, weight.float())
        cond_conv2d(x.double(), routing.double(), weight)
        cast_experts(CondLinear(4, 5, num_experts=3))(torch.randn(1, 4))
        layer = cast_experts(CondConv2d(4, 8, 1, num_experts=3), torch.float16)
        torch.compile(layer, backend='eager', fullgraph=True)(x)
    assert calls == []


def test_an_older_torch_is_named(monkeypatch):
    monkeypatch.setattr(torch, '__version__', '2.5.1')
    assert not compile_mixing()
    with pytest.raises(ImportError, match='needs torch >= 2.6, this is 2.5.1'):
        compile_mixing(verbose=True)


@new_torch
@pytest.mark.parametrize('error', [RuntimeError, OSError])
def test_where_it_cannot_be_built_nothing_changes(monkeypatch, error):
    def fail(*args, **kwargs):
        raise error('no compiler')

    monkeypatch.setattr('torch.utils.cpp_extension.load_inline', fail)
    assert not compile_mixing()
    layer = cast_experts(CondConv2d(4, 4, 3, num_experts=3))
    assert layer(torch.randn(1, 4, 9, 9)).dtype == torch.float32
    with pytest.raises(error, match='no compiler'):
        compile_mixing(verbose=True)


@new_torch
def test_without_setuptools_nothing_changes(monkeypatch):
    monkeypatch.setitem(sys.modules, 'setuptools', None)
    monkeypatch.delitem(sys.modules, 'torch.utils.cpp_extension', raising=False)
    assert not compile_mixing()
    with pytest.raises(ImportError, match='setuptools'):
        compile_mixing(verbose=True)
