"""mmdet's own detectors with our classes in the place of mmdet's: the same training."""

from typing import NamedTuple

import pytest
import torch
from mmdet_detectors import (
    AS_THEY_ARE,
    FEW_REGIONS,
    NO_DOWNLOAD,
    mmdet_config,
    two_images,
)
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS, init_default_scope
from torch import Tensor, nn


class Place(NamedTuple):
    """Which parts are ours, and what else is overridden."""

    ours: dict[str, str]
    options: dict
    small: dict | None = None  # further options that shrink the detector; None if nothing does
    side: int = 128  # of the images, pixels
    small_side: int = 64
    dtype: torch.dtype = torch.float64  # norms of two small images magnify rounding errors


TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
RESNET, SSD_HEAD = {'backbone': 'CondConvResNet'}, {'bbox_head': 'CondConvSSDHead'}
# The first stages are frozen, and norms in eval mode, as the configs have it.
RESIDUAL = {**NO_DOWNLOAD, 'model.backbone.zero_init_residual': False}
SMALL_FPN = {
    'model.neck.out_channels': 32,
    'model.bbox_head.in_channels': 32,
    'model.bbox_head.feat_channels': 32,
}
SMALL_RESNET = {'model.backbone.base_channels': 8, 'model.neck.in_channels': [32, 64, 128, 256]}
DETECTORS = {
    'ssd/ssd300_coco': Place(SSD_HEAD, NO_DOWNLOAD, side=300, dtype=torch.float32),
    'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco': Place(
        {'backbone': 'CondConvMobileNetV2', **SSD_HEAD}, {}, small={}, side=320, small_side=96
    ),
    'retinanet/retinanet_r50_fpn_1x_coco': Place(
        {**RESNET, 'bbox_head': 'CondConvRetinaHead'}, RESIDUAL, {**SMALL_RESNET, **SMALL_FPN}
    ),
    'efficientnet/retinanet_effb3_fpn_8xb4-crop896-1x_coco': Place(
        {'backbone': 'CondConvEfficientNet', 'bbox_head': 'CondConvRetinaSepBNHead'},
        {**NO_DOWNLOAD, **AS_THEY_ARE},
        {'model.backbone.arch': 'b0', 'model.neck.in_channels': [40, 112, 320], **SMALL_FPN},
    ),
    'faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco': Place(
        RESNET, {**RESIDUAL, **FEW_REGIONS, 'model.roi_head.shared_head.init_cfg': None}
    ),
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco': Place(
        RESNET,
        {**RESIDUAL, **FEW_REGIONS},
        {
            **SMALL_RESNET,
            'model.neck.out_channels': 32,
            'model.rpn_head.in_channels': 32,
            'model.rpn_head.feat_channels': 32,
            'model.roi_head.bbox_roi_extractor.out_channels': 32,
            'model.roi_head.bbox_head.in_channels': 32,
            'model.roi_head.bbox_head.fc_out_channels': 32,
        },
    ),
}
whole_or_small = pytest.mark.parametrize(
    'name, small',
    [
        *(
            pytest.param(name, True, id=f'{name}, small')
            for name, place in DETECTORS.items()
            if place.small is not None
        ),
        *(pytest.param(name, False, id=name, marks=pytest.mark.long) for name in DETECTORS),
    ],
)


def train(model: nn.Module, images: dict) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Losses, and each parameter's gradient, of one training pass."""
    torch.manual_seed(1)  # of stochastic depth and of the regions that are sampled
    model.train()
    inputs = model.data_preprocessor(images, True)
    inputs['inputs'] = inputs['inputs'].to(next(model.parameters()))
    loss, losses = model.parse_losses(model(**inputs, mode='loss'))
    loss.backward()
    parameters = model.named_parameters()
    return losses, {name: value.grad for name, value in parameters if value.grad is not None}


def assert_near(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> None:
    """To a part of each tensor's largest value, and to rounding errors of the largest tensor's."""
    assert found.keys() == expected.keys()
    largest = max(value.abs().max().item() for value in expected.values())
    for name, value in expected.items():
        scale = value.abs().max().item() + 1e-4 * largest
        torch.testing.assert_close(
            found[name],
            value,
            rtol=0,
            atol=tolerance * scale,
            msg=lambda text, name=name: f'{name}: {text}',
        )


@whole_or_small
def test_mmdets_weights_train_as_in_mmdets_classes(name, small, settle):
    place = DETECTORS[name]
    side = place.small_side if small else place.side
    options = {**place.options, **(place.small if small else {})}
    init_default_scope('mmdet')
    theirs = revert_sync_batchnorm(MODELS.build(mmdet_config(name, options).model))
    theirs.init_weights()
    settle(theirs.backbone, torch.randn(2, 3, side, side))
    replaced = {f'model.{part}.type': kind for part, kind in place.ours.items()}
    mine = revert_sync_batchnorm(MODELS.build(mmdet_config(name, {**options, **replaced}).model))
    mine.load_state_dict(theirs.state_dict())
    theirs.to(place.dtype), mine.to(place.dtype)
    assert all(type(getattr(mine, part)).__name__ == kind for part, kind in place.ours.items())

    images, tolerance = two_images(side), TOLERANCE[place.dtype]
    losses, gradients = train(mine, images)
    expected_losses, expected_gradients = train(theirs, images)
    assert_near(losses, expected_losses, tolerance)
    assert_near(gradients, expected_gradients, tolerance)
    assert all(value > 0 for key, value in losses.items() if 'loss' in key)
    trained = {name for name, value in theirs.named_parameters() if value.requires_grad}
    assert gradients.keys() == trained
    assert_near(dict(mine.named_buffers()), dict(theirs.named_buffers()), tolerance)
