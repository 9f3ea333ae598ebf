from functools import partial

import pytest
import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModel, BaseModule
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import DataLoader

from condconv_det.layers import CondConv2d, CondLinear
from condconv_det.layers.cond_cfg import CondCfg, parse_head_cond_cfg
from condconv_det.layers.static_weights import NOISE

INITIALISERS = {
    'kaiming': dict(type='Kaiming'),
    'xavier uniform': dict(type='Xavier', distribution='uniform'),
    'caffe2': dict(type='Caffe2Xavier'),
    'truncated normal': dict(type='TruncNormal', std=0.03),
    'uniform': dict(type='Uniform', a=-0.1, b=0.1),
    'constant': dict(type='Constant', val=0.5),
    "the layer's own": None,
}
LAYERS = dict(layer=['Conv2d', 'Linear'])
ONE_KERNEL = dict(num_experts=8, init='one-kernel')


class Twins(BaseModule):
    def __init__(self, init_cfg, activation):
        super().__init__(None if init_cfg is None else dict(LAYERS, **init_cfg))
        routed = dict(num_experts=8, routing=dict(activation=activation), init='one-kernel')
        self.conv, self.plain_conv = CondConv2d(64, 96, 3, **routed), nn.Conv2d(64, 96, 3)
        self.linear, self.plain_linear = CondLinear(256, 200, **routed), nn.Linear(256, 200)


@pytest.mark.parametrize('activation', ['sigmoid', 'softmax'])
@pytest.mark.parametrize('init_cfg', INITIALISERS.values(), ids=INITIALISERS)
def test_the_mixed_kernel_starts_with_the_plain_layers_statistics(init_cfg, activation):
    twins = Twins(init_cfg, activation)
    twins.init_weights()
    twins.init_weights()  # again, changes nothing
    share = 0.5 if activation == 'sigmoid' else 1 / 8
    for routed, plain in (
        (twins.conv, twins.plain_conv),
        (twins.linear, twins.plain_linear),
    ):
        mixed, plain = share * routed.weight.sum(0), plain.weight
        assert abs(mixed.mean() - plain.mean()) < 0.02 * plain.square().mean().sqrt()
        torch.testing.assert_close(mixed.std(), plain.std(), rtol=0.03, atol=1e-6)
        for part in (0.01, 0.5, 0.99):  # not only the deviation: the distribution is the same
            torch.testing.assert_close(
                mixed.flatten().quantile(part),
                plain.flatten().quantile(part),
                rtol=0,
                atol=0.04 * float(plain.square().mean().sqrt()),
            )
        away = routed.weight - routed.weight.mean(0)
        expected = NOISE * mixed.std() * (7 / 8) ** 0.5
        assert all(abs(expert.std() - expected) <= 0.03 * expected + 1e-6 for expert in away)


def test_it_comes_after_the_initialiser_of_conv_module():
    module = ConvModule(64, 64, 3, conv_cfg=dict(type='CondConv2d', **ONE_KERNEL), bias=True)
    BaseModule().add_module('part', module)
    mixed = 0.5 * module.conv.weight.sum(0)
    kaiming = (2 / (9 * 64)) ** 0.5
    assert abs(mixed.std() / kaiming - 1) < 0.03


def test_every_process_makes_the_same_noise_and_each_layer_its_own():
    torch.manual_seed(3)
    first, second = CondConv2d(8, 8, 3, **ONE_KERNEL), CondConv2d(8, 8, 3, **ONE_KERNEL)
    torch.manual_seed(3)
    again = CondConv2d(8, 8, 3, **ONE_KERNEL)
    assert torch.equal(first.weight, again.weight)
    noise = [(layer.weight - layer.weight.mean(0)).flatten() for layer in (first, second)]
    assert torch.corrcoef(torch.stack(noise))[0, 1].abs() < 0.2


def test_a_layer_without_a_router_of_its_own_starts_by_the_shared_ones_activation():
    cond = CondCfg(8, 1, 'block', dict(activation='softmax'), 'one-kernel')
    conv = cond.conv(nn.Conv2d(64, 64, 3), own_router=False)
    torch.testing.assert_close(
        conv.weight.mean(0).std(), nn.Conv2d(64, 64, 3).weight.std(), rtol=0.03, atol=0
    )


class Network(BaseModel):
    def __init__(self, init_cfg=None):
        super().__init__()
        self.backbone = BaseModule(init_cfg)
        self.backbone.conv = CondConv2d(3, 16, 3, **ONE_KERNEL)
        self.head = CondConv2d(16, 16, 3, **ONE_KERNEL)

    def forward(self, inputs, mode='loss'):
        return dict(loss=self.head(self.backbone.conv(inputs)).square().mean())


def train(network, work_dir, epochs=1, **options):
    """A training that changes nothing: its learning rate is zero."""
    Runner(
        network,
        str(work_dir),
        train_dataloader=DataLoader([dict(inputs=torch.randn(3, 8, 8))] * 2, batch_size=2),
        train_cfg=dict(by_epoch=True, max_epochs=epochs),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.0)),
        experiment_name=f'{work_dir.name}{epochs}{len(options)}',
        **options,
    ).train()
    return network


def starts_as_one_kernel(layer):
    away = layer.weight - layer.weight.mean(0)
    return bool(away.std() < 0.5 * (0.5 * layer.weight.sum(0)).std())


def test_a_training_from_scratch_starts_so_and_one_from_a_checkpoint_as_that_says(tmp_path):
    fresh = train(Network(), tmp_path / 'fresh')
    assert starts_as_one_kernel(fresh.backbone.conv) and starts_as_one_kernel(fresh.head)

    resumed = train(Network(), tmp_path / 'fresh', epochs=2, resume=True)
    assert torch.equal(resumed.head.weight, fresh.head.weight)

    separate = Network()
    for layer in (separate.backbone.conv, separate.head):
        nn.init.normal_(layer.weight)
    torch.save(dict(state_dict=separate.state_dict()), tmp_path / 'separate.pth')
    loaded = train(Network(), tmp_path / 'loaded', load_from=str(tmp_path / 'separate.pth'))
    assert torch.equal(loaded.head.weight, separate.head.weight)
    assert not starts_as_one_kernel(loaded.head)


@pytest.mark.parametrize(
    'init_cfg',
    [
        dict(type='Kaiming'),  # of both, as mmdet's GridHead
        dict(type='Constant', layer='Conv2d', val=0, bias=3, override=dict(name='linear')),
    ],
)
def test_routers_start_as_routers_whatever_initialises_their_layers(init_cfg):
    twins = Twins(init_cfg, 'sigmoid')
    before = twins.linear.weight.clone()
    twins.init_weights()
    assert not torch.equal(twins.linear.weight, before)
    for layer in (twins.conv, twins.linear):
        fc = layer.router.fc
        glorot = (6 / (fc.in_features + fc.out_features)) ** 0.5
        assert 0.9 * glorot < fc.weight.abs().max() <= glorot
        assert not fc.bias.any()


def test_a_router_takes_what_a_network_of_ones_own_gives_it():
    class Own(BaseModule):
        def init_weights(self):
            super().init_weights()
            nn.init.constant_(self.conv.router.fc.bias, 2.0)

    network = BaseModule(dict(LAYERS, type='Kaiming'))
    network.part = Own()
    network.part.conv = CondConv2d(3, 16, 3, num_experts=8)
    network.init_weights()
    assert torch.equal(network.part.conv.router.fc.bias, torch.full((8,), 2.0))


def test_a_pretrained_part_keeps_its_weights(tmp_path):
    pretrained = BaseModule()
    pretrained.conv = CondConv2d(3, 16, 3, num_experts=8)
    nn.init.constant_(pretrained.conv.router.fc.bias, 2.0)
    torch.save(dict(state_dict=pretrained.state_dict()), tmp_path / 'backbone.pth')
    init_cfg = dict(type='Pretrained', checkpoint=str(tmp_path / 'backbone.pth'))
    network = train(Network(init_cfg), tmp_path / 'work')
    for key, value in pretrained.state_dict().items():
        assert torch.equal(network.backbone.state_dict()[key], value)
    assert starts_as_one_kernel(network.head)


def test_trained_experts_stay_in_a_second_runner_and_in_a_new_network(tmp_path):
    network = train(Network(dict(type='Kaiming', layer='Conv2d')), tmp_path / 'first')
    for layer in (network.backbone.conv, network.head):
        nn.init.normal_(layer.weight)  # stands for the training
    trained = [network.backbone.conv.weight.clone(), network.head.weight.clone()]
    train(network, tmp_path / 'second')
    assert torch.equal(network.backbone.conv.weight, trained[0])
    assert torch.equal(network.head.weight, trained[1])

    around = Network()
    around.backbone = network.backbone
    around.init_weights()
    assert torch.equal(around.backbone.conv.weight, trained[0])


@pytest.mark.parametrize('build', [partial(CondConv2d, 3, 4, 3), partial(CondLinear, 3, 4)])
def test_an_unknown_start_is_named(build):
    with pytest.raises(ValueError, match=r"init must be one of \('paper', 'one-.* got 'zero'"):
        build(num_experts=2, init='zero')
    with pytest.raises(ValueError, match="cond_cfg.init must be one of .* got 'zero'"):
        CondCfg.parse(dict(num_experts=2, init='zero'), 3, 1, 'layer')
    with pytest.raises(ValueError, match="cond_cfg.init must be one of .* got 'zero'"):
        parse_head_cond_cfg(dict(num_experts=2, init='zero'))
