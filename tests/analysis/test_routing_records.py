import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from numpy.testing import assert_allclose

from condconv_det.analysis import routing_records
from condconv_det.analysis.routing_records import record_routing
from condconv_det.data.shapes import make_shapes


def test_images_are_routed_in_the_order_of_their_list(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_shapes(tmp_path / 'data' / 'shapes', dict(test=6), size=64)
    config, checkpoint = trained['routed']

    def record(indices):
        cfg = Config.fromfile(config)
        loader = cfg.test_dataloader
        loader.update(batch_size=2, num_workers=0, persistent_workers=False)
        loader.dataset.indices = indices
        return record_routing(cfg, checkpoint)

    together = record(None)
    for index in (1, 4):
        alone = record([index])
        assert alone.images == [together.images[index]]
        for layer, weights in alone.weights.items():
            assert_allclose(weights[0], together.weights[layer][index], atol=1e-4)


@pytest.mark.parametrize('label', [2, np.uint8(2), np.array(2), [2]], ids=repr)
def test_classes_may_be_numbers_of_any_kind(label):
    # as of mmpretrain's DTD and StanfordCars
    dataset = BaseDataset(metainfo=dict(classes=['a', 'b', 'c']), lazy_init=True)
    grouping = routing_records._group_by_class(dataset, [dict(gt_label=label)])
    assert grouping.groups == ['c']


def test_images_without_files_are_named_before_the_network_runs(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_shapes(tmp_path / 'data' / 'shapes', dict(test=2), size=64)
    monkeypatch.setattr(BaseDataset, 'get_data_info', lambda *_: dict(img=0, gt_label=0))
    config, checkpoint = trained['routed']
    with pytest.raises(ValueError, match='Dataset of .* has images without a file, img_path'):
        record_routing(Config.fromfile(config), checkpoint)


def test_routing_of_a_training_that_diverged_is_named(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_shapes(tmp_path / 'data' / 'shapes', dict(test=2), size=64)
    config, checkpoint = trained['routed']
    content = torch.load(checkpoint, weights_only=False)
    routers = [name for name in content['state_dict'] if name.endswith('router.fc.weight')]
    content['state_dict'][routers[0]].fill_(float('nan'))
    torch.save(content, 'nan.pth')
    cfg = Config.fromfile(config)
    cfg.test_dataloader.update(num_workers=0, persistent_workers=False)
    with pytest.raises(
        ValueError, match='not finite numbers; has the training of nan.pth diverged'
    ):
        record_routing(cfg, 'nan.pth')
