import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement, InstanceData
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import nn

from condconv_det import CondConv2d
from condconv_det.analysis.routing import Grouping, summarize, variance_ratio
from condconv_det.engine import RoutingHook

IMAGES = torch.randn(20, 3, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = [[i % 2, 2] if i % 3 else [] for i in range(20)]


@pytest.fixture(autouse=True)
def _scope_of_its_own(monkeypatch):
    """The runners' scope, mmengine's, ends with each test."""
    monkeypatch.setattr(DefaultScope, '_instance_dict', {})


class Images:
    metainfo = {}

    def __len__(self):
        return len(IMAGES)

    def __getitem__(self, index):
        sample = BaseDataElement()
        if index % 2:  # a detector's
            sample.gt_instances = InstanceData(labels=torch.tensor(LABELS[index], dtype=torch.long))
        else:  # a classifier's
            sample.gt_label = torch.tensor(LABELS[index], dtype=torch.long)
        return dict(inputs=IMAGES[index], data_samples=sample)


class Network(BaseModel):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer
        self.regions = None  # of an image; a router that looks at them
        self.listening = []

    def forward(self, inputs, data_samples, mode):
        assert mode == 'loss'
        router = getattr(self.layer, 'router', None)
        self.listening.append(bool(router is not None and router._forward_hooks))
        images = torch.stack(inputs)
        if self.regions is not None:
            self.regions(torch.cat([images, images]))
        return dict(loss=self.layer(images).square().mean())


def train(tmp_path, layer, train_cfg, lr=0.0, backends=('LocalVisBackend',), **hook):
    runner = Runner(
        Network(layer),
        str(tmp_path),
        train_dataloader=dict(
            dataset=Images(), sampler=dict(type='DefaultSampler', shuffle=False), batch_size=4
        ),
        train_cfg=train_cfg,
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=lr)),
        default_hooks=dict(routing=dict(type='RoutingHook', **hook), checkpoint=None),
        visualizer=dict(type='Visualizer', vis_backends=[dict(type=name) for name in backends]),
        default_scope='mmengine',
        experiment_name=f'{tmp_path.name}',
    )
    runner.train()
    log = tmp_path / runner.timestamp / 'vis_data' / 'scalars.json'
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return runner.model, [line for line in lines if 'routing/entropy' in line]


def expected(router, images):
    """Of a network that does not change, the numbers for some of the images."""
    weights = router(IMAGES[images]).detach().double().numpy()[:, None]
    member = Grouping.from_labels('class', 'abc', LABELS[images]).member
    summary = summarize(weights)
    return dict(
        entropy=summary.entropy,
        deviation=summary.deviation,
        saturated=summary.saturated,
        dead=len(summary.dead) / 4,
        between_over_within=variance_ratio(weights, member),
    )


@pytest.fixture
def layer():
    layer = CondConv2d(3, 2, 1, num_experts=4)
    with torch.no_grad():
        layer.router.fc.weight.mul_(10)
        layer.router.fc.bias[0] = -20
    return layer


def test_logs_the_last_images_of_each_epoch(tmp_path, layer):
    model, logged = train(tmp_path, layer, dict(by_epoch=True, max_epochs=2), num_iters=2)
    assert [line['step'] for line in logged] == [1, 2]
    numbers = expected(layer.router, slice(12, 20))
    assert numbers['dead'] == 0.25 and numbers['between_over_within'] > 0
    for line in logged:
        for key, value in numbers.items():
            assert line[f'routing/{key}'] == pytest.approx(value, rel=1e-5)
            assert line[f'routing_{key}/layer'] == pytest.approx(value, rel=1e-5)
    assert model.listening == [False, False, False, True, True] * 2


def test_short_epochs_are_looked_at_whole(tmp_path, layer):
    _, (line,) = train(tmp_path, layer, dict(by_epoch=True, max_epochs=1))
    assert line['routing/entropy'] == pytest.approx(
        expected(layer.router, slice(0, 20))['entropy'], rel=1e-5
    )


def test_without_epochs_logs_before_each_validation_and_the_one_at_the_end(tmp_path, layer):
    loop = dict(by_epoch=False, max_iters=6, val_interval=4)
    _, logged = train(tmp_path, layer, loop, num_iters=1)
    assert [line['step'] for line in logged] == [4, 6]
    numbers = expected(layer.router, slice(12, 16))
    assert logged[0]['routing/saturated'] == pytest.approx(numbers['saturated'])


def test_intervals_that_change_are_followed(tmp_path, layer):
    # 8, 10, 11 and 12 come after the interval has changed
    loop = dict(by_epoch=False, max_iters=12, val_interval=4, dynamic_intervals=[(9, 5), (12, 1)])
    _, logged = train(tmp_path, layer, loop, num_iters=1)
    assert [line['step'] for line in logged] == [4, 10, 11, 12]


def test_a_step_on_several_batches_is_refused():
    hook = RoutingHook()
    batch = dict(data_samples=dict(sup=[], unsup_teacher=[], unsup_student=[]))
    with pytest.raises(ValueError, match='one batch a step, got sup, unsup_teacher, unsup_student'):
        hook.before_train_iter(None, 0, batch)


def test_a_compiled_network_is_refused():
    with pytest.raises(ValueError, match='compiled network; take it out, or compile=True'):
        RoutingHook().before_train(SimpleNamespace(cfg=Config(dict(compile=True))))


def test_several_layers_give_their_mean(tmp_path):
    layers = nn.Sequential(*(CondConv2d(3, 3, 1, num_experts=4) for _ in range(2)))
    _, (line,) = train(tmp_path, layers, dict(by_epoch=True, max_epochs=1), lr=0.1)
    for key in ('entropy', 'deviation', 'saturated', 'dead', 'between_over_within'):
        parts = [line[f'routing_{key}/layer.{index}'] for index in (0, 1)]
        assert line[f'routing/{key}'] == pytest.approx(np.mean(parts))


def test_routers_that_do_not_answer_for_images_are_named_once(tmp_path, layer, monkeypatch):
    regions, plain = CondConv2d(3, 2, 1, num_experts=4), Network.__init__

    def init(self, layer):
        plain(self, layer)
        self.regions = regions

    monkeypatch.setattr(Network, '__init__', init)
    _, logged = train(tmp_path, layer, dict(by_epoch=True, max_epochs=2))
    assert len(logged) == 2 and 'routing_entropy/regions' not in logged[0]
    (log,) = tmp_path.rglob('*.log')
    assert log.read_text().count('RoutingHook leaves out regions: their routers do not') == 1


def test_training_is_the_same_with_the_hook(tmp_path):
    ends = []
    for num_iters in (1, 5):
        torch.manual_seed(0)
        layer = CondConv2d(3, 2, 1, num_experts=4)
        loop = dict(by_epoch=True, max_epochs=2)
        train(tmp_path / str(num_iters), layer, loop, lr=0.5, num_iters=num_iters)
        ends.append(layer.weight.detach())
    assert torch.equal(*ends)


def test_a_network_without_routers_stops_before_training(tmp_path):
    with pytest.raises(ValueError, match='Network has no routed layers'):
        train(tmp_path, nn.Conv2d(3, 2, 1), dict(by_epoch=True, max_epochs=1))


def test_at_least_one_iteration_is_looked_at():
    with pytest.raises(ValueError, match='num_iters must be at least 1, got 0'):
        RoutingHook(num_iters=0)


def test_tensorboard_shows_the_same_numbers(tmp_path):
    _, logged = train(
        tmp_path,
        CondConv2d(3, 4, 1, num_experts=5),
        dict(by_epoch=True, max_epochs=2),
        backends=('LocalVisBackend', 'TensorboardVisBackend'),
    )
    (events,) = tmp_path.glob('*/vis_data/events.out.tfevents.*')
    board = EventAccumulator(str(events)).Reload()
    for key in set(logged[0]) - {'step'}:
        shown = [(event.step, event.value) for event in board.Scalars(key)]
        assert shown == [(line['step'], pytest.approx(line[key])) for line in logged]
