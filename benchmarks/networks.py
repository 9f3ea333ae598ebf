"""Whole networks: static, ours, and ours with timm's layers in the place of ours."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import timm
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from torch import Tensor, nn

from benchmarks.forms import replace_layers, timm_conv
from benchmarks.layers import Geometry, distinct, routed_geometries
from benchmarks.subject import NETWORK_PASSES, Subject, sgd_step
from condconv_det.analysis.interleave import Call
from condconv_det.analysis.routing import RoutingRecorder

from mmdet.structures import DetDataSample  # isort: skip  mmdet imports only after condconv_det

CONFIGS = Path(__file__).parents[1] / 'configs'
MOBILENET_V1 = dict(type='CondConvMobileNetV1')
EFFICIENTNET_B0 = dict(type='CondConvEfficientNet', arch='b0', drop_path_rate=0.0)
SSD300 = CONFIGS / 'ssd/ssd300_mobilenet-v1-condconv-e8_8xb128-20k_coco.py'
DETECTORS = {
    SSD300: 300,
    CONFIGS / 'ssd/ssdlite_mobilenet-v2-scratch-condconv-e8_8xb24-600e_coco.py': 320,
    CONFIGS / 'retinanet/retinanet_mobilenet-v2_fpn-condconv-e8_1x_coco.py': 320,
}
# Backbones whose routed layers are measured, at detection sizes.
ROUTED = (
    (MOBILENET_V1, 300),
    (dict(type='CondConvMobileNetV2'), 320),
    (dict(type='CondConvMnasNet'), 320),
    (EFFICIENTNET_B0, 512),
    (dict(type='CondConvResNet', depth=50), 320),
)


@torch.no_grad()
def settle(network: nn.Module) -> nn.Module:
    """Gives every norm its input's statistics, from images of about the size that is measured.

    Untrained, features fade to nothing or explode on their way; then SiLU makes numbers so small
    that a CPU is slow at them.
    """
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean of all batches, of which this is the first
    network.train()
    network(*images(320, 4))
    return network


def backbone(cfg: dict, num_experts: int | None = None) -> nn.Module:
    """A backbone with random weights; static without experts."""
    cond_cfg = num_experts and dict(num_experts=num_experts)
    return settle(MODELS.build(dict(cfg, cond_cfg=cond_cfg)))


def backbone_forms(cfg: dict, timm_models: tuple[str, ...] = ()) -> dict[str, nn.Module]:
    """The static backbone, ours, ours with timm's layers, and networks of timm's own."""
    ours = backbone(cfg, 8)
    models = {name: timm.create_model(name, num_classes=0, global_pool='') for name in timm_models}
    return dict(plain=backbone(cfg), ours=ours, timm=replace_layers(ours, timm_conv), **models)


def expert_forms(cfg: dict) -> dict[str, nn.Module]:
    """A backbone with few experts and with many."""
    return {f'{e} experts': backbone(cfg, e) for e in (4, 8, 16)}


def images(side: int, batch: int) -> tuple[Tensor]:
    return (torch.randn(batch, 3, side, side),)


def backbone_step(form: nn.Module, x: Tensor) -> Call:
    """A call that takes the mean of all maps for the loss, and a step of SGD."""

    def loss() -> Tensor:
        maps = form(x)
        return sum(y.mean() for y in (maps if isinstance(maps, tuple) else (maps,)))

    return sgd_step(form, loss)


def backbone_subjects(quick: bool) -> list[Subject]:
    """MobileNetV1 and EfficientNet-B0, also with other numbers of experts."""
    v1_side, b0_side = (64, 64) if quick else (300, 512)
    v1 = f'MobileNetV1 1.0 at {v1_side}'
    timm_models = ('tf_efficientnet_b0', 'tf_efficientnet_cc_b0_8e')
    common = dict(training_step=backbone_step, training_passes=NETWORK_PASSES)
    v1_images, b0_images = partial(images, v1_side), partial(images, b0_side)
    return [
        Subject('experts', v1, partial(expert_forms, MOBILENET_V1), v1_images, **common),
        Subject('backbones', v1, partial(backbone_forms, MOBILENET_V1), v1_images, **common),
        Subject(
            'backbones',
            f'EfficientNet-B0 at {b0_side}',
            partial(backbone_forms, EFFICIENTNET_B0, timm_models),
            b0_images,
            **common,
        ),
    ]


def detector(config: Path | Config) -> nn.Module:
    """A config's detector with random weights; no checkpoint is downloaded."""
    cfg = config if isinstance(config, Config) else Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.pop('init_cfg', None)
    return settle(MODELS.build(cfg.model))


def static_twin(config: Path) -> Path:
    """The file that differs by the switch alone."""
    return config.with_name(re.sub('-condconv-e[0-9]+(-head|-everywhere)?', '', config.name))


def detector_forms(config: Path) -> dict[str, nn.Module]:
    """The static twin, the detector, and the detector with timm's layers."""
    ours = detector(config)
    return dict(
        plain=detector(static_twin(config)), ours=ours, timm=replace_layers(ours, timm_conv)
    )


def annotated_images(side: int, batch: int) -> tuple[Tensor, list[DetDataSample]]:
    """Images [B, 3, side, side], with eight boxes each, of an eighth to half the side."""
    shape = (side, side)
    samples = []
    for _ in range(batch):
        corner, size = torch.rand(8, 2) * side / 2, torch.rand(8, 2) * side * 3 / 8 + side / 8
        sample = DetDataSample(
            metainfo=dict(
                img_shape=shape,
                ori_shape=shape,
                pad_shape=shape,
                batch_input_shape=shape,
                scale_factor=(1.0, 1.0),
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=torch.cat((corner, corner + size), dim=1), labels=torch.arange(8)
        )
        samples.append(sample)
    return *images(side, batch), samples


def raw_maps(form: nn.Module, x: Tensor, samples: list[DetDataSample]) -> object:
    """Backbone, neck and head; no box decoding, no NMS."""
    return form(x, samples, mode='tensor')


def detector_step(form: nn.Module, x: Tensor, samples: list[DetDataSample]) -> Call:
    """A call that computes the detector's own losses, and a step of SGD."""
    return sgd_step(form, lambda: form.parse_losses(form(x, samples, mode='loss'))[0])


def detector_subjects(quick: bool) -> list[Subject]:
    """SSD300, SSDLite and RetinaNet, and their static twins."""
    return [
        Subject(
            'detectors',
            f'{static_twin(config).name.split("_8xb")[0].split("_1x_")[0]} at {side}',
            partial(detector_forms, config),
            partial(annotated_images, side),
            detector_step,
            NETWORK_PASSES,
            raw_maps,
        )
        for config, side in ((config, 64 if quick else side) for config, side in DETECTORS.items())
    ]


def networks_geometries() -> list[Geometry]:
    """The distinct routed layers of all our backbones and of SSD300, whose neck is routed too."""
    found = [
        geometry
        for cfg, side in ROUTED
        for geometry in routed_geometries(backbone(cfg, 8), *images(side, 1))
    ]
    found += routed_geometries(detector(SSD300), *images(300, 1), mode='tensor')
    return distinct(found)


def two_routings(model: nn.Module) -> dict[str, np.ndarray]:
    """Routing weights of two images that are routed unlike, which two experts mix."""
    weights = {}
    for name, router in RoutingRecorder(model).routers.items():
        away = np.resize([0.2, -0.2], router.fc.out_features)
        weights[name] = np.stack([0.5 + away, 0.5 - away])[:, None]
    return weights
