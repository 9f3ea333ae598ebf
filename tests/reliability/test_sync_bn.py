"""Norms whose statistics are those of all processes' batch."""

import pytest
import torch
from mmengine.model import MMDistributedDataParallel, convert_sync_batchnorm
from mmengine.registry import MODELS
from processes import assert_near, in_processes, share
from torch import nn

from condconv_det import CondConv2d


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


@pytest.mark.long
def test_sync_bn_trains_a_detector_as_one_process_does_on_the_whole_batch(
    train_steps, detector, batch, sync_bn_on_cpu
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
            assert_near(each[part], values)


@pytest.mark.gpu
def test_sync_bn_trains_as_one_process_does_on_the_whole_batch():
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
    assert_near(found[0], step(net, x), 1e-4)
