"""mmdet's own detectors, switched to CondConv by what --cfg-options can say."""

import math
from typing import NamedTuple

import pytest
import torch
from mmdet.registry import MODELS
from mmdet_detectors import (
    AS_THEY_ARE,
    FEW_REGIONS,
    FROM_SCRATCH,
    NO_DOWNLOAD,
    mmdet_config,
    two_images,
)
from mmengine.model import MMDistributedDataParallel, initialize, revert_sync_batchnorm
from mmengine.optim import OptimWrapper
from mmengine.registry import init_default_scope
from torch import distributed, nn

from condconv_det import CondConv2d

BACKBONE, NECK, HEAD = 'model.backbone', 'model.neck', 'model.bbox_head'
ROI_BBOX_HEAD, ROI_MASK_HEAD = 'model.roi_head.bbox_head', 'model.roi_head.mask_head'

# For speed alone, and what mmdet's own r18 configs say.
R18_CHANNELS = [64, 128, 256, 512]
R18 = {**FROM_SCRATCH, 'model.backbone.depth': 18, 'model.neck.in_channels': R18_CHANNELS}
R18_C3 = {**R18, 'model.neck.in_channels': R18_CHANNELS[1:]}
# Transformers hold no convolution, so one layer shows as much as six.
SHALLOW = {'model.encoder.num_layers': 1, 'model.decoder.num_layers': 1}
# YOLOX takes raw pixels, which saturate the router of its first layer.
NORMALISED = {
    'model.data_preprocessor.mean': [123.675, 116.28, 103.53],
    'model.data_preprocessor.std': [58.395, 57.12, 57.375],
}
# An untrained detector is sure of nothing.
KEEP_ALL = {
    'model.test_cfg.score_thr': 0.0,
    'model.test_cfg.conf_thr': 0.0,
    'model.test_cfg.rcnn.score_thr': 0.0,
}


class Switch(NamedTuple):
    """The places of a config that get the `conv_cfg`, and what else is overridden."""

    places: tuple[str, ...]
    options: dict
    side: int = 128  # of the images, pixels


DETECTORS = {
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco': Switch(
        (BACKBONE, NECK), {**FROM_SCRATCH, **FEW_REGIONS}
    ),
    'mask_rcnn/mask-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco': Switch(
        (BACKBONE, NECK, ROI_MASK_HEAD), {**FROM_SCRATCH, **AS_THEY_ARE, **FEW_REGIONS}
    ),
    'double_heads/dh-faster-rcnn_r50_fpn_1x_coco': Switch(
        (BACKBONE, NECK, ROI_BBOX_HEAD), {**R18, **FEW_REGIONS}
    ),
    'retinanet/retinanet_r18_fpn_1x_coco': Switch((BACKBONE, NECK, HEAD), FROM_SCRATCH),
    # Two images survive stochastic depth only by chance.
    'efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco': Switch(
        (BACKBONE, NECK, HEAD),
        {**NO_DOWNLOAD, **AS_THEY_ARE, 'model.backbone.drop_path_rate': 0.0},
    ),
    'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco': Switch(
        (BACKBONE, NECK, HEAD), {'model.bbox_head.type': 'CondConvSSDHead'}, side=320
    ),
    'atss/atss_r50_fpn_1x_coco': Switch((BACKBONE, NECK, HEAD), R18),
    'dyhead/atss_r50_fpn_dyhead_1x_coco': Switch(
        (BACKBONE, f'{NECK}.0'),
        {**FROM_SCRATCH, 'model.backbone.depth': 18, 'model.neck.0.in_channels': R18_CHANNELS},
    ),
    'gfl/gfl_r50_fpn_1x_coco': Switch((BACKBONE, NECK, HEAD), R18),
    'fcos/fcos_r50-caffe_fpn_gn-head_1x_coco': Switch((BACKBONE, NECK, HEAD), FROM_SCRATCH),
    'vfnet/vfnet_r50_fpn_1x_coco': Switch((BACKBONE, NECK, HEAD), R18),
    'reppoints/reppoints-moment_r50_fpn-gn_head-gn_1x_coco': Switch((BACKBONE, NECK, HEAD), R18),
    'centernet/centernet_r18_8xb16-crop512-140e_coco': Switch((BACKBONE,), FROM_SCRATCH),
    # The config leaves the backbone's last layer unused, and asks for find_unused_parameters.
    'yolo/yolov3_mobilenetv2_8xb24-320-300e_coco': Switch(
        (BACKBONE, NECK, HEAD),
        {
            **NO_DOWNLOAD,
            'model.backbone.out_indices': (2, 4, 7),
            'model.neck.in_channels': [1280, 96, 32],
        },
    ),
    'yolox/yolox_tiny_8xb8-300e_coco': Switch(
        (BACKBONE, NECK, HEAD), {**AS_THEY_ARE, **NORMALISED}
    ),
    'rtmdet/rtmdet_tiny_8xb32-300e_coco': Switch((BACKBONE, NECK, HEAD), NO_DOWNLOAD),
    'detr/detr_r18_8xb2-500e_coco': Switch((BACKBONE, NECK), {**FROM_SCRATCH, **SHALLOW}),
    'deformable_detr/deformable-detr_r50_16xb2-50e_coco': Switch(
        (BACKBONE, NECK), {**R18_C3, **SHALLOW}
    ),
    # The 900 queries of the config are more than a tiny image has places.
    'dino/dino-4scale_r50_8xb2-12e_coco': Switch(
        (BACKBONE, NECK), {**R18_C3, **SHALLOW, 'model.num_queries': 100}
    ),
}

# An anchor-based, a depthwise and a two-stage detector; the others take minutes together.
QUICK = (
    'retinanet/retinanet_r18_fpn_1x_coco',
    'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco',
    'mask_rcnn/mask-rcnn_r18_fpn_8xb8-amp-lsj-200e_coco',
)
each_detector = pytest.mark.parametrize(
    'name',
    [pytest.param(name, marks=() if name in QUICK else pytest.mark.long) for name in DETECTORS],
)


@pytest.fixture(autouse=True)
def _mmdet_scope():
    init_default_scope('mmdet')


@pytest.fixture(scope='module')
def process_group():
    distributed.init_process_group('gloo', store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def build(name: str, switched: bool = True) -> nn.Module:
    """The detector of mmdet's config, with its own initialisation."""
    places, options, _ = DETECTORS[name]
    cfg = mmdet_config(name, {**KEEP_ALL, **options})
    if switched:
        for place in places:
            cfg.merge_from_dict(
                {f'{place}.conv_cfg.type': 'CondConv2d', f'{place}.conv_cfg.num_experts': 2}
            )
    model = MODELS.build(cfg.model)
    model.init_weights()
    return revert_sync_batchnorm(model)


def routed_layers(model: nn.Module) -> dict[str, CondConv2d]:
    return {name: layer for name, layer in model.named_modules() if isinstance(layer, CondConv2d)}


@each_detector
def test_a_switched_detector_trains_every_expert_and_router_and_predicts(name, process_group):
    places, _, side = DETECTORS[name]
    model = build(name).train()
    images = two_images(side, with_masks=ROI_MASK_HEAD in places)
    routed = routed_layers(model)
    for place in places:
        assert any(layer.startswith(place.removeprefix('model.')) for layer in routed), place

    gradients = {}
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(
                lambda parameter, key=key: gradients.update({key: parameter.grad.clone()})
            )
    optim_wrapper = OptimWrapper(torch.optim.SGD(model.parameters(), lr=1e-4))
    parallel = MMDistributedDataParallel(model)
    parallel.train_step(images, optim_wrapper)
    for layer, conv in routed.items():
        assert all(expert.any() for expert in gradients[f'{layer}.weight']), layer
        for key, _ in conv.named_parameters(prefix=layer):
            assert gradients[key].isfinite().all() and gradients[key].any(), key
    # raises if the first step left any parameter of the detector without a gradient
    parallel.train_step(images, optim_wrapper)

    model.eval()
    with torch.no_grad():
        predictions = [sample.pred_instances for sample in model.test_step(images)]
    for prediction in predictions:
        assert len(prediction) > 0
        assert prediction.bboxes.isfinite().all() and prediction.scores.isfinite().all()


def assert_like_the_plain_kernel(
    experts: torch.Tensor, plain: torch.Tensor, name: str = ''
) -> None:
    """Mean and standard deviation of each expert are the plain kernel's, to 5 standard errors."""
    std, mean, root = plain.std(), plain.mean(), math.sqrt(plain.numel())
    assert experts.shape[1:] == plain.shape
    for expert in experts:
        assert abs(expert.std() - std) <= 5 * std / root, name
        assert abs(expert.mean() - mean) <= 5 * math.sqrt(2) * std / root, name


@each_detector
def test_experts_of_a_detector_start_like_the_layer_they_replace(name):
    static = build(name, switched=False)
    for layer, conv in routed_layers(build(name)).items():
        assert_like_the_plain_kernel(conv.weight, static.get_submodule(layer).weight, layer)


# each as mmdet's models and configs have it
INITIALISERS = [
    dict(type='Constant', val=0.5),
    dict(type='Normal', std=0.01),
    dict(type='TruncNormal', std=0.03),
    dict(type='Uniform', a=-0.1, b=0.2),
    dict(type='Xavier'),
    dict(type='Xavier', distribution='uniform'),
    dict(type='Kaiming'),
    dict(type='Kaiming', mode='fan_in'),
    dict(
        type='Kaiming',
        a=math.sqrt(5),
        mode='fan_in',
        nonlinearity='leaky_relu',
        distribution='uniform',
    ),
    dict(type='Caffe2Xavier'),
]


@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.parametrize(
    'init_cfg', INITIALISERS, ids=lambda cfg: '-'.join(str(value) for value in cfg.values())
)
def test_an_initialiser_gives_each_expert_the_statistics_of_a_plain_kernel(init_cfg, groups):
    plain = nn.Sequential(nn.Conv2d(64, 96, 3, groups=groups))
    routed = nn.Sequential(CondConv2d(64, 96, 3, groups=groups, num_experts=4))
    router = routed[0].router.fc.weight.clone()
    for module in (plain, routed):
        initialize(module, dict(init_cfg, layer='Conv2d', bias=0.25))
    experts = routed[0].weight
    assert_like_the_plain_kernel(experts, plain[0].weight)
    assert torch.equal(experts[0], experts[1]) == (init_cfg['type'] == 'Constant')
    assert torch.equal(routed[0].bias, plain[0].bias)
    assert torch.equal(routed[0].router.fc.weight, router)
