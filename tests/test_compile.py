"""torch.compile traces our networks whole, and once for all batch sizes."""

import shutil
from pathlib import Path

import pytest
import torch
from functorch.compile import min_cut_rematerialization_partition
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.testing import CompileCounterWithBackend
from torch.torch_version import TorchVersion

from condconv_det import CondConv2d

CONFIG = Path(__file__).parents[1] / 'configs' / 'shapes'
CONFIG /= 'ssd128_mobilenet-v1-0.5-condconv-e8_1xb8-5e_shapes.py'
BATCHES = (3, 2, 8)
pytestmark = pytest.mark.skipif(
    TorchVersion(torch.__version__) < '2.4',
    reason='torch 2.1 to 2.3 cannot trace the choice of a kernel, see docs/deploy.md',
)


@pytest.fixture(autouse=True)
def _forget_what_was_compiled():
    torch._dynamo.reset()


def flat(outputs):
    """The maps of a backbone, or a head's lists of maps."""
    return [m for out in outputs for m in (out if isinstance(out, list) else [out])]


def gradients(model, outputs):
    model.zero_grad()
    sum(feature_map.square().mean() for feature_map in flat(outputs)).backward()
    return {name: parameter.grad for name, parameter in model.named_parameters()}


def assert_compiles(model, backend, size, **call):
    """In one piece, once for all BATCHES, to the same outputs and gradients."""
    model.double()  # in which compiled and eager code round alike
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(model, backend=counter, fullgraph=True)
    for batch in BATCHES:
        x = torch.randn(batch, 3, size, size, dtype=torch.float64)
        torch._dynamo.mark_dynamic(x, 0)
        found, expected = compiled(x, **call), model(x, **call)
        for mine, theirs in zip(flat(found), flat(expected), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-6)
    assert counter.frame_count == 1
    mine, theirs = gradients(model, found), gradients(model, expected)
    for name, gradient in theirs.items():
        scale = gradient.abs().max().item()
        torch.testing.assert_close(
            mine[name], gradient, rtol=1e-6, atol=max(1e-6 * scale, 1e-9), msg=name
        )


@pytest.mark.long
def test_every_backbone_compiles_once_for_all_batch_sizes(backbone_cfg):
    model = MODELS.build(dict(backbone_cfg, cond_cfg=dict(num_experts=4)))
    model.train()
    assert_compiles(model, 'eager', 64)


@pytest.mark.long
def test_shared_routers_compile():
    cond_cfg = dict(num_experts=4, share='network', routing=dict(hidden_channels=8))
    model = MODELS.build(
        dict(type='CondConvMobileNetV1', widen_factor=0.25, out_indices=(4,), cond_cfg=cond_cfg)
    )
    assert_compiles(model, 'eager', 64)


@pytest.mark.long
def test_a_block_compiles_once_for_all_batch_sizes_and_so_does_its_backward_pass():
    cond_cfg = dict(num_experts=4, start=1)
    model = MODELS.build(
        dict(type='CondConvMobileNetV1', widen_factor=0.25, out_indices=(0,), cond_cfg=cond_cfg)
    )
    assert_compiles(model, 'aot_eager', 32)


@pytest.mark.long
def test_the_tensor_part_of_a_detector_compiles():
    init_default_scope('mmdet')
    model = MODELS.build(Config.fromfile(CONFIG).model)
    model.eval()  # norms of a last map of one pixel have no statistics to speak of
    assert_compiles(model, 'eager', 128, mode='tensor')


needs_cxx = pytest.mark.skipif(shutil.which('g++') is None, reason='needs a C++ compiler')


@needs_cxx
@pytest.mark.long
def test_inductor_gives_the_same_outputs_and_gradients():
    model = nn.Sequential(
        CondConv2d(3, 8, 3, padding='same', stride=2, num_experts=4),
        nn.ReLU(),
        CondConv2d(8, 8, 3, padding=1, groups=8, num_experts=4),
        CondConv2d(8, 16, 1, num_experts=4),
    )
    assert_compiles(model, 'inductor', 16)


@needs_cxx
@pytest.mark.long
def test_inductor_gives_the_same_maps_and_gradients_of_a_backbone():
    model = MODELS.build(
        dict(type='CondConvMobileNetV1', widen_factor=0.25, cond_cfg=dict(num_experts=4))
    )
    model.eval()
    assert_compiles(model, 'inductor', 64)


@needs_cxx
@pytest.mark.long
def test_inductor_gives_the_same_outputs_and_gradients_of_a_detector():
    init_default_scope('mmdet')
    model = MODELS.build(Config.fromfile(CONFIG).model)
    model.eval()
    assert_compiles(model, 'inductor', 128, mode='tensor')


@pytest.mark.parametrize('kernel, groups', [(1, 1), (3, 1), (3, 16)])
def test_a_compiler_keeps_no_kernel_per_example_for_backward(kernel, groups):
    kept = []

    def forward_compiler(graph, inputs):
        (output,) = (node for node in graph.graph.nodes if node.op == 'output')
        values = (getattr(node, 'meta', {}).get('val') for node in output.args[0])
        kept.extend(value.numel() for value in values if hasattr(value, 'numel'))
        return graph

    backend = aot_autograd(
        fw_compiler=forward_compiler,
        bw_compiler=lambda graph, inputs: graph,
        partition_fn=min_cut_rematerialization_partition,  # Inductor's
    )
    layer = CondConv2d(16, 16, kernel, padding=kernel // 2, groups=groups, num_experts=5)
    x = torch.randn(3, 16, 9, 9, requires_grad=True)
    torch.compile(layer, backend=backend, fullgraph=True)(x).sum().backward()
    assert x.numel() in kept and 3 * layer.weight[0].numel() not in kept
    assert max(kept) <= max(x.numel(), layer.weight.numel())
