"""Configs that are written for a data set."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from torchvision.ops import box_iou

from condconv_det import CondConv2d
from condconv_det.compat.checkpoints import CheckpointError
from condconv_det.data.prepare import Prepared
from condconv_det.study.twins import DETECTORS, PLACES, check_start, write_twins

CONFIGS = Path(__file__).parents[2] / 'configs'
SPLITS = ('train', 'val', 'test')
EXPERTS = dict(num_experts=8, init='one-kernel')


def prepared(folder, sides, num_images=77, classes=('cat', 'dog')):
    return Prepared(
        'voc',
        classes,
        folder / 'photos',
        {split: folder / 'annotations' / f'{split}.json' for split in SPLITS},
        dict(train=num_images, val=17, test=16),
        {split: Counter() for split in SPLITS},
        np.array(sides, float).reshape(-1, 2),
        kept_splits=(),
        alike=0,
        leaks=0,
        background=0,
        faults=[],
    )


def square(*pixels):
    return [[side / 300, side / 300] for side in pixels]


def read(path):
    return Config.fromfile(path)


@pytest.mark.parametrize('detector', DETECTORS)
@pytest.mark.parametrize('pixels', [(10, 30), (26, 283), (100, 100)], ids=str)
def test_anchors_of_every_detector_overlap_boxes_wherever_they_lie(
    tmp_path, shapes_alone, detector, pixels
):
    data = prepared(tmp_path, square(*np.linspace(*pixels, 21)))
    _, path = write_twins(data, tmp_path, detector, 'mine', 'mine')
    init_default_scope('mmdet')
    model = MODELS.build(read(path).model).eval()
    with torch.no_grad():
        features = model.extract_feat(torch.zeros(1, 3, 300, 300))
        scores, _ = model.bbox_head(features)
    sizes = [tuple(level.shape[-2:]) for level in scores]
    anchors = torch.cat(model.bbox_head.prior_generator.grid_priors(sizes, device='cpu'))
    for side in np.quantile(np.linspace(*pixels, 21), [0.05, 0.5, 0.95]).tolist():
        corners = (300 - side) * torch.rand(40, 2)
        boxes = torch.cat([corners, corners + side], 1)
        best = box_iou(boxes, anchors).max(1).values
        assert best.mean() > 0.6, (side, best.mean(), sizes)


def test_anchors_of_the_smallest_boxes_have_a_size(tmp_path):
    data = prepared(tmp_path, square(1, 1.4, 4))
    _, path = write_twins(data, tmp_path, 'ssd300', 'mine', 'mine')
    assert read(path).model.bbox_head.anchor_generator.scale_range[0] == 0.0035


@pytest.mark.parametrize('place', PLACES)
@pytest.mark.parametrize('detector', DETECTORS)
def test_twins_differ_by_the_switch_and_by_how_it_learns(tmp_path, detector, place):
    data = prepared(tmp_path, square(30, 200))
    static, condconv = map(read, write_twins(data, tmp_path, detector, 'mine', 'mine', None, place))
    for cfg in (static, condconv):
        cfg.pop('work_dir')
        for part in ('backbone', 'neck', 'bbox_head'):
            cfg.model[part].pop('cond_cfg', None)
            cfg.model[part].pop('conv_cfg', None)
    assert condconv.optim_wrapper.pop('constructor') == 'CondConvOptimWrapperConstructor'
    assert condconv.optim_wrapper.pop('paramwise_cfg') == dict(
        expert_lr_mult='matched', custom_keys=dict(router=dict(lr_mult=0.1))
    )
    assert static.to_dict() == condconv.to_dict()


@pytest.mark.parametrize('detector', DETECTORS)
def test_late_experts_are_the_papers_and_ssds_neck(tmp_path, detector):
    data = prepared(tmp_path, square(30, 200))
    _, path = write_twins(data, tmp_path, detector, 'mine', 'mine', experts='late')
    assert path.name.startswith(f'{DETECTORS[detector].name}-condconv-e8_1xb8')
    model = read(path).model
    assert model.backbone.cond_cfg == EXPERTS
    if detector != 'retinanet':
        assert model.neck.conv_cfg == dict(EXPERTS, type='CondConv2d')


@pytest.mark.parametrize('detector', DETECTORS)
def test_experts_in_the_head_leave_the_rest_static(tmp_path, shapes_alone, detector):
    data = prepared(tmp_path, square(30, 200))
    _, path = write_twins(data, tmp_path, detector, 'mine', 'mine')
    assert path.name.startswith(f'{DETECTORS[detector].name}-condconv-e8-head_1xb8')
    init_default_scope('mmdet')
    model = MODELS.build(read(path).model)
    for name, layer in model.named_modules():
        if isinstance(layer, torch.nn.Conv2d):
            assert isinstance(layer, CondConv2d) == name.startswith('bbox_head.'), name


@pytest.mark.parametrize('detector', DETECTORS)
def test_experts_everywhere_leave_only_the_stem_and_squeezes_static(
    tmp_path, shapes_alone, detector
):
    data = prepared(tmp_path, square(30, 200))
    _, path = write_twins(data, tmp_path, detector, 'mine', 'mine', experts='everywhere')
    assert path.name.startswith(f'{DETECTORS[detector].name}-condconv-e8-everywhere_1xb8')
    cfg = read(path)
    init_default_scope('mmdet')
    model = MODELS.build(cfg.model)
    layers = [(name, m) for name, m in model.named_modules() if isinstance(m, torch.nn.Conv2d)]
    static = [name for name, layer in layers if not isinstance(layer, CondConv2d)]
    assert [name for name in static if '.se.' not in name] == [static[0]]
    assert all(layer.num_experts == 8 for name, layer in layers if name not in static)
    groups = build_optim_wrapper(model, cfg.optim_wrapper).optimizer.param_groups
    rates = {id(weight): group['lr'] for group in groups for weight in group['params']}
    rate = cfg.optim_wrapper.optimizer.lr
    for name, layer in layers:
        if name not in static:
            assert rates[id(layer.weight)] == rate / 4, name  # 2/E


def test_the_config_names_the_data_set_and_sizes_the_training(tmp_path):
    data = prepared(tmp_path, square(30, 200))
    path, _ = write_twins(data, tmp_path, 'ssd300', 'mine', 'my photos')
    assert path.name == 'ssd300_mobilenet-v1-0.5_1xb8-100e_mine.py'
    text = path.read_text()
    assert text.startswith('# SSD300 on MobileNetV1 0.5 for my photos: 77 images to train on')
    lines = [line for line in text.splitlines() if str(tmp_path) not in line]
    assert len(lines) < 60 and max(map(len, lines)) <= 100
    cfg = read(path)
    for split in SPLITS:
        dataset = cfg[f'{split}_dataloader'].dataset
        assert dataset.ann_file == f'{tmp_path}/annotations/{split}.json'
        assert dataset.data_prefix.img == f'{tmp_path}/photos/'
        assert dataset.metainfo.classes == ('cat', 'dog')
        assert dataset.get('test_mode', False) == (split != 'train')
    assert [cfg[f'{split}_evaluator'].ann_file[-9:] for split in SPLITS[1:]] == [
        '/val.json',
        'test.json',
    ]
    assert cfg.train_dataloader.batch_size == 8 and cfg.model.bbox_head.num_classes == 2
    warm_up, cosine = cfg.param_scheduler
    assert (warm_up.end, warm_up.by_epoch) == (100, False)
    assert cosine.T_max == cosine.end == cfg.train_cfg.max_epochs == 100
    assert cfg.train_cfg.val_interval == cfg.default_hooks.checkpoint.interval == 10
    assert cfg.default_hooks.logger.interval == 10
    assert cfg.default_hooks.checkpoint.save_best == 'coco/bbox_mAP'
    assert {hook.type for hook in cfg.custom_hooks} >= {'ClassCheckHook', 'DatasetCheckHook'}


def test_each_twin_trains_into_a_folder_beside_it(tmp_path):
    for out in (tmp_path / 'one', tmp_path / 'other'):  # of one data set, split otherwise
        out.mkdir()
        for config in write_twins(prepared(tmp_path, square(60)), out, 'ssd300', 'mine', 'mine'):
            assert Config.fromfile(config).work_dir == str(out / config.stem)


@pytest.mark.parametrize(
    'arguments, says',
    [
        (dict(detector='yolo'), "detector must be one of ssd300, ssdlite, retinanet, got 'yolo'"),
        (dict(name='my photos'), "named by letters, digits, .* got 'my photos'"),
        (dict(name='../x'), "named by letters, digits, .* got '../x'"),
    ],
)
def test_unusable_arguments_are_one_error_and_nothing_is_written(tmp_path, arguments, says):
    given = dict(detector='ssd300', name='mine') | arguments
    with pytest.raises(ValueError, match=says):
        write_twins(prepared(tmp_path, square(60)), tmp_path, **given, source='mine')
    assert list(Path(tmp_path).iterdir()) == []


@pytest.mark.parametrize('detector', DETECTORS)
def test_what_drawn_shapes_teach_loads_into_the_backbone(tmp_path, shapes_alone, detector):
    drawn = read(CONFIGS / 'shapes' / DETECTORS[detector].drawn).model.backbone
    init_default_scope('mmdet')
    weights = MODELS.build(drawn).state_dict()
    path = tmp_path / 'epoch_5.pth'
    torch.save({'state_dict': {f'backbone.{key}': value for key, value in weights.items()}}, path)
    check_start(detector, path)
    del weights[next(iter(weights))]
    torch.save({'state_dict': {f'backbone.{key}': value for key, value in weights.items()}}, path)
    with pytest.raises(CheckpointError, match='lacks'):
        check_start(detector, path)
