"""Folding changes no output, and leaves what it cannot fold; mmcv agrees where it is right."""

import copy
from pathlib import Path

import pytest
import torch
from mmcv.cnn import ConvModule, fuse_conv_bn
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import spectral_norm

from condconv_det.deploy import fold_batch_norm
from condconv_det.layers import CondConv2d, Router

CONFIGS = Path(__file__).parents[2] / 'configs'
COND_CFGS = {
    'static': None,
    'a router a layer': dict(num_experts=4),
    'a router a block': dict(num_experts=4, share='block', routing=dict(activation='softmax')),
}


def norms(model):
    return [name for name, module in model.named_modules() if isinstance(module, _BatchNorm)]


def assert_same_maps(mine, theirs):
    assert len(mine) == len(theirs)
    for my_map, their_map in zip(mine, theirs):
        assert their_map.dtype == torch.float64  # in float32, untrained networks blow rounding up
        scale = (their_map - their_map.mean()).abs().max().item()
        torch.testing.assert_close(my_map, their_map, rtol=0, atol=1e-8 * scale)


@pytest.mark.parametrize('cond_cfg', COND_CFGS.values(), ids=COND_CFGS)
@torch.no_grad()
def test_every_backbone_gives_the_same_maps_without_a_norm(backbone_cfg, cond_cfg, settle):
    x = torch.randn(2, 3, 64, 64).double()
    model = settle(MODELS.build(dict(backbone_cfg, cond_cfg=cond_cfg)).double(), x)
    before = copy.deepcopy(model.state_dict())
    folded = fold_batch_norm(model)
    assert norms(model) and not norms(folded)
    expected = model(x)
    assert_same_maps(folded(x), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert_same_maps(fuse_conv_bn(model)(x), folded(x))


@torch.no_grad()
def test_routers_see_what_they_saw(backbone_cfg, settle):
    x = torch.randn(2, 3, 64, 64).double()
    model = settle(MODELS.build(dict(backbone_cfg, cond_cfg=dict(num_experts=4))).double(), x)
    seen = []
    for network in (model, fold_batch_norm(model)):
        routings = []
        for router in (m for m in network.modules() if isinstance(m, Router)):
            router.register_forward_hook(lambda _, __, out, routings=routings: routings.append(out))
        network(x)
        seen.append(torch.cat(routings))
    assert seen[0].std() > 0.01
    torch.testing.assert_close(seen[1], seen[0], rtol=0, atol=1e-8)


def build_detector(config):
    """A config's detector, RetinaNet's narrower, with two experts in each routed layer."""
    cfg = Config.fromfile(CONFIGS / config).model
    cfg.backbone.pop('init_cfg', None)  # no download
    for part in (cfg.backbone, cfg.neck, cfg.bbox_head):
        for routed in (part.get('cond_cfg'), part.get('conv_cfg')):
            if routed and 'num_experts' in routed:
                routed.num_experts = 2
    if cfg.neck.type == 'FPN':
        cfg.neck.out_channels = cfg.bbox_head.in_channels = cfg.bbox_head.feat_channels = 32
    init_default_scope('mmdet')
    return MODELS.build(cfg)


@pytest.mark.parametrize(
    'config',
    [
        'ssd/ssd300_mobilenet-v1-0.5-condconv-e8_8xb128-20k_coco.py',
        pytest.param('ssd/ssdlite_mobilenet-v2-scratch_8xb24-600e_coco.py', marks=pytest.mark.long),
        'ssd/ssdlite_mobilenet-v2-scratch-condconv-e8_8xb24-600e_coco.py',
        pytest.param(
            'retinanet/retinanet_mobilenet-v2_fpn-condconv-e8_1x_coco.py', marks=pytest.mark.long
        ),
    ],
)
@torch.no_grad()
def test_detectors_give_the_same_maps_without_a_norm(config, settle):
    images = torch.randn(3, 3, 128, 128).double()
    model = settle(build_detector(config).double(), images)
    folded = fold_batch_norm(model)
    assert norms(model) and not norms(folded)
    expected, found = model(images), folded(images)
    fused = fuse_conv_bn(model)(images)
    for mine, theirs, mmcvs in zip(found, expected, fused):
        assert_same_maps(mine, theirs)
        assert_same_maps(mine, mmcvs)


@pytest.mark.parametrize(
    'config, towers',
    [
        ('retinanet/retinanet_effb0_fpn-condconv-e8_8xb4-crop896-1x_coco.py', 5 * 2 * 4),
        pytest.param(
            *('rtmdet/rtmdet_tiny-condconv-e8_8xb32-300e_coco.py', 3 * 2 * 2),
            marks=pytest.mark.long,
        ),
    ],
)
@torch.no_grad()
def test_norms_of_convolutions_that_levels_share_stay(config, towers, settle):
    images = torch.randn(2, 3, 160, 160).double()
    model = settle(build_detector(config).double(), images)
    folded = fold_batch_norm(model)
    assert len(norms(folded)) == towers
    assert all(name.startswith('bbox_head.') for name in norms(folded))
    for mine, theirs in zip(folded(images), model(images)):
        assert_same_maps(mine, theirs)


def routed(**kwargs):
    return ConvModule(
        8, 8, 3, conv_cfg=dict(type='CondConv2d', num_experts=4), norm_cfg=dict(type='BN'), **kwargs
    )


FOLDED = {
    'a depthwise layer': lambda: routed(groups=8),
    "'same' at stride 2": lambda: routed(padding='same', stride=2),
    'a bias': lambda: routed(bias=True),
    'reflected padding': lambda: routed(padding=1, padding_mode='reflect'),
    'a norm without weights': lambda: nn.Sequential(
        CondConv2d(8, 8, 1, num_experts=4), nn.BatchNorm2d(8, affine=False)
    ),
    'a norm of several processes': lambda: nn.Sequential(
        nn.Conv2d(8, 8, 3), nn.SyncBatchNorm(8), nn.Identity()
    ),
    'such a norm, reverted by mmengine': lambda: nn.Sequential(
        nn.Conv2d(8, 8, 3), revert_sync_batchnorm(nn.SyncBatchNorm(8))
    ),
    'norm after activation and convolution': lambda: routed(order=('act', 'conv', 'norm')),
    'double precision': lambda: routed().double(),
}


def shared():
    conv = nn.Conv2d(8, 8, 1)
    return nn.Sequential(conv, nn.BatchNorm2d(8), nn.ReLU(), conv, nn.BatchNorm2d(8))


LEFT = {
    'an activation between': lambda: nn.Sequential(
        nn.Conv2d(8, 8, 1), nn.ReLU(), nn.BatchNorm2d(8)
    ),
    'norm before convolution': lambda: routed(order=('norm', 'act', 'conv')),
    'activation before norm': lambda: routed(order=('conv', 'act', 'norm')),
    'a convolution used twice': shared,
    'no running statistics': lambda: nn.Sequential(
        nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8, track_running_stats=False)
    ),
    'a norm that also activates': lambda: nn.Sequential(nn.Conv2d(8, 8, 1), BatchNormAct2d(8)),
    'a kernel that is normalized': lambda: ConvModule(
        8, 8, 3, conv_cfg=dict(type='ConvWS'), norm_cfg=dict(type='BN')
    ),
    'a kernel of spectral norm': lambda: nn.Sequential(
        spectral_norm(nn.Conv2d(8, 8, 1)), nn.BatchNorm2d(8)
    ),
    'no convolution': lambda: nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8)),
}


def randomize(model):
    for norm in (module for module in model.modules() if isinstance(module, _BatchNorm)):
        for tensor in filter(lambda t: t is not None, (norm.weight, norm.bias, norm.running_mean)):
            tensor.data.normal_()
        if norm.running_var is not None:
            norm.running_var.uniform_(0.5, 2)
    return model.eval()


@pytest.mark.parametrize('build', FOLDED.values(), ids=FOLDED)
def test_these_fold(build):
    model = randomize(build())
    folded = fold_batch_norm(model)
    assert not norms(folded)
    x = torch.randn(3, 8, 6, 7, dtype=next(model.parameters()).dtype)
    torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('build', LEFT.values(), ids=LEFT)
def test_these_stay(build):
    model = randomize(build())
    folded = fold_batch_norm(model)
    assert norms(folded) == norms(model)
    x = torch.randn(3, 8, 6, 7)
    torch.testing.assert_close(folded(x), model(x))


def test_a_folded_model_may_be_folded_again():
    folded = fold_batch_norm(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval())
    again, x = fold_batch_norm(folded), torch.randn(1, 3, 4, 4)
    assert torch.equal(again(x), folded(x))


def test_a_model_that_trains_is_refused_by_name():
    model = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8))
    with pytest.raises(ValueError, match='Sequential is in training mode: call model.eval'):
        fold_batch_norm(model)
    model.eval()[1].train()
    with pytest.raises(ValueError, match='but 1 is in training mode'):
        fold_batch_norm(model)
