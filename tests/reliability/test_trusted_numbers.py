"""Numbers that do not depend on how a network is run: in which batch, mode, layout or precision."""

import contextlib
import copy
import io
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmcv import _ext
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from condconv_det.data.shapes import CLASSES, make_shapes
from condconv_det.layers import Router

ROOT = Path(__file__).parents[2]
EXPERTS = dict(num_experts=4)
LAST_TWO = {  # of each backbone's maps, at strides 16 and 32
    'CondConvMobileNetV2': (4, 7),
    'CondConvMnasNet': (4, 7),
    'CondConvResNet': (2, 3),
}


@pytest.fixture(scope='module')
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp('trusted')
    make_shapes(root, dict(train=1, val=1, test=12), size=128)
    return root


def build_detector(backbone_cfg, settle):
    """A RetinaNet with experts in backbone, neck and head; its scores spread from 0 to 1.

    In double precision, for otherwise a random network's rounding errors show in its scores.
    """
    if Path(_ext.__file__).suffix != '.py':
        pytest.skip("mmcv's own NMS takes no float64")
    init_default_scope('mmdet')
    torch.manual_seed(0)
    out_indices = LAST_TWO.get(backbone_cfg['type'])
    backbone_cfg = dict(backbone_cfg, **(dict(out_indices=out_indices) if out_indices else {}))
    images = torch.randn(4, 3, 128, 128)
    backbone = settle(MODELS.build(dict(backbone_cfg, cond_cfg=EXPERTS)), images)
    cfg = Config.fromfile(ROOT / 'configs/_base_/models/retinanet_effb0_small.py').model
    cfg.backbone = dict(backbone_cfg, cond_cfg=EXPERTS)
    cfg.neck.update(
        in_channels=[level.shape[1] for level in backbone(images)],
        out_channels=16,
        conv_cfg=dict(type='CondConv2d', **EXPERTS),
    )
    cfg.bbox_head.update(
        num_classes=len(CLASSES), in_channels=16, feat_channels=16, cond_cfg=EXPERTS
    )
    cfg.bbox_head.anchor_generator.strides = [16, 32, 64]
    cfg.bbox_head.norm_cfg = cfg.neck.norm_cfg = dict(type='GN', num_groups=4)
    cfg.bbox_head.init_cfg = None
    model = MODELS.build(cfg).eval()
    model.backbone = backbone
    nn.init.normal_(model.bbox_head.retina_cls.weight, std=0.3)
    nn.init.zeros_(model.bbox_head.retina_cls.bias)
    return model.double()


def load_images(shapes, pipeline=()):
    cfg = Config.fromfile(ROOT / 'configs/_base_/datasets/shapes.py').test_dataloader.dataset
    load, _, _, pack = cfg.pipeline
    keep = dict(type='Resize', scale_factor=1.0, keep_ratio=True)
    cfg.update(data_root=f'{shapes}/', pipeline=[load, keep, *pipeline, pack])
    return DATASETS.build(cfg)


def detect(model, images, batch_size=1, shuffle=False):
    """Each image's detections, by its number."""
    loader = DataLoader(images, batch_size, shuffle, collate_fn=pseudo_collate)
    samples = [sample for batch in loader for sample in model.test_step(batch)]
    return {sample.img_id: sample for sample in samples}


def as_ground_truth(detections, of, to):
    """An annotation file in which the best detections, somewhat moved, are the true boxes."""
    content, rng = json.loads(of.read_text()), np.random.default_rng(0)
    content['annotations'] = []
    for image, sample in detections.items():
        best = sample.pred_instances[:20]
        for (x1, y1, x2, y2), label in zip(best.bboxes.tolist(), best.labels.tolist()):
            dx, dy = rng.uniform(-0.2, 0.2, 2) * (x2 - x1, y2 - y1)
            content['annotations'].append(
                dict(
                    id=len(content['annotations']) + 1,
                    image_id=image,
                    category_id=content['categories'][label]['id'],
                    bbox=[x1 + dx, y1 + dy, x2 - x1, y2 - y1],
                    area=(x2 - x1) * (y2 - y1),
                    iscrowd=0,
                )
            )
    to.write_text(json.dumps(content))
    return str(to)


def mean_average_precision(detections, ann_file):
    metric = CocoMetric(ann_file=ann_file, metric='bbox')
    metric.dataset_meta = dict(classes=CLASSES)
    with contextlib.redirect_stdout(io.StringIO()):
        metric.process({}, [sample.to_dict() for sample in detections.values()])
        return metric.evaluate(len(detections))


def assert_same_detections(found, expected):
    assert found.keys() == expected.keys()
    for image, sample in expected.items():
        scores = sample.pred_instances.scores
        torch.testing.assert_close(
            found[image].pred_instances.scores, scores, rtol=0, atol=1e-9, msg=str(image)
        )


def test_batches_of_any_size_and_order_give_the_same_map(backbone_cfg, settle, shapes, tmp_path):
    detector, images = build_detector(backbone_cfg, settle), load_images(shapes)
    alone = detect(detector, images)
    true_boxes = as_ground_truth(alone, shapes / 'annotations/test.json', tmp_path / 'true.json')
    expected = mean_average_precision(alone, true_boxes)
    assert 0.1 < expected['coco/bbox_mAP'] < 0.9
    for batch_size, shuffle in ((8, False), (8, True)):
        found = detect(detector, images, batch_size, shuffle)
        assert_same_detections(found, alone)
        assert mean_average_precision(found, true_boxes) == expected


@pytest.fixture
def sizes(shapes, tmp_path):
    """The shapes, each of another size."""
    shutil.copytree(shapes, tmp_path / 'sizes')
    content = json.loads((shapes / 'annotations/test.json').read_text())
    for number, image in enumerate(content['images']):
        path = str(tmp_path / 'sizes/test' / image['file_name'])
        image.update(width=64 + 4 * number, height=128 - 3 * number)
        cv2.imwrite(path, cv2.resize(cv2.imread(path), (image['width'], image['height'])))
    (tmp_path / 'sizes/annotations/test.json').write_text(json.dumps(content))
    return tmp_path / 'sizes'


@pytest.fixture
def detector(settle):
    backbone_cfg = dict(type='CondConvMobileNetV1', widen_factor=0.25, out_indices=(3, 4))
    return build_detector(backbone_cfg, settle)


def test_images_padded_to_one_size_are_detected_alike_in_any_batch(detector, sizes):
    images = load_images(sizes, [dict(type='Pad', size=(128, 128))])
    assert_same_detections(detect(detector, images, 8, shuffle=True), detect(detector, images))


def test_routers_see_the_padding_that_a_larger_neighbour_brings(detector, sizes):
    """The limit that docs/reliability.md states; the test before shows the way round it."""
    images, seen = load_images(sizes), []
    last = [module for module in detector.backbone.modules() if isinstance(module, Router)][-1]
    last.register_forward_hook(lambda *args: seen.append(args[-1]))
    detect(detector, images)
    detect(detector, images, len(images))
    *alone, together = seen
    assert not torch.allclose(torch.cat(alone), together, atol=1e-4)


class Precision:
    """A network's maps in float32, and how far others are from those in float64."""

    def __init__(self, model, x):
        self.model, self.x = model, x
        self.float32 = model(x)
        self.exact = copy.deepcopy(model).double()(x.double())
        self.of_float32 = self.errors(self.float32)

    def errors(self, maps):
        """Each map's root mean square error, in parts of its root mean square."""
        return [((a - b).norm() / b.norm()).item() for a, b in zip(maps, self.exact, strict=True)]

    def assert_within(self, factor, maps):
        for found, bound in zip(self.errors(maps), self.of_float32, strict=True):
            assert found <= factor * bound


@pytest.fixture
def precision(backbone_cfg, settle):
    """Of each backbone in turn."""
    x = torch.randn(4, 3, 96, 96)
    model = settle(MODELS.build(dict(backbone_cfg, cond_cfg=EXPERTS)), x)
    with torch.no_grad():
        yield Precision(model, x)


def test_but_for_norms_and_stochastic_depth_training_mode_changes_nothing(precision):
    precision.model.train()
    for module in precision.model.modules():
        if isinstance(module, _BatchNorm) or 'Drop' in type(module).__name__:
            module.eval()
    for mine, theirs in zip(precision.model(precision.x), precision.float32, strict=True):
        assert torch.equal(mine, theirs)


def test_channels_last_is_as_exact(precision):
    precision.model.to(memory_format=torch.channels_last)
    for x in (precision.x, precision.x.contiguous(memory_format=torch.channels_last)):
        precision.assert_within(2, precision.model(x))


def test_bfloat16_loses_what_its_shorter_fraction_says(precision):
    with torch.autocast('cpu', torch.bfloat16):
        found = precision.model(precision.x)
    assert found[-1].dtype == torch.bfloat16
    precision.assert_within(2 * 2**16, found)  # 16 bits fewer


@pytest.mark.long
@pytest.mark.skipif(
    not hasattr(torch.compiler, 'is_compiling'), reason='torch 2.1 compiles no such layer'
)
@pytest.mark.skipif(shutil.which('g++') is None, reason='needs a C++ compiler')
def test_compiled_networks_are_as_exact(precision):
    torch._dynamo.reset()
    precision.assert_within(2, torch.compile(precision.model)(precision.x))
