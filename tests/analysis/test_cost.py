from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from mmcv.cnn import ConvModule
from mmcv.ops import DeformConv2dPack, ModulatedDeformConv2dPack
from mmdet.datasets.transforms import Resize
from mmdet.models import DetDataPreprocessor
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from condconv_det import CondConv2d
from condconv_det.analysis import cost, image_size, measure_config, measure_cost

CONFIGS = Path(__file__).parents[2] / 'configs'


@pytest.fixture(autouse=True)
def _without_fake_tensors(monkeypatch):
    """A process that has used them cannot be forked, as tests of several processes do."""
    monkeypatch.setattr(cost, 'FakeTensorMode', lambda **_: nullcontext())


def test_counts_a_routed_layer_by_hand():
    layer = CondConv2d(6, 10, 3, padding=1, num_experts=4)
    cost = measure_cost(layer, torch.zeros(1, 6, 5, 7))
    kernel = 10 * 6 * 3 * 3
    assert cost.expert_parameters == 4 * kernel
    assert cost.mixing == 4 * kernel
    assert cost.routing == 6 * 4
    assert cost.parameters == 4 * kernel + 10 + 6 * 4 + 4
    assert cost.multiply_adds == kernel * 5 * 7 + cost.mixing + cost.routing


def test_counts_shared_layers_each_time_they_run():
    layer = CondConv2d(4, 4, 1, num_experts=2)
    twice = nn.Sequential(layer, layer)
    assert measure_cost(twice, torch.zeros(1, 4, 3, 3)).mixing == 2 * 2 * 16


@pytest.mark.parametrize('layer, sampled', [(DeformConv2dPack, 2), (ModulatedDeformConv2dPack, 3)])
def test_a_deformable_convolution_counts_as_a_plain_one_and_that_of_its_offsets(layer, sampled):
    plain, offsets = 6 * 2 * 9 * 4 * 3, sampled * 9 * 4 * 9 * 4 * 3
    network = layer(4, 6, 3, stride=2, padding=1, groups=2)
    assert measure_cost(network, torch.zeros(1, 4, 8, 6)).multiply_adds == plain + offsets


def test_attention_counts_as_its_two_products():
    class Attention(nn.Module):
        def forward(self, x):
            x = x.flatten(2).transpose(1, 2)[:, None].contiguous()
            return nn.functional.scaled_dot_product_attention(x, x, x)

    assert measure_cost(Attention(), torch.zeros(1, 16, 5, 10)).multiply_adds == 2 * 16 * 50**2


def test_a_part_of_a_parameter_may_be_what_a_layer_gets():
    class Queries(nn.Module):  # and their positions in one embedding, as of Deformable DETR
        def __init__(self):
            super().__init__()
            self.embedding, self.layer = nn.Embedding(5, 4), nn.Linear(2, 3)
            self.layer.bias.requires_grad_(False)

        def forward(self, x):
            return self.layer(self.embedding.weight.split(2, dim=1)[0])

    network = Queries()
    assert measure_cost(network, torch.zeros(1, 3, 2, 2)).multiply_adds == 5 * 2 * 3
    assert [parameter.requires_grad for parameter in network.parameters()] == [True, True, False]


def test_a_plain_network_has_no_experts_and_keeps_its_mode():
    module = ConvModule(3, 8, 3, stride=2, padding=1, groups=1, norm_cfg=dict(type='BN')).train()
    cost = measure_cost(module, torch.zeros(1, 3, 8, 8))
    assert (cost.expert_parameters, cost.mixing, cost.routing) == (0, 0, 0)
    assert cost.multiply_adds == 8 * 3 * 9 * 16
    assert module.training and module.bn.running_mean.eq(0).all()


def test_the_size_of_images_is_height_and_width():
    def config(*pipeline):
        return Config(dict(test_dataloader=dict(dataset=dict(pipeline=list(pipeline)))))

    # a scale is width and height, a crop's size height and width
    assert image_size(config(dict(type='Resize', scale=(96, 64)))) == (64, 96)
    assert image_size(config(dict(type='RandomCrop', crop_size=(32, 48)))) == (32, 48)
    assert image_size(config(dict(type='mmdet.Resize', scale=128))) == (128, 128)
    assert image_size(config(dict(type=Resize, scale=(96, 64)), dict(type=dict))) == (64, 96)
    with pytest.raises(ValueError, match='no Resize with a scale and no crop; give a size'):
        image_size(config(dict(type='RandomCenterCropPad', crop_size=None)))


def test_an_image_is_padded_as_the_network_gets_it(monkeypatch):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.data_preprocessor = DetDataPreprocessor(pad_size_divisor=32)

    monkeypatch.setattr(MODELS, 'build', lambda cfg: Network())
    _, image, inputs = cost.build_network(Config(dict(model=dict())), (300, 64))
    assert image.shape == (1, 3, 320, 64)
    (sample,) = inputs['data_samples']
    assert (sample.img_shape, sample.batch_input_shape) == ((300, 64), (320, 64))


def test_of_teacher_and_student_one_is_counted():
    cfg = Config.fromfile(CONFIGS / 'shapes' / 'ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py')
    alone = measure_config(cfg)
    own = dict(cfg.model.pop('data_preprocessor'), pad_size_divisor=32)
    cfg.model = dict(
        type='SemiBaseDetector',
        detector=cfg.model,
        data_preprocessor=dict(type='MultiBranchDataPreprocessor', data_preprocessor=own),
        semi_train_cfg=dict(freeze_teacher=True),
        semi_test_cfg=dict(predict_on='teacher'),
    )
    assert measure_config(cfg, (100, 100)) == alone


def test_the_size_is_that_of_the_first_data_set_in_its_wrappers():
    one, two = (dict(pipeline=[dict(type='Resize', scale=scale)]) for scale in (64, 128))
    wrapped = dict(type='RepeatDataset', dataset=dict(type='ConcatDataset', datasets=[one, two]))
    assert image_size(Config(dict(test_dataloader=dict(dataset=wrapped)))) == (64, 64)


def test_a_second_stage_is_counted_for_the_most_boxes_whatever_overlaps():
    cfg = Config.fromfile(CONFIGS / 'faster_rcnn' / 'faster-rcnn_r50_fpn_1x_coco.py')
    most = measure_config(cfg, (64, 64)).multiply_adds
    cfg.model.test_cfg.rpn.max_per_img = 900
    of_a_box = 256 * 7 * 7 * 1024 + 1024 * 1024 + 1024 * (81 + 80 * 4)
    assert most - measure_config(cfg, (64, 64)).multiply_adds == 100 * of_a_box
    assert cfg.model.test_cfg.rpn.nms.iou_threshold == 0.7


def test_masks_of_boxes_are_counted_for_the_most_boxes():
    condinst = 'mmdet::condinst/condinst_r50_fpn_ms-poly-90k_coco_instance.py'
    cfg = Config.fromstring(f'_base_ = {condinst!r}', '.py')
    cfg.model.backbone = dict(type='ResNet', depth=18, base_channels=8)
    cfg.model.neck.update(in_channels=[8, 16, 32, 64], start_level=1, out_channels=32)
    cfg.model.bbox_head.update(in_channels=32, feat_channels=32, stacked_convs=1, norm_cfg=None)
    cfg.model.mask_head.mask_feature_head.update(in_channels=32, feat_channels=32)
    most = measure_config(cfg, (64, 64)).multiply_adds
    cfg.model.test_cfg.max_per_img = 60
    kernels = (8 + 2) * 8 + 8 * 8 + 8
    assert most - measure_config(cfg, (64, 64)).multiply_adds == 40 * kernels * 8 * 8
    assert cfg.model.test_cfg.score_thr == 0.05


def test_a_network_that_looks_at_values_is_counted_too(monkeypatch):
    calls = []

    class Looks(nn.Conv2d):
        def forward(self, x, **_):
            calls.append(x.shape)
            if len(calls) == 1:
                raise RuntimeError('a fake tensor has no values')
            return super().forward(x)

    monkeypatch.setattr(MODELS, 'build', lambda cfg: Looks(3, 4, 1))
    assert measure_config(Config(dict(model=dict())), (2, 5)).multiply_adds == 3 * 4 * 2 * 5
    assert len(calls) == 2


def test_each_region_is_mixed_for_and_routed():
    layer = CondConv2d(4, 6, 1, num_experts=2)
    regions = 10
    cost = measure_cost(layer, torch.zeros(regions, 4, 3, 3))
    assert cost.mixing == regions * 2 * 4 * 6
    assert cost.routing == regions * 2 * 4
    assert cost.multiply_adds == regions * 4 * 6 * 9 + cost.mixing + cost.routing
