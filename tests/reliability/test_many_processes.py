"""Training in several processes, which talk through gloo."""

import os
import signal
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed.fsdp
from mmengine.model import MMDistributedDataParallel, convert_sync_batchnorm
from mmengine.registry import MODELS
from torch import distributed, nn
from torch.multiprocessing import start_processes

from condconv_det import CondConv2d
from condconv_det.layers import RoutedBlock

long = pytest.mark.long


@pytest.fixture
def in_processes(tmp_path_factory):
    """in_processes(4, work) is what work(rank) returned in each of 4 forks of this process."""

    def in_processes(number: int, work: Callable[[int], Any]) -> list:
        folder = tmp_path_factory.mktemp('group')

        def run(rank: int) -> None:
            distributed.init_process_group(
                'gloo',
                init_method=f'file://{folder}/group',
                rank=rank,
                world_size=number,
                timeout=timedelta(seconds=60),
            )
            torch.save(work(rank), folder / f'{rank}.pth')
            distributed.destroy_process_group()

        start_processes(run, nprocs=number, start_method='fork')
        return [torch.load(folder / f'{rank}.pth', weights_only=True) for rank in range(number)]

    return in_processes


def share(batch, rank, number):
    return {key: values[rank::number] for key, values in batch.items()}


def assert_close(found, expected, bound=1e-6):
    """No value is off by more than `bound` of the tensor's largest."""
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        scale = value.abs().max().item()
        assert scale > 0 or not found[key].any(), key
        torch.testing.assert_close(found[key], value, rtol=0, atol=bound * scale, msg=key)


@pytest.mark.parametrize('number', [2, pytest.param(4, marks=long)])
def test_five_steps_equal_those_of_one_process_on_the_whole_batch(
    in_processes, train_steps, detector, batch, number
):
    batches = [batch(8) for _ in range(5)]

    def work(rank):
        parts = [share(each, rank, number) for each in batches]
        return train_steps(detector, parts, MMDistributedDataParallel(detector))

    start = {key: value.detach().clone() for key, value in detector.named_parameters()}
    found = in_processes(number, work)
    expected = train_steps(detector, batches)
    for each in found:
        assert_close(each['gradients'], expected['gradients'])
        assert_close(each['weights'], expected['weights'])
    backbone = [key for key in start if key.startswith('backbone.')]
    assert not any(torch.equal(start[key], expected['weights'][key]) for key in backbone)


def test_so_do_accumulated_and_clipped_gradients_of_recomputed_blocks(
    in_processes, train_steps, detector, batch
):
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
    assert_close(found['gradients'], expected['gradients'])
    assert_close(found['weights'], expected['weights'])


@pytest.mark.parametrize('steps', [5, pytest.param(200, marks=long)])
def test_weights_stay_the_same_in_all_processes(in_processes, train_steps, detector, batch, steps):
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


def test_sync_bn_takes_the_place_of_every_norm(backbone_cfg, settle):
    x = torch.randn(2, 3, 64, 64)
    model = settle(MODELS.build(dict(backbone_cfg, cond_cfg=dict(num_experts=2))), x)
    expected, names = model(x), list(model.state_dict())
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    synced = convert_sync_batchnorm(model)
    synced.eval()
    assert list(synced.state_dict()) == names
    assert sum(isinstance(module, nn.SyncBatchNorm) for module in synced.modules()) == norms > 0
    for mine, theirs in zip(synced(x), expected, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.fixture
def sync_bn_on_cpu(monkeypatch):
    """torch's SyncBatchNorm, which exchanges what these compute; torch has them for GPUs alone."""

    def over_batch(values):
        return values.transpose(0, 1).flatten(1)

    def per_channel(values):
        return values[:, None, None]

    def stats(x, eps):
        variance, mean = torch.var_mean(over_batch(x), 1, correction=0)
        return mean, (variance + eps).rsqrt()

    def gather_stats_with_counts(
        x, means, invstds, running_mean, running_var, momentum, eps, counts
    ):
        shares = (counts / counts.sum())[:, None]
        mean = (shares * means).sum(0)
        variance = (shares * (invstds**-2 - eps + (means - mean) ** 2)).sum(0)
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(variance * counts.sum() / (counts.sum() - 1), momentum)
        return mean, (variance + eps).rsqrt()

    def elemt(x, weight, bias, mean, invstd, eps):
        return (x - per_channel(mean)) * per_channel(invstd * weight) + per_channel(bias)

    def backward_reduce(grad, x, mean, invstd, weight, *needed):
        sum_dy = over_batch(grad).sum(1)
        sum_dy_xmu = over_batch(grad * (x - per_channel(mean))).sum(1)
        return sum_dy, sum_dy_xmu, sum_dy_xmu * invstd, sum_dy

    def backward_elemt(grad, x, mean, invstd, weight, sum_dy, sum_dy_xmu, counts):
        slope = sum_dy_xmu / counts.sum() * invstd**2
        centered = grad - per_channel(sum_dy / counts.sum())
        centered -= (x - per_channel(mean)) * per_channel(slope)
        return centered * per_channel(invstd * weight)

    functions = (stats, gather_stats_with_counts, elemt, backward_reduce, backward_elemt)
    for function in functions:
        monkeypatch.setattr(torch, f'batch_norm_{function.__name__}', function)
    # what refuses a CPU: SyncBatchNorm, but for one device with a name of its own, and DDP
    monkeypatch.setattr(torch._C, '_get_privateuse1_backend_name', lambda: 'cpu')
    monkeypatch.setattr(
        MMDistributedDataParallel, '_passing_sync_batchnorm_handle', lambda *_: None
    )


def test_sync_bn_trains_a_detector_as_one_process_does_on_the_whole_batch(
    in_processes, train_steps, detector, batch, sync_bn_on_cpu
):
    # norms of a batch's own statistics make sixty times more of a rounding error each step
    batches = [batch(8) for _ in range(2)]
    detector.train()

    def work(rank):
        synced = convert_sync_batchnorm(detector)
        parts = [share(each, rank, 2) for each in batches]
        found = train_steps(synced, parts, MMDistributedDataParallel(synced))
        return found | dict(statistics=statistics(synced))

    def statistics(model):
        return {key: value for key, value in model.named_buffers() if 'running' in key}

    found = in_processes(2, work)
    expected = train_steps(detector, batches)
    expected['statistics'] = statistics(detector)
    for each in found:
        for part, values in expected.items():
            assert_close(each[part], values)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_sync_bn_trains_as_one_process_does_on_the_whole_batch(in_processes):
    def step(model, x):
        model.cuda().train()(x.cuda()).square().mean().backward()
        return {key: value.grad.cpu() for key, value in model.named_parameters()}

    net = nn.Sequential(
        CondConv2d(3, 8, 3, num_experts=2), nn.BatchNorm2d(8), CondConv2d(8, 4, 1, num_experts=2)
    )
    x = torch.randn(4, 3, 16, 16)

    def work(rank):
        synced = convert_sync_batchnorm(net).cuda()
        parallel = MMDistributedDataParallel(synced, device_ids=[0])
        parallel(x[2 * rank : 2 * rank + 2].cuda()).square().mean().backward()
        return {key: value.grad.cpu() for key, value in synced.named_parameters()}

    found = in_processes(2, work)  # first: a process that used a GPU cannot be forked
    assert_close(found[0], step(net, x), 1e-4)


def test_optimizer_states_shared_among_processes_train_the_same_weights(
    in_processes, train_steps, detector, batch
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
        assert_close(found, expected)


@pytest.mark.skipif(
    not hasattr(distributed.fsdp, 'fully_shard'), reason='torch 2.1 has no fully_shard'
)
def test_experts_sharded_by_fsdp2_get_the_gradients_of_the_whole_batch(in_processes, settle):
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
    assert_close(found[0], {key: value.grad for key, value in model.named_parameters()})


class Job:
    """A training in several processes, as a launcher starts them that does not watch them."""

    OPTIONS = (
        # mmengine wraps for a GPU unless told otherwise
        'model_wrapper_cfg.type=MMDistributedDataParallel',
        'model_wrapper_cfg.device_ids=None',
        'train_dataloader.batch_size=3',
        'env_cfg.dist_cfg.timeout=20',
    )

    def __init__(self, training, number):
        self.ranks = [type(training)(training.config, training.work_dir) for _ in range(number)]
        for rank, process in enumerate(self.ranks):
            process.log = training.work_dir.with_suffix(f'.{rank}.log')

    def start(self, *args):
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            port = probe.getsockname()[1]
        for rank, process in enumerate(self.ranks):
            joins = partial(set_rank, rank, len(self.ranks), port)
            process.start('--launcher', 'pytorch', *args, options=self.OPTIONS, before=joins)

    def wait(self):
        return [process.wait() for process in self.ranks]

    def wait_for(self, text):
        until = time.monotonic() + 120
        while text not in self.ranks[0].output():
            assert time.monotonic() < until, self.ranks[0].output()
            time.sleep(0.01)


def set_rank(rank, number, port):
    where = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
    where |= dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=number)
    os.environ.update({key: str(value) for key, value in where.items()})


@long
@pytest.mark.parametrize('number', [2, 4])
@pytest.mark.parametrize(
    'fate, says',
    [(signal.SIGKILL, ' by peer'), (signal.SIGSTOP, 'Timed out')],
    ids=['killed', 'stopped'],
)
def test_when_one_process_fails_the_others_end_and_the_job_resumes(
    training, tmp_path, assert_same_weights, number, fate, says
):
    whole = Job(type(training)(training.config, tmp_path / 'uninterrupted'), number)
    whole.start()
    assert whole.wait() == [0] * number, whole.ranks[0].output()

    job = Job(training, number)
    *others, victim = job.ranks
    job.start()
    try:
        job.wait_for('Saving checkpoint at 1 epochs')
        os.kill(victim._process.pid, fate)
        failed = time.monotonic()
        assert [process.wait() for process in others] == [1] * len(others)
        assert time.monotonic() - failed < 60
        assert any(says in process.output() for process in others)
    finally:
        for process in job.ranks:
            process.kill()
    assert [path.name for path in training.work_dir.glob('epoch_*')] == ['epoch_1.pth']

    job.start('--resume')
    assert job.wait() == [0] * number, others[0].output()
    assert 'resumed epoch: 1' in others[0].output()
    found, expected = training.weights(), whole.ranks[0].weights()
    if number == 2:
        assert_same_weights(found, expected)
    else:  # after a resume, more gradients than two are summed in another order
        networks = [key for key in expected if not key.startswith('optimizer')]
        assert_close(
            *({key: of[key].double() for key in networks} for of in (found, expected)), 1e-4
        )
