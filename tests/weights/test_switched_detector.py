"""A trained static detector, switched to CondConv: what it scores at first, and how it moves on."""

import json
from pathlib import Path

import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner.checkpoint import load_checkpoint
from mmengine.structures import InstanceData
from torch import nn

from condconv_det.layers import CondConv2d, Router

CONFIGS = Path(__file__).parents[2] / 'configs' / 'ssd'
SAMPLE = dict(img_shape=(300, 300), ori_shape=(300, 300), pad_shape=(300, 300), scale_factor=(1, 1))


def build(name):
    cfg = Config.fromfile(CONFIGS / f'{name}_8xb128-20k_coco.py').model
    cfg.test_cfg.score_thr = 0.0  # untrained, nothing scores
    init_default_scope('mmdet')
    model = MODELS.build(cfg)
    model.init_weights()
    return model


@pytest.fixture
def static(settle):
    """A detector with weights under which one image is not scored as another."""
    model = settle(build('ssd300_mobilenet-v1-0.5'), torch.randn(2, 3, 300, 300))
    for branch in model.bbox_head.cls_convs:
        nn.init.normal_(branch[-1].weight, std=0.1)
    return model


@pytest.fixture
def switched(static, tmp_path):
    torch.save(dict(meta={}, state_dict=static.state_dict()), tmp_path / 'static.pth')
    model = build('ssd300_mobilenet-v1-0.5-condconv-e8')
    load_checkpoint(model, str(tmp_path / 'static.pth'))  # what `load_from` does
    return model


def samples(count):
    result = []
    for _ in range(count):
        sample = DetDataSample(metainfo=SAMPLE)
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor([[30.0, 40.0, 150.0, 180.0], [120.0, 90.0, 280.0, 260.0]]),
            labels=torch.tensor([3, 7]),
        )
        result.append(sample)
    return result


@torch.no_grad()
def test_it_detects_what_the_static_detector_did(static, switched):
    images = torch.randn(2, 3, 300, 300)
    switched.eval()
    for mine, its in zip(switched.predict(images, samples(2)), static.predict(images, samples(2))):
        mine, its = mine.pred_instances, its.pred_instances
        assert len(mine) == len(its) == 100 and its.scores.std() > 0.01
        assert len(its.labels.unique()) > 5
        torch.testing.assert_close(mine.scores, its.scores, rtol=0, atol=1e-4)
        torch.testing.assert_close(mine.bboxes, its.bboxes, rtol=0, atol=300 * 1e-4)
        assert torch.equal(mine.labels, its.labels)


@torch.no_grad()
def test_its_coco_map_is_the_static_detectors_to_the_last_digit(static, switched, tmp_path):
    images = torch.randn(4, 3, 300, 300)
    switched.eval()
    results = [model.predict(images, samples(4)) for model in (static, switched)]
    annotations = []
    for image, result in enumerate(results[0]):
        found = result.pred_instances[::7]  # some of what is found is true, and not quite there
        boxes = found.bboxes + 20 * torch.rand_like(found.bboxes)
        for (left, top, right, bottom), label in zip(boxes.tolist(), found.labels.tolist()):
            width, height = max(right - left, 1), max(bottom - top, 1)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image,
                    category_id=label + 1,
                    bbox=[left, top, width, height],
                    area=width * height,
                    iscrowd=0,
                )
            )
    coco = dict(
        images=[dict(id=image, width=300, height=300) for image in range(4)],
        annotations=annotations,
        categories=[dict(id=label + 1, name=str(label)) for label in range(80)],
    )
    (tmp_path / 'truth.json').write_text(json.dumps(coco))

    def evaluate(predictions):
        metric = CocoMetric(str(tmp_path / 'truth.json'))
        metric.dataset_meta = dict(classes=tuple(map(str, range(80))))
        for image, prediction in enumerate(predictions):
            prediction.set_metainfo(dict(img_id=image))
        metric.process({}, [prediction.to_dict() for prediction in predictions])
        return metric.evaluate(size=4)

    its, mine = map(evaluate, results)
    assert 0.05 < its['coco/bbox_mAP'] < 0.95
    assert mine == its


def test_ten_steps_part_the_experts_and_move_every_router(switched):
    layers = {
        name: layer for name, layer in switched.named_modules() if isinstance(layer, CondConv2d)
    }
    routers = {name: part for name, part in switched.named_modules() if isinstance(part, Router)}
    assert layers and len(routers) == len(layers)
    before = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    switched.train()
    optimizer = torch.optim.SGD(switched.parameters(), lr=0.01, momentum=0.9)
    for _ in range(10):
        losses = switched.loss(torch.randn(2, 3, 300, 300), samples(2))
        loss, _ = switched.parse_losses(losses)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.isfinite()
    for name, layer in layers.items():
        steps = layer.weight.detach() - before[name]
        # no two experts took the same step
        assert (steps.flatten(1)[:, None] != steps.flatten(1)).any(-1).sum() == 8 * 7, name
    assert all(router.fc.weight.any() and router.fc.bias.any() for router in routers.values())
