import pytest
import torch
from mmcv.ops import nms
from mmdet.models import DetDataPreprocessor
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from condconv_det.deploy import ExportableDetector
from condconv_det.deploy.suppression import best_detections, suppress_at_once, suppress_by_image
from condconv_det.deploy.write import describe, prepare

SIZE = (64, 96)
KINDS = ['SSD', 'SSD, sigmoid', 'SSDLite', 'RetinaNet', 'RetinaNet, SepBN']


def assert_same_detections(found, expected):
    """Padded tensors of a batch, against mmdet's lists."""
    for boxes, scores, labels, other in zip(*found, expected):
        count = len(other[2])
        torch.testing.assert_close(scores[:count], other[1], rtol=1e-4, atol=1e-5)
        assert torch.equal(labels[:count], other[2])
        torch.testing.assert_close(boxes[:count], other[0], rtol=1e-4, atol=1e-3)
        assert (scores[count:] == 0).all() and (labels[count:] == -1).all()


@pytest.mark.parametrize('suppress', [suppress_by_image, suppress_at_once])
@pytest.mark.parametrize('kind', KINDS)
def test_detections_are_mmdets(kind, suppress, small_detector, images, mmdet_detections):
    model = small_detector(kind)
    expected = mmdet_detections(model, images)
    assert min(len(labels) for _, _, labels in expected) > 3
    detector = ExportableDetector(model, SIZE, with_nms=True)
    detector.suppress = suppress
    with torch.no_grad():
        found = detector(images.float())
    assert_same_detections(found, expected)


@pytest.mark.parametrize(
    'changes',
    [
        dict(nms=dict(type='nms', iou_threshold=0.3, class_agnostic=True)),
        dict(nms_pre=7),
        dict(max_per_img=3),
        dict(score_thr=0.99999),  # finds nothing
    ],
    ids=str,
)
def test_detections_are_mmdets_under_another_test_cfg(
    changes, small_detector, images, mmdet_detections
):
    model = small_detector('SSD, sigmoid')
    before = mmdet_detections(model, images)
    model.bbox_head.test_cfg.update(changes)
    expected = mmdet_detections(model, images)
    assert [len(labels) for _, _, labels in before] != [len(labels) for _, _, labels in expected]
    with torch.no_grad():
        found = ExportableDetector(model, SIZE, with_nms=True)(images.float())
    assert_same_detections(found, expected)


def test_boxes_without_width_or_height_are_left_out():
    boxes = torch.tensor([[[0.0, 0, 9, 9], [20, 0, 20, 9], [40, 0, 49, 0]]])
    test_cfg = dict(min_bbox_size=0, nms=dict(iou_threshold=0.5), max_per_img=3)
    _, _, labels = best_detections(boxes, torch.ones(1, 3, 1), [3], SIZE, test_cfg)
    assert labels.tolist() == [[0, -1, -1]]


def test_nothing_stays_in_training_mode(small_detector):
    detector = ExportableDetector(small_detector('SSD').train(), SIZE)
    assert not any(module.training for module in detector.modules())


@pytest.mark.parametrize('kind', ['SSD', 'RetinaNet'])
def test_without_nms_it_gives_every_anchors_box_and_scores(kind, small_detector, images):
    model = small_detector(kind)
    detector = ExportableDetector(model, SIZE)
    with torch.no_grad():
        boxes, scores = detector(images.float())
        inputs = model.data_preprocessor(dict(inputs=list(images), data_samples=None))['inputs']
        cls_scores, bbox_preds = model(inputs, mode='tensor')
    head = model.bbox_head
    priors = head.prior_generator.grid_priors(
        [level.shape[-2:] for level in cls_scores], device='cpu'
    )
    assert detector.level_sizes == [len(level) for level in priors]
    for index in range(len(images)):
        deltas = torch.cat([level[index].permute(1, 2, 0).reshape(-1, 4) for level in bbox_preds])
        expected = head.bbox_coder.decode(torch.cat(priors), deltas, max_shape=SIZE)
        torch.testing.assert_close(boxes[index], expected, rtol=1e-4, atol=1e-3)
        logits = torch.cat(
            [
                level[index].permute(1, 2, 0).reshape(-1, head.cls_out_channels)
                for level in cls_scores
            ]
        )
        expected = logits.sigmoid() if kind == 'RetinaNet' else logits.softmax(-1)[:, :-1]
        torch.testing.assert_close(scores[index], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    'options',
    [
        dict(mean=[10, 20, 30], std=[1, 2, 3], bgr_to_rgb=True),
        dict(mean=[10, 20, 30], std=[1, 2, 3]),
        dict(bgr_to_rgb=True),
        dict(mean=[10, 20, 30], std=[1, 2, 3], bgr_to_rgb=True, pad_value=4),
        dict(pad_value=114),
    ],
    ids=str,
)
def test_a_file_pads_with_what_mmdets_preprocessing_makes_its_padding(options, small_detector):
    model = small_detector()
    model.data_preprocessor = DetDataPreprocessor(**options)
    pixel = describe(ExportableDetector(model, SIZE))['pad_pixel']
    padding = torch.tensor(pixel)[:, None, None].expand(3, *SIZE)
    made = model.data_preprocessor(dict(inputs=[padding], data_samples=None))['inputs']
    assert (made == options.get('pad_value', 0)).all()


@pytest.mark.parametrize('batch', [1, None], ids=['one image', 'any batch'])
@pytest.mark.parametrize('kind', ['SSD', 'SSDLite', 'RetinaNet'])
def test_a_prepared_copy_computes_the_same_and_leaves_the_detector_as_it_was(
    kind, batch, small_detector, images
):
    detector = ExportableDetector(small_detector(kind), SIZE)
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    images = images[:batch].float()
    with torch.no_grad():
        expected = detector(images)
        prepared = prepare(detector, batch)
        found = prepared(images)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert not any(isinstance(layer, torch.nn.BatchNorm2d) for layer in prepared.modules())
    after = detector.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    with torch.no_grad():
        torch.testing.assert_close(detector(images), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    'base, says',
    [
        ('mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'FasterRCNN cannot be exported'),
        ('mmdet::atss/atss_r50_fpn_1x_coco.py', 'ATSS with ATSSHead cannot be exported'),
        ('mmdet::fsaf/fsaf_r50_fpn_1x_coco.py', 'boxes are coded by TBLRBBoxCoder'),
    ],
)
def test_says_why_a_detector_cannot_be_exported(base, says, tmp_path):
    config = tmp_path / 'config.py'
    config.write_text(f"_base_ = '{base}'\nmodel = dict(backbone=dict(init_cfg=None))")
    init_default_scope('mmdet')
    with torch.device('meta'):  # shapes suffice, and nothing is initialised
        model = MODELS.build(Config.fromfile(config).model)
    with pytest.raises(ValueError, match=says):
        ExportableDetector(model, (64, 64))


def test_says_why_its_nms_cannot_be_exported_while_its_boxes_can(small_detector):
    model = small_detector()
    model.bbox_head.test_cfg.nms = dict(type='soft_nms', iou_threshold=0.5)
    ExportableDetector(model, SIZE)
    with pytest.raises(ValueError, match="plain nms .* 'soft_nms'.*: export without it"):
        ExportableDetector(model, SIZE, with_nms=True)


def test_a_config_may_name_the_function_of_its_nms(small_detector):
    model = small_detector()
    model.bbox_head.test_cfg.nms = dict(type=nms, iou_threshold=0.5)
    ExportableDetector(model, SIZE, with_nms=True)


def test_a_detector_without_test_cfg_can_be_exported_without_nms(small_detector):
    model = small_detector()
    model.bbox_head.test_cfg = None
    ExportableDetector(model, SIZE)
    with pytest.raises(ValueError, match='plain nms .* is {}: export without it'):
        ExportableDetector(model, SIZE, with_nms=True)


def test_says_that_small_boxes_cannot_be_left_out_inside_the_file(small_detector):
    model = small_detector()
    model.bbox_head.test_cfg.min_bbox_size = 8
    ExportableDetector(model, SIZE)
    with pytest.raises(ValueError, match='of at most 0, .* is 8: export without it'):
        ExportableDetector(model, SIZE, with_nms=True)


def test_a_size_that_would_be_padded_is_named(small_detector):
    with pytest.raises(ValueError, match='multiples of 32 pixels, got a size of 64x100'):
        ExportableDetector(small_detector('RetinaNet'), (64, 100))
