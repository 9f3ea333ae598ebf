"""What is written for a site, and what is not, of small detectors."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import nn

from condconv_det.analysis.configs import build_model
from condconv_det.deploy import sites
from condconv_det.deploy.site_images import SiteImages, images_by_key, images_of_folder, predict
from condconv_det.deploy.sites import freeze_sites, renew_statistics
from condconv_det.layers import Router

CONFIGS = Path(__file__).parents[2] / 'configs'
SIZE = (64, 96)


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    """Five images, of which the pipeline resizes two."""
    folder = tmp_path_factory.mktemp('pictures')
    rng = np.random.default_rng(0)
    files = []
    for index in range(5):
        height, width = SIZE if index < 3 else (90, 70)
        coarse = rng.integers(0, 256, (8, 12, 3), dtype=np.uint8)
        files.append(folder / f'{index}.png')
        cv2.imwrite(str(files[-1]), cv2.resize(coarse, (width, height)))
    return files


def save(model, cfg, folder):
    """The config as read again and the checkpoint."""
    meta = dict(dataset_meta=dict(classes=('circle', 'square', 'triangle', 'star', 'cross')))
    torch.save(dict(state_dict=model.state_dict(), meta=meta), folder / 'trained.pth')
    cfg.dump(folder / 'config.py')
    return Config.fromfile(folder / 'config.py'), folder / 'trained.pth'


@pytest.fixture
def constant(small_detector, small_cfg, tmp_path):
    """An SSD whose routing no image changes."""
    model = small_detector('SSD, routed neck')
    for router in (module for module in model.modules() if isinstance(module, Router)):
        nn.init.zeros_(router.fc.weight)
        nn.init.normal_(router.fc.bias)
    return save(model, small_cfg('SSD, routed neck'), tmp_path)


@pytest.fixture
def varied(small_detector, small_cfg, tmp_path):
    """An SSD that mixes other kernels for each image."""
    model = small_detector('SSD, routed neck')
    for router in (module for module in model.modules() if isinstance(module, Router)):
        nn.init.normal_(router.fc.weight, std=10)
    return save(model, small_cfg('SSD, routed neck'), tmp_path)


def load(config, checkpoint):
    model = build_model(Config.fromfile(config)).eval()
    model.load_state_dict(torch.load(checkpoint, weights_only=True)['state_dict'])
    return model


def test_constant_routing_freezes_to_the_same_detections(constant, pictures, tmp_path):
    out = tmp_path / 'out'
    groups = {'one/site': pictures[:2], 'other site': pictures[2:]}
    found = freeze_sites(*constant, groups, out)
    assert {path.name for path in out.iterdir()} == {
        f'{name}{suffix}' for name in ('one-site', 'other-site') for suffix in ('.py', '.pth')
    }
    assert [site.images for site in found.values()] == [2, 3]
    for site in found.values():
        assert site.kernels_vary < 1e-6 and site.outputs_error < 1e-4
        assert site.agreement == pytest.approx(1, abs=1e-5)

    content = torch.load(out / 'other-site.pth', weights_only=True)
    assert content['meta']['dataset_meta']['classes'][0] == 'circle'
    about = content['meta']['frozen']
    assert (about['site'], about['images'], about['of']) == ('other site', 3, 'trained.pth')
    static, routed = (
        load(out / 'other-site.py', out / 'other-site.pth'),
        load(tmp_path / 'config.py', tmp_path / 'trained.pth'),
    )
    assert not any(isinstance(module, Router) for module in static.modules())
    for batch in SiteImages(constant[0], pictures).batches(5):
        with torch.no_grad():
            for ours, theirs in zip(static.test_step(batch), routed.test_step(batch)):
                ours, theirs = ours.pred_instances, theirs.pred_instances
                assert len(ours) == len(theirs) > 3
                torch.testing.assert_close(ours.scores, theirs.scores, rtol=0, atol=1e-4)


def test_routing_that_varies_is_refused_with_figures_and_nothing_is_left(
    varied, pictures, tmp_path
):
    before = set(tmp_path.iterdir())
    says = (
        r'by less than 0.99: site 0\.\d{3} \(kernels vary by [01]\.\d{3}, most in \S+, .*'
        r'Nothing is written'
    )
    groups = dict(site=pictures)
    with pytest.raises(ValueError, match=says):
        freeze_sites(*varied, groups, tmp_path / 'out', limit=0.99)
    assert set(tmp_path.iterdir()) == before
    site = freeze_sites(*varied, groups, tmp_path / 'out', limit=0)['site']
    assert site.kernels_vary > 0.05 and 0 < site.agreement < 0.99 and site.outputs_error > 0.05


def test_one_site_that_is_refused_keeps_back_the_others(varied, pictures, tmp_path):
    twice = dict(same=pictures[:1] * 2, differing=pictures)
    says = r'by less than 0.99: differing 0\.\d+ \([^;]*\)\. Nothing'
    with pytest.raises(ValueError, match=says):
        freeze_sites(*varied, twice, tmp_path / 'out', limit=0.99)
    assert not (tmp_path / 'out').exists()


def test_norms_get_the_statistics_of_the_sites_images(constant, pictures, tmp_path):
    freeze_sites(*constant, dict(site=pictures), tmp_path / 'old')
    found = freeze_sites(
        *constant, dict(site=pictures), tmp_path / 'new', limit=0, renew_norms=True
    )
    old, new = (load(tmp_path / x / 'site.py', tmp_path / x / 'site.pth') for x in ('old', 'new'))
    for key, value in old.state_dict().items():
        same = torch.equal(value, new.state_dict()[key])
        assert same != ('running' in key or 'num_batches' in key), key
    (batch,) = SiteImages(constant[0], pictures).batches(16)
    images = new.data_preprocessor(batch, False)['inputs']
    maps = new.backbone.conv1.conv(images)
    torch.testing.assert_close(new.backbone.conv1.bn.running_mean, maps.mean((0, 2, 3)))
    torch.testing.assert_close(new.backbone.conv1.bn.running_var, maps.var((0, 2, 3)))
    assert new.backbone.conv1.bn.momentum == old.backbone.conv1.bn.momentum
    assert found['site'].outputs_error > 0.01


def test_statistics_are_the_mean_over_batches_and_of_norms_that_run(monkeypatch, pictures):
    monkeypatch.setattr(sites, 'NORM_BATCH', 2)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.runs, self.idle = nn.BatchNorm2d(3, momentum=0.03), nn.BatchNorm2d(3)

        def test_step(self, batch):
            self.runs(torch.stack(batch['inputs']).float())

    cfg = Config(
        dict(
            test_dataloader=dict(
                dataset=dict(
                    pipeline=[
                        dict(type='LoadImageFromFile'),
                        dict(type='mmdet.Resize', scale=SIZE[::-1], keep_ratio=False),
                        dict(type='mmdet.PackDetInputs', meta_keys=('img_id',)),
                    ]
                )
            )
        )
    )
    images = SiteImages(cfg, pictures)
    network = Network().eval()
    network.runs.num_batches_tracked.fill_(1000)  # as after training
    network.runs.running_mean.fill_(50)
    before = copy.deepcopy(network.idle.state_dict())
    renew_statistics(network, images)
    batches = [torch.stack(batch['inputs']).float() for batch in images.batches(2)]
    assert [len(batch) for batch in batches] == [2, 2, 1]
    mean = torch.stack([batch.mean((0, 2, 3)) for batch in batches]).mean(0)
    torch.testing.assert_close(network.runs.running_mean, mean)
    assert network.runs.momentum == 0.03 and not network.runs.training
    assert torch.equal(network.idle.running_mean, before['running_mean'])


def save_untrained(config, folder):
    """A config's network with routing that no image changes, and its files."""
    cfg = Config.fromfile(config)
    model = build_model(copy.deepcopy(cfg))
    for router in (module for module in model.modules() if isinstance(module, Router)):
        nn.init.zeros_(router.fc.weight)
        nn.init.normal_(router.fc.bias)
    return save(model, cfg, folder)


def test_a_two_stage_detector_whose_backbone_and_neck_are_routed(pictures, tmp_path):
    (tmp_path / 'base.py').write_text(
        "_base_ = 'mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py'\n"
        "custom_imports = dict(imports=['condconv_det'], allow_failed_imports=False)\n"
        "conv_cfg = dict(type='CondConv2d', num_experts=2)\n"
        'model = dict(\n'
        '    backbone=dict(depth=18, base_channels=8, init_cfg=None, conv_cfg=conv_cfg),\n'
        '    neck=dict(in_channels=[8, 16, 32, 64], out_channels=8, conv_cfg=conv_cfg),\n'
        '    rpn_head=dict(in_channels=8, feat_channels=8),\n'
        '    roi_head=dict(\n'
        '        bbox_roi_extractor=dict(out_channels=8),\n'
        '        bbox_head=dict(in_channels=8, fc_out_channels=8),\n'
        '    ),\n'
        '    test_cfg=dict(rcnn=dict(score_thr=0.0)),\n'
        ')\n'
    )
    cfg, checkpoint = save_untrained(tmp_path / 'base.py', tmp_path)
    cfg.test_dataloader.dataset.pipeline[1].scale = SIZE[::-1]
    site = freeze_sites(cfg, checkpoint, dict(a=pictures), tmp_path / 'out')['a']
    assert site.agreement > 0.99 and site.outputs_error < 1e-3
    assert 'condconv_det' not in (tmp_path / 'out' / 'a.py').read_text()


def test_a_classifier(pictures, tmp_path):
    name = 'mobilenet-v1-0.5-condconv-e8_1xb32-10e_shapes-crops.py'
    files = save_untrained(CONFIGS / 'shapes' / name, tmp_path)
    site = freeze_sites(*files, dict(a=pictures), tmp_path / 'out', renew_norms=True)['a']
    assert site.agreement > 0.5 and site.outputs_error > 0
    assert type(load(tmp_path / 'out' / 'a.py', tmp_path / 'out' / 'a.pth').head.fc) is nn.Linear


@pytest.mark.parametrize(
    'groups, says',
    [
        (dict(a=['1', '2'], fog=['1']), 'needs at least 2 images, .* of one image: fog$'),
        ({'a b': ['1', '2'], 'a-b': ['1', '2']}, r"must differ in letters .* \['a b', 'a-b'\]"),
        ({'?!': ['1', '2']}, 'must differ in letters'),
    ],
)
def test_groups_that_make_no_sites_are_named_before_a_network_is_built(groups, says, monkeypatch):
    monkeypatch.setattr(sites, 'build_model', None)
    with pytest.raises(ValueError, match=says):
        freeze_sites(Config(), Path('trained.pth'), groups, Path('out'))


def test_norms_without_statistics_are_named(small_cfg, save_trained, tmp_path, pictures):
    cfg = small_cfg('SSD')
    for part in (cfg.model.backbone, cfg.model.neck):
        part.norm_cfg = dict(type='GN', num_groups=2)
    config, checkpoint = save_trained(build_model(copy.deepcopy(cfg)), cfg, tmp_path)
    args = Config.fromfile(config), checkpoint, dict(a=pictures), tmp_path / 'out'
    with pytest.raises(ValueError, match='has no batch norms whose statistics could be new'):
        freeze_sites(*args, renew_norms=True)
    assert not (tmp_path / 'out').exists()


def test_a_network_that_no_config_describes_is_refused(constant, pictures, tmp_path, monkeypatch):
    plain = sites.static_config

    def padded_otherwise(cfg, model):
        static = plain(cfg, model)
        static.model.backbone.conv_cfg = None
        return static

    monkeypatch.setattr(sites, 'static_config', padded_otherwise)
    says = 'no static config builds this network: SingleStageDetector .* computes something else'
    with pytest.raises(ValueError, match=says):
        freeze_sites(*constant, dict(a=pictures), tmp_path / 'out')
    monkeypatch.setattr(sites, 'static_config', lambda cfg, model: cfg)
    with pytest.raises(ValueError, match='no static config .*: weights differ in .*router.fc'):
        freeze_sites(*constant, dict(a=pictures), tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_there_may_be_any_number_of_sites(tmp_path):
    images = [
        dict(id=index, file_name=f'{index}.jpg', width=8, height=8, camera=index % 60)
        for index in range(120)
    ]
    categories = [dict(id=1, name='cell')]
    (tmp_path / 'val.json').write_text(
        json.dumps(dict(images=images, annotations=[], categories=categories))
    )
    dataset = dict(
        type='CocoDataset',
        data_root=str(tmp_path),
        ann_file='val.json',
        data_prefix=dict(img='images'),
        metainfo=dict(classes=('cell',)),
        test_mode=True,
    )
    found = images_by_key(Config(dict(val_dataloader=dict(dataset=dataset))), 'camera', only=['7'])
    assert found == {'7': [tmp_path / 'images/7.jpg', tmp_path / 'images/67.jpg']}


def test_a_folder_names_its_site(tmp_path):
    files = [tmp_path / 'gate 7' / name for name in ('a.jpg', 'sub/b.jpg')]
    assert images_of_folder(files) == {'gate 7': files}
    assert images_of_folder([Path('/a.jpg')]) == {'site': [Path('/a.jpg')]}


def test_a_folder_of_links_names_its_site(tmp_path):
    (tmp_path / 'gate').mkdir()
    files = [tmp_path / 'gate' / name for name in ('a.jpg', 'b.jpg')]
    for file in files:
        (tmp_path / file.name).touch()
        file.symlink_to(tmp_path / file.name)
    assert images_of_folder(files) == dict(gate=files)


def test_masks_of_all_images_are_not_kept():
    class Network(nn.Module):
        def test_step(self, batch):
            found = InstanceData(scores=torch.ones(1), masks=torch.ones(1, *SIZE))
            return [DetDataSample(pred_instances=found)]

    found = predict(Network(), SimpleNamespace(batches=lambda: [{}, {}]))
    assert [sample.pred_instances.keys() for sample in found] == [['scores'], ['scores']]


def test_objects_that_have_masks_alone_are_compared_by_the_boxes_around_these():
    class Network(nn.Module):
        def test_step(self, batch):
            masks = torch.zeros(1, *SIZE, dtype=torch.bool)
            masks[:, 10:30, 5:50] = True
            found = InstanceData(bboxes=torch.zeros(1, 4), scores=torch.ones(1), masks=masks)
            return [DetDataSample(pred_instances=found)]

    (sample,) = predict(Network(), SimpleNamespace(batches=lambda: [{}]))
    assert sample.pred_instances.bboxes.tolist() == [[5, 10, 50, 30]]
