import pytest
import torch
from mmengine.registry import MODELS
from mmpretrain.models.heads import LinearClsHead
from mmpretrain.structures import DataSample

from condconv_det.layers import CondLinear

E8 = dict(num_experts=8)


def build(**kwargs):
    head = MODELS.build(dict(type='CondConvClsHead', num_classes=5, in_channels=64, **kwargs))
    head.init_weights()
    return head


def test_without_cond_cfg_it_is_mmpretrains():
    head, theirs = build(), LinearClsHead(5, 64)
    theirs.load_state_dict(head.state_dict())
    feats = (torch.randn(3, 64),)
    torch.testing.assert_close(head(feats), theirs(feats))


def test_a_routed_classifier_trains_all_it_has_and_predicts():
    head = build(cond_cfg=E8)
    assert isinstance(head.fc, CondLinear)
    feats = (torch.randn(6, 64),)
    samples = [DataSample().set_gt_label(label % 5) for label in range(6)]
    head.loss(feats, samples)['loss'].backward()
    assert all(parameter.grad.any() for parameter in head.parameters())
    scores = torch.stack([sample.pred_score for sample in head.predict(feats)])
    torch.testing.assert_close(scores.sum(1), torch.ones(6))


def test_init_cfg_gives_each_expert_the_plain_layers_deviation():
    head = build(cond_cfg=E8)
    assert all(abs(expert.std() / 0.01 - 1) < 0.2 for expert in head.fc.weight)


def test_routers_of_a_checkpoint_and_of_an_earlier_start_stay(tmp_path):
    head = build(cond_cfg=E8)
    torch.nn.init.constant_(head.fc.router.fc.bias, 5.0)
    torch.save(head.state_dict(), tmp_path / 'head.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'head.pth'))
    loaded = build(cond_cfg=E8, init_cfg=init_cfg)
    head.init_weights()
    for each in (loaded, head):
        assert torch.equal(each.fc.router.fc.bias, torch.full((8,), 5.0))


def test_experts_that_no_initialiser_fills_stay():
    cond_cfg = dict(E8, init='one-kernel')
    cfg = dict(type='CondConvClsHead', num_classes=5, in_channels=64, init_cfg=None)
    head = MODELS.build(dict(cfg, cond_cfg=cond_cfg))
    torch.nn.init.ones_(head.fc.weight)
    head.init_weights()
    assert torch.equal(head.fc.weight, torch.ones(8, 5, 64))


def test_dropout_acts_in_training_alone():
    head = build(cond_cfg=E8, dropout=0.9)
    feats = (torch.randn(2, 64),)
    assert not torch.equal(head.train()(feats), head(feats))
    torch.testing.assert_close(head.eval()(feats), head(feats))


def test_bad_keys_are_named():
    with pytest.raises(ValueError, match=r"unknown keys \['parts'\]"):
        build(cond_cfg=dict(E8, parts=()))


@pytest.mark.parametrize('routing', [{}, dict(hidden_channels=8)])
def test_its_router_starts_as_any_router(routing):
    router = build(cond_cfg=dict(E8, routing=routing)).fc.router
    expected = (2 / (router.fc.in_features + 8)) ** 0.5  # Glorot's
    assert abs(router.fc.weight.std() / expected - 1) < 0.3
    assert not router.fc.bias.any()
