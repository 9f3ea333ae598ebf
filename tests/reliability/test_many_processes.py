"""Training in several processes equals training in one."""

from functools import partial

import pytest
import torch
import torch.distributed.fsdp
from mmengine.model import MMDistributedDataParallel
from mmengine.registry import MODELS
from processes import assert_near, in_processes, share
from torch import distributed

from condconv_det import CondConv2d
from condconv_det.layers import RoutedBlock

long = pytest.mark.long


@pytest.mark.parametrize('number', [2, pytest.param(4, marks=long)])
def test_five_steps_equal_those_of_one_process_on_the_whole_batch(
    train_steps, detector, batch, number
):
    batches = [batch(4) for _ in range(5)]

    def work(rank):
        parts = [share(each, rank, number) for each in batches]
        return train_steps(detector, parts, MMDistributedDataParallel(detector))

    start = {key: value.detach().clone() for key, value in detector.named_parameters()}
    found = in_processes(number, work)
    expected = train_steps(detector, batches)
    for each in found:
        assert_near(each['gradients'], expected['gradients'])
        assert_near(each['weights'], expected['weights'])
    backbone = [key for key in start if key.startswith('backbone.')]
    assert not any(torch.equal(start[key], expected['weights'][key]) for key in backbone)


@long
def test_so_do_accumulated_and_clipped_gradients_of_recomputed_blocks(train_steps, detector, batch):
    batches, clip = [batch(8) for _ in range(3)], dict(clip_grad=dict(max_norm=0.5))

    def work(rank):
        for block in detector.modules():
            if isinstance(block, RoutedBlock):
                block.with_cp = True
        quarters = [share(each, 2 * half + rank, 4) for each in batches for half in (0, 1)]
        wrapped = MMDistributedDataParallel(detector)
        return train_steps(detector, quarters, wrapped, accumulative_counts=2, **clip)

    found = in_processes(2, work)[0]
    expected = train_steps(detector, batches, **clip)
    assert_near(found['gradients'], expected['gradients'])
    assert_near(found['weights'], expected['weights'])


@pytest.mark.parametrize('steps', [5, pytest.param(200, marks=long)])
def test_weights_stay_the_same_in_all_processes(train_steps, detector, batch, steps):
    start = {key: value.detach().clone() for key, value in detector.named_parameters()}

    def work(rank):
        torch.manual_seed(rank)
        detector.train()  # norms too
        wrapped = MMDistributedDataParallel(detector, broadcast_buffers=False)
        optimizer = dict(type='AdamW', lr=1e-3)
        found = train_steps(detector, [batch(2)] * steps, wrapped, optimizer=optimizer)
        return found | dict(statistics=dict(detector.named_buffers()))

    first, second = in_processes(2, work)
    for key, value in first['weights'].items():
        assert torch.equal(value, second['weights'][key]), key
        assert 'backbone' not in key or not torch.equal(value, start[key]), key
    name = 'backbone.conv1.bn.running_mean'  # they did see different images
    assert not torch.equal(first['statistics'][name], second['statistics'][name])


@long
def test_optimizer_states_shared_among_processes_train_the_same_weights(
    train_steps, detector, batch
):
    batches = [batch(4) for _ in range(3)]
    settings = dict(lr=1e-3, weight_decay=0.05)

    def work(rank, optimizer):
        wrapped = MMDistributedDataParallel(detector)
        parts = [share(each, rank, 2) for each in batches]
        return train_steps(detector, parts, wrapped, optimizer=optimizer)['weights']

    plain = dict(type='AdamW', **settings)
    shared = dict(type='ZeroRedundancyOptimizer', optimizer_type='AdamW', **settings)
    expected = in_processes(2, partial(work, optimizer=plain))[0]
    for found in in_processes(2, partial(work, optimizer=shared)):
        assert_near(found, expected)


@pytest.mark.skipif(
    not hasattr(distributed.fsdp, 'fully_shard'), reason='torch 2.1 has no fully_shard'
)
def test_experts_sharded_by_fsdp2_get_the_gradients_of_the_whole_batch(settle):
    x = torch.randn(4, 3, 64, 64).double()
    cfg = dict(type='CondConvMobileNetV1', widen_factor=0.25, out_indices=(3, 4))
    model = MODELS.build(dict(cfg, cond_cfg=dict(num_experts=4), norm_eval=True)).double()
    settle(model, x)

    def loss(x):
        return sum(level.square().mean() for level in model(x))

    def work(rank):
        mesh = distributed.init_device_mesh('cpu', (2,))
        for stage in model.layers:
            distributed.fsdp.fully_shard(getattr(model, stage), mesh=mesh)
        distributed.fsdp.fully_shard(model, mesh=mesh)
        experts = next(m for m in model.modules() if isinstance(m, CondConv2d)).weight
        assert experts.to_local().shape[0] == 2
        loss(x[rank::2]).backward()
        return {key: value.grad.full_tensor() for key, value in model.named_parameters()}

    model.train()
    found = in_processes(2, work)
    loss(x).backward()
    assert_near(found[0], {key: value.grad for key, value in model.named_parameters()})
