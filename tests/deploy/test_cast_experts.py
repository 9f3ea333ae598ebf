"""Half-precision experts lose their own rounding and nothing else."""

import copy
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner.checkpoint import load_checkpoint, save_checkpoint
from torch import nn

from condconv_det.deploy import cast_experts, fold_batch_norm
from condconv_det.layers import CondConv2d, CondLinear
from condconv_det.ops import cond_conv2d

CONFIGS = Path(__file__).parents[2] / 'configs'
# How far rounding moves a weight, at most, relative to it.
ROUNDING = {torch.bfloat16: 2**-8, torch.float16: 2**-11}
half_types = pytest.mark.parametrize('dtype', ROUNDING, ids=str)


def build_backbone(backbone_cfg):
    return MODELS.build(dict(backbone_cfg, cond_cfg=dict(num_experts=4)))


def error(found, expected):
    """Root mean square error over root mean square deviation."""
    return ((found - expected).norm() / (expected - expected.mean()).norm()).item()


@half_types
@torch.no_grad()
def test_only_experts_change_type_and_all_that_is_lost_is_their_rounding(
    backbone_cfg, dtype, settle
):
    x = torch.randn(2, 3, 64, 64).double()
    model = settle(build_backbone(backbone_cfg).double(), x)
    before = copy.deepcopy(model.state_dict())
    cast = cast_experts(model, dtype)
    experts = {f'{n}.weight' for n, m in cast.named_modules() if isinstance(m, CondConv2d)}
    assert experts == {name for name, tensor in cast.state_dict().items() if tensor.dtype == dtype}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    maps, found = model(x), cast(x)
    model.load_state_dict(cast.state_dict())  # rounded, in double precision
    assert error(found[-1], maps[-1]) > 1e-5
    for mine, rounded in zip(found, model(x)):
        assert mine.dtype == x.dtype and error(mine, rounded) < 1e-9


@half_types
@pytest.mark.parametrize('groups', [1, 8])
@torch.no_grad()
def test_a_layers_outputs_move_by_no_more_than_rounding_moves_weights(groups, dtype):
    layer = CondConv2d(8, 8, 3, groups=groups, bias=False, num_experts=4)
    x = torch.randn(5, 8, 9, 9)
    moved = (cast_experts(layer, dtype)(x) - layer(x)).abs()
    sizes = cond_conv2d(x.abs(), layer.router(x), layer.weight.abs(), groups=groups)
    assert (moved <= ROUNDING[dtype] * sizes + 1e-6).all()
    assert moved.max() > 0.1 * ROUNDING[dtype] * sizes.mean()


# These two with random weights; the others, untrained, blow up any error: see docs/deploy.md for
# trained ones.
@pytest.mark.parametrize(
    'cfg',
    [
        dict(type='CondConvResNet', depth=18, base_channels=16),
        dict(type='CondConvMobileNetV3', arch='small'),
    ],
    ids=lambda cfg: cfg['type'],
)
@torch.no_grad()
def test_a_networks_outputs_move_by_a_tenth_or_an_eightieth_at_most(cfg, settle):
    x = torch.randn(4, 3, 64, 64)
    model = settle(build_backbone(cfg), x)
    expected = model(x)[-1]
    for dtype, bound in ((torch.bfloat16, 1 / 10), (torch.float16, 1 / 80)):
        found = cast_experts(model, dtype)(x)[-1]
        assert found.dtype == torch.float32 and 1e-4 < error(found, expected) < bound


@half_types
@torch.no_grad()
def test_a_routed_classifier_is_cast_too(dtype):
    layer = CondLinear(64, 10, num_experts=4)
    cast = cast_experts(layer, dtype)
    assert cast.weight.dtype == dtype and cast.router.fc.weight.dtype == torch.float32
    for batch in (1, 5):
        x = torch.randn(batch, 64)
        assert cast(x).dtype == torch.float32
        assert 0 < error(cast(x), layer(x)) < ROUNDING[dtype]


@pytest.fixture(scope='module')
def detector():
    """At half its width, with five classes."""
    cfg = Config.fromfile(
        CONFIGS / 'ssd' / 'ssd300_mobilenet-v1-0.5-condconv-e8_8xb128-20k_coco.py'
    ).model
    cfg.backbone.update(widen_factor=0.25, init_cfg=None)
    channels = [count // 2 for count in cfg.bbox_head.in_channels]
    cfg.neck.update(in_channels=channels[:2], out_channels=channels)
    cfg.bbox_head.update(in_channels=channels, num_classes=5)
    init_default_scope('mmdet')
    return MODELS.build(cfg).eval()


@half_types
def test_files_halve_and_load_into_either_network(detector, dtype, tmp_path):
    cast = cast_experts(detector, dtype)
    for name, model in (('float32', detector), ('half', cast)):
        save_checkpoint(dict(meta={}, state_dict=model.state_dict()), str(tmp_path / name))
    sizes = {name: (tmp_path / name).stat().st_size for name in ('float32', 'half')}
    assert sizes['half'] / sizes['float32'] < 0.55

    widened = copy.deepcopy(detector)
    load_checkpoint(widened, str(tmp_path / 'half'))
    narrowed = cast_experts(detector, dtype)
    for weight in narrowed.parameters():
        nn.init.zeros_(weight)
    load_checkpoint(narrowed, str(tmp_path / 'float32'))
    types, narrow, wide = (model.state_dict() for model in (detector, narrowed, widened))
    for name, tensor in cast.state_dict().items():
        assert torch.equal(narrow[name], tensor)
        assert torch.equal(wide[name], tensor.to(types[name]))
    assert next(widened.parameters()).dtype == torch.float32


@half_types
@torch.no_grad()
def test_folding_works_before_and_after(dtype, settle):
    x = torch.randn(4, 3, 64, 64)
    resnet = dict(type='CondConvResNet', depth=18, base_channels=16)
    model = settle(build_backbone(resnet), x)
    expected = model(x)[-1]
    both = (
        cast_experts(fold_batch_norm(model), dtype),
        fold_batch_norm(cast_experts(model, dtype)),
    )
    for small in both:
        found = small(x)[-1]
        assert found.dtype == torch.float32 and error(found, expected) < 6 * ROUNDING[dtype]


def test_bad_input_is_named():
    layer = CondConv2d(4, 4, 1, num_experts=2)
    with pytest.raises(ValueError, match=r'cast to \(torch.bfloat16, torch.float16\), got .*int8'):
        cast_experts(layer, torch.int8)
    with pytest.raises(ValueError, match='Conv2d has no experts to cast: it is static'):
        cast_experts(nn.Conv2d(4, 4, 1))
    layer.weight.data[0, 0, 0] = 1e5
    with pytest.raises(ValueError, match='0 has a weight of 100000; torch.float16 ends at 65504'):
        cast_experts(nn.Sequential(layer), torch.float16)
    assert cast_experts(layer).weight.isfinite().all()
