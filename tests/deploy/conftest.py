import condconv_det  # noqa: F401  mmdet imports only after it

# isort: split
import copy
import functools
import runpy
import sys
from pathlib import Path

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from condconv_det.deploy.write import MIN_TORCH

ROOT = Path(__file__).parents[2]
SIZE = (64, 96)
OLD_TORCH = tuple(map(int, torch.__version__.split('.')[:2])) < MIN_TORCH
# what cannot run there is no test there; that it is refused is tested in test_export_refused.py
collect_ignore = (
    [f'test_{of}.py' for of in ('export', 'lay_out', 'onnx_conv', 'onnx_detector', 'onnx_pool')]
    if OLD_TORCH
    else []
)


def _activate(cfg: Config, activation: str) -> None:
    cfg.model.backbone.act_cfg = cfg.model.neck.act_cfg = dict(type=activation)


def _small_ssd_cfg() -> Config:
    """The demo's SSD, cut short, on 96x64 pixels: routed layers, two levels, five classes."""
    cfg = Config.fromfile(
        ROOT / 'configs/shapes/ssd128_mobilenet-v1-0.5-condconv-e8_1xb8-5e_shapes.py'
    )
    cfg.model.backbone.update(
        widen_factor=0.25, out_indices=(1,), cond_cfg=dict(num_experts=3, start=3)
    )
    cfg.model.neck.update(
        in_channels=(32,),
        out_channels=(32, 32),
        level_strides=(2,),
        level_paddings=('same',),
    )
    cfg.model.neck.conv_cfg = dict(type='Conv2dAdaptivePadding')
    _activate(cfg, 'ReLU')  # ReLU6 takes longer to export than the layer before it
    cfg.model.bbox_head.in_channels = (32, 32)
    cfg.model.bbox_head.anchor_generator.strides = [4, 8]
    for split in ('val', 'test'):
        cfg[f'{split}_dataloader'].dataset.pipeline[1].scale = SIZE[::-1]
    return cfg


def _small_retina_cfg(head: str = 'CondConvRetinaHead') -> Config:
    """RetinaNet on the same backbone, two levels, batch norm, experts in its head."""
    cfg = _small_ssd_cfg()
    retina = Config.fromfile(ROOT / 'configs/_base_/models/retinanet_effb0_small.py').model
    retina.backbone = cfg.model.backbone
    retina.backbone.update(out_indices=(2, 3), cond_cfg=dict(num_experts=3, start=11))
    retina.neck.update(in_channels=[64, 128], out_channels=32, num_outs=2)
    retina.bbox_head.update(
        type=head,
        num_classes=5,
        in_channels=32,
        feat_channels=32,
        stacked_convs=1,
        cond_cfg=dict(num_experts=2),
    )
    retina.neck.norm_cfg = retina.bbox_head.norm_cfg = dict(type='BN')
    retina.bbox_head.anchor_generator.strides = [8, 16]
    if head == 'CondConvRetinaSepBNHead':
        retina.bbox_head.num_ins = 2
    cfg.model = retina
    return cfg


def _small_cfg(kind: str) -> Config:
    if kind == 'RetinaNet':
        return _small_retina_cfg()
    if kind == 'RetinaNet, SepBN':
        return _small_retina_cfg('CondConvRetinaSepBNHead')
    cfg = _small_ssd_cfg()
    if kind == 'SSD, sigmoid':
        cfg.model.bbox_head.loss_cls = dict(type='FocalLoss', use_sigmoid=True)
    elif kind == 'SSD, static':
        cfg.model.backbone.pop('cond_cfg')
    elif kind == 'SSD, routed neck':
        _activate(cfg, 'ReLU6')
        cfg.model.neck.conv_cfg = dict(type='CondConv2d', num_experts=3)
    elif kind == 'SSDLite':
        _activate(cfg, 'ReLU6')
        cfg.model.neck.update(use_depthwise=True, conv_cfg=dict(type='CondConv2d', num_experts=3))
        cfg.model.bbox_head.update(use_depthwise=True, norm_cfg=dict(type='BN'))
    return cfg


def _with_weights(cfg: Config, settle) -> torch.nn.Module:
    """A network that finds something: random weights under which features and scores spread."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    for parameter in model.bbox_head.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=1.5 / parameter[0].numel() ** 0.5)
    return settle(model, torch.randn(8, 3, *SIZE))


def _save_trained(model: torch.nn.Module, cfg: Config, folder: Path) -> tuple[Path, Path]:
    config, checkpoint = folder / 'config.py', folder / 'trained.pth'
    classes = ('circle', 'square', 'triangle', 'star', 'cross')
    meta = dict(dataset_meta=dict(classes=classes))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), checkpoint)
    cfg.dump(config)
    return config, checkpoint


@pytest.fixture(scope='session')
def small_cfg():
    return _small_cfg


@pytest.fixture(scope='session')
def small_detector(settle):
    """A detector of a kind, in eval mode, a new copy at each call: small_detector('SSD')."""
    build = functools.cache(lambda kind: _with_weights(_small_cfg(kind), settle))
    return lambda kind='SSD': copy.deepcopy(build(kind))


@pytest.fixture(scope='session', autouse=True)
def _timed_once():
    """The export tool times each call ten times; no test reads the times."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('condconv_det.deploy.check.TIMED_RUNS', 1)
        yield


@pytest.fixture(scope='session')
def save_trained():
    """Puts a detector into files, as training leaves it: save_trained(model, cfg, folder)."""
    return _save_trained


@pytest.fixture(scope='session')
def saved_ssd(small_detector, small_cfg, tmp_path_factory) -> tuple[Path, Path]:
    """Files that training leaves of the SSD, to be read alone: its config and its checkpoint."""
    folder = tmp_path_factory.mktemp('saved')
    return _save_trained(small_detector('SSD'), small_cfg('SSD'), folder)


@pytest.fixture(scope='session')
def one_image_file(saved_ssd, tmp_path_factory) -> Path:
    """What `tools/export.py --nms` makes of the saved SSD, to be read alone."""
    out = tmp_path_factory.mktemp('exported') / 'nms.onnx'
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, 'argv', ['export.py', *map(str, saved_ssd), '--nms', '--out', str(out)])
        runpy.run_path(str(ROOT / 'tools' / 'export.py'), run_name='__main__')
    return out


@pytest.fixture
def images():
    """Five images of noise on larger squares, as a pipeline loads them: uint8 [3, H, W]."""
    torch.manual_seed(1)
    coarse = torch.randint(0, 200, (5, 3, 8, 12)).float()
    coarse = torch.nn.functional.interpolate(coarse, SIZE)
    return (coarse + torch.randint(0, 56, (5, 3, *SIZE))).to(torch.uint8)


@pytest.fixture
def mmdet_detections():
    """What mmdet's own pre- and post-processing make of images: (boxes, scores, labels) each."""

    def detect(model, images):
        meta = dict(img_shape=SIZE, ori_shape=SIZE, scale_factor=(1.0, 1.0))
        samples = [DetDataSample(metainfo=meta) for _ in images]
        with torch.no_grad():
            found = model.test_step(dict(inputs=list(images), data_samples=samples))
        found = [sample.pred_instances for sample in found]
        return [(each.bboxes, each.scores, each.labels) for each in found]

    return detect
