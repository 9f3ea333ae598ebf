import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData

from condconv_det.compat.checkpoints import CheckpointError
from condconv_det.deploy.detector import Detector, last_checkpoint


@pytest.fixture(scope='module')
def detector(trained):
    return Detector(*trained['routed'], device='cpu')


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (90, 120, 3), dtype=np.uint8)


@pytest.mark.parametrize('kind', ['routed', 'static'])
def test_finds_what_mmdet_finds(trained, image, tmp_path, kind):
    cv2.imwrite(str(tmp_path / 'image.png'), image)
    config, checkpoint = map(str, trained[kind])
    model = init_detector(config, checkpoint, device='cpu')
    expected = inference_detector(model, str(tmp_path / 'image.png')).pred_instances

    detector = Detector(config, checkpoint, device='cpu')
    sample = detector.detect(image)
    assert len(expected) > 10
    for name in ('bboxes', 'labels', 'scores'):
        assert torch.equal(sample.pred_instances[name], expected[name])
    assert detector.is_routed == (kind == 'routed')

    objects = detector.objects(sample, 0.7)
    above = expected[expected.scores > 0.7]
    assert 0 < len(above) < len(expected)
    assert [found['label'] for found in objects] == [
        detector.classes[label] for label in above.labels
    ]
    assert np.allclose([found['score'] for found in objects], above.scores, atol=1e-4)
    assert np.allclose([found['box'] for found in objects], above.bboxes, atol=1e-2)


def test_a_box_that_scores_the_threshold_itself_is_neither_listed_nor_drawn(detector):
    boxes = torch.tensor([[10.0, 10, 30, 30], [60, 50, 90, 80]])
    found = InstanceData(
        bboxes=boxes, labels=torch.tensor([0, 1]), scores=torch.tensor([0.5, 0.75])
    )
    sample = DetDataSample(pred_instances=found)
    assert [each['score'] for each in detector.objects(sample, 0.5)] == [0.75]
    assert detector.objects(sample, 0.75) == []

    plain = np.full((90, 120, 3), 90, np.uint8)
    assert (detector.draw(plain, sample, 0.5)[:40, :40] == 90).all()
    assert (detector.draw(plain, sample, 0.5) != 90).any()
    assert (detector.draw(plain, sample, 0.75) == 90).all()


@pytest.mark.filterwarnings('error:.*out of bounds')
def test_draws_on_a_copy_and_only_what_scores_enough(detector, image):
    sample = detector.detect(image)
    plain = np.full_like(image, 90)  # before matplotlib 3.11 edges within an image are smoothed
    assert (detector.draw(plain, sample, 1.0) == 90).all()
    assert (detector.draw(plain, sample, 0.7) != 90).any()
    assert (plain == 90).all()


@pytest.mark.parametrize(
    'config, checkpoint, says',
    [
        ('routed', 'static', 'does not fit SingleStageDetector of the config: it lacks .*router'),
        (
            'static',
            'routed',
            'does not fit SingleStageDetector of the config: the network has no .*router',
        ),
    ],
)
def test_a_checkpoint_of_another_config_is_refused(trained, config, checkpoint, says):
    with pytest.raises(CheckpointError, match=says):
        Detector(trained[config][0], trained[checkpoint][1])


def test_a_checkpoint_with_other_classes_or_none_is_refused(trained, tmp_path):
    config, checkpoint = trained['static']
    other = tmp_path / 'other.py'
    other.write_text(config.read_text().replace('num_classes=5', 'num_classes=3'))
    with pytest.raises(CheckpointError, match='shapes differ in bbox_head.cls_convs.0'):
        Detector(other, checkpoint)
    content = torch.load(checkpoint)
    for meta in ({}, dict(dataset_meta={}), dict(dataset_meta=dict(classes=()))):
        torch.save(dict(content, meta=meta), tmp_path / 'nameless.pth')
        with pytest.raises(CheckpointError, match='nameless.pth does not name its classes'):
            Detector(config, tmp_path / 'nameless.pth')


@pytest.mark.parametrize(
    'wrapped',
    ["dict(type='ConcatDataset', datasets=[{0}, {0}])", "dict(type='RepeatDataset', dataset={0})"],
)
def test_a_test_set_may_be_wrapped(trained, image, tmp_path, wrapped):
    config, checkpoint = trained['static']
    wrapped = wrapped.format('test_dataloader["dataset"]')
    lines = f'test_dataloader = dict(test_dataloader, dataset={wrapped})'
    (tmp_path / 'wrapped.py').write_text(f'{config.read_text()}\n{lines}\n')
    found = Detector(tmp_path / 'wrapped.py', checkpoint, device='cpu').detect(image)
    expected = Detector(config, checkpoint, device='cpu').detect(image)
    assert torch.equal(found.pred_instances.scores, expected.pred_instances.scores)


def test_a_data_preprocessor_may_stand_beside_the_network(trained, image, tmp_path):
    config, checkpoint = trained['static']
    cfg = Config.fromfile(config)
    cfg.data_preprocessor = cfg.model.pop('data_preprocessor')
    cfg.dump(tmp_path / 'beside.py')
    found = Detector(tmp_path / 'beside.py', checkpoint, device='cpu').detect(image)
    expected = Detector(config, checkpoint, device='cpu').detect(image)
    assert torch.equal(found.pred_instances.scores, expected.pred_instances.scores)


def test_transforms_may_be_named_with_their_modules(trained, image, tmp_path):
    config, checkpoint = trained['static']
    (tmp_path / 'dumped.py').write_text(  # as mmengine writes a config that names them by type
        config.read_text().replace("'LoadImageFromFile'", "'mmcv.transforms.LoadImageFromFile'")
    )
    found = Detector(tmp_path / 'dumped.py', checkpoint, device='cpu').detect(image)
    expected = Detector(config, checkpoint, device='cpu').detect(image)
    assert torch.equal(found.pred_instances.scores, expected.pred_instances.scores)


def test_a_detector_of_grey_images_is_refused(trained, tmp_path):
    config, checkpoint = trained['static']
    text = config.read_text().replace(
        "type='LoadImageFromFile'", "type='LoadImageFromFile', color_type='grayscale'"
    )
    (tmp_path / 'grey.py').write_text(text)
    with pytest.raises(
        ValueError, match="grey.py: images are read in three channels .*'grayscale'"
    ):
        Detector(tmp_path / 'grey.py', checkpoint)


@pytest.fixture
def answering(monkeypatch):
    """A detector whose network answers with a sample."""

    def build(sample):
        monkeypatch.setattr(DetInferencer, '__call__', lambda *_, **__: dict(predictions=[sample]))
        detector = Detector.__new__(Detector)
        detector.model = torch.nn.Identity()
        return detector

    return build


def test_objects_that_have_masks_alone_get_the_boxes_around_these(image, answering):
    masks = torch.zeros(1, *image.shape[:2], dtype=torch.bool)
    masks[:, 10:30, 5:50] = True
    found = InstanceData(bboxes=torch.zeros(1, 4), masks=masks)  # as of SOLO
    sample = answering(DetDataSample(pred_instances=found)).detect(image)
    assert sample.pred_instances.bboxes.tolist() == [[5, 10, 50, 30]]


def test_a_network_that_finds_no_objects_is_named(image, answering):
    panoptic = answering(DetDataSample(pred_panoptic_seg=PixelData()))
    with pytest.raises(ValueError, match='Identity finds no objects .* pred_panoptic_seg'):
        panoptic.detect(image)


def test_missing_files_are_named(trained, tmp_path):
    with pytest.raises(FileNotFoundError, match='checkpoint .*none.pth does not exist'):
        Detector(trained['static'][0], tmp_path / 'none.pth')
    with pytest.raises(FileNotFoundError, match='config .*none.py does not exist'):
        Detector(tmp_path / 'none.py', trained['static'][1])


def test_a_config_without_a_detector_is_refused(trained, tmp_path):
    configs = Path(__file__).parents[2] / 'configs'
    with pytest.raises(ValueError, match='shapes.py has no model'):
        Detector(configs / '_base_/datasets/shapes.py', trained['static'][1])
    classifier = configs / 'shapes/mobilenet-v1-0.5_1xb32-10e_shapes-crops.py'
    with pytest.raises(
        ValueError, match='crops.py is not of a detector: .* got mmpretrain and one'
    ):
        Detector(classifier, trained['static'][1])
    config, checkpoint = trained['static']
    (tmp_path / 'untested.py').write_text(f'{config.read_text()}\ntest_dataloader = None\n')
    with pytest.raises(ValueError, match='untested.py is not of a detector: .* got mmdet and none'):
        Detector(tmp_path / 'untested.py', checkpoint)


@pytest.mark.parametrize('name', ['CondConvSSDHead', 'Resize'])
def test_an_unknown_type_in_network_or_pipeline_names_the_config(trained, tmp_path, name):
    config, checkpoint = trained['static']
    other = tmp_path / 'other.py'
    other.write_text(config.read_text().replace(f"type='{name}'", "type='Unknown'"))
    with pytest.raises(ValueError, match=f'config {other}: KeyError: .Unknown is not in'):
        Detector(other, checkpoint)


def test_a_device_that_is_not_there_is_refused(trained):
    with pytest.raises(ValueError, match="device 'gpu' cannot be used"):
        Detector(*trained['static'], device='gpu')


def test_a_training_is_found_after_its_folder_moved(trained, tmp_path):
    config, checkpoint = trained['routed']
    moved = shutil.copytree(config.parent, tmp_path / 'moved')
    assert last_checkpoint(moved) == (moved / config.name, moved / checkpoint.name)
    with pytest.raises(FileNotFoundError, match='holds no trained detector: .*`make demo`'):
        last_checkpoint(tmp_path)
