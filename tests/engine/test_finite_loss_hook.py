from contextlib import contextmanager

import pytest
import torch
from mmengine.hooks import EMAHook
from mmengine.model import BaseModel
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.runner import Runner
from torch import nn
from torch.optim import SGD
from torch.utils.data import DataLoader, Dataset

from condconv_det import CondConv2d
from condconv_det.compat.checkpoints import load_from_local
from condconv_det.engine import FiniteLossHook


class Images(Dataset):
    def __init__(self, length=8, broken_at=None):
        self.length, self.broken_at = length, broken_at

    def __len__(self):
        return self.length

    def __getitem__(self, index):
        image = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(index))
        return image / 0 if index == self.broken_at else image


class Root(nn.Module):
    """The square root of 1 until its call number `fails_at`, of -1 from then on."""

    def __init__(self, fails_at):
        super().__init__()
        self.calls, self.fails_at = 0, fails_at

    def forward(self, x):
        self.calls += self.training
        return x * torch.tensor(1.0 if self.calls < self.fails_at else -1.0).sqrt()


class Net(BaseModel):
    def __init__(self, fails_at=1000, loss=torch.square):
        super().__init__()
        self.stem = CondConv2d(3, 4, 3, num_experts=2)
        self.body = nn.Sequential(
            nn.BatchNorm2d(4), Root(fails_at), CondConv2d(4, 2, 3, num_experts=2)
        )
        self.loss = loss

    def forward(self, images, mode):
        return dict(loss=self.loss(self.body(self.stem(images))).mean())

    def _run_forward(self, data, mode):
        return self(torch.stack(data), mode)


class AutocastWrapper(OptimWrapper):
    """Autocast where the model is; mmengine's own AMP runs on GPUs alone."""

    dtype = torch.bfloat16

    @contextmanager
    def optim_context(self, model):
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, self.dtype):
            yield


@pytest.fixture
def train(tmp_path):
    def train(model, lr=0.01, images=None, epochs=3, wrapper=OptimWrapper, **kwargs):
        runner = Runner(
            model,
            str(tmp_path),
            train_dataloader=DataLoader(images or Images(), 2, collate_fn=list),
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            optim_wrapper=wrapper(SGD(model.parameters(), lr)),
            custom_hooks=[FiniteLossHook(), EMAHook()],
            **kwargs,
        )
        runner.train()

    return train


# torch 2.1 has no float16 autocast on a CPU.
HALVES = [torch.bfloat16] + [torch.float16] * hasattr(torch.amp, 'is_autocast_available')


def test_finite_losses_pass(train, tmp_path):
    train(Net())
    assert (tmp_path / 'epoch_3.pth').exists()


@pytest.mark.parametrize('dtype', [torch.float32, *HALVES], ids=str)
def test_the_first_layer_that_fails_is_named_and_the_step_is_not_taken(
    train, tmp_path, dtype, monkeypatch
):
    monkeypatch.setattr(AutocastWrapper, 'dtype', dtype)
    model = Net(fails_at=6)
    with pytest.raises(FloatingPointError) as error:
        train(model, wrapper=OptimWrapper if dtype == torch.float32 else AutocastWrapper)
    assert 'loss is nan at iteration 6: the output of body.1 (Root) is not' in str(error.value)
    assert f'the last checkpoint is {tmp_path}/epoch_1.pth' in str(error.value)
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_1.pth']


def test_a_parameter_that_is_not_finite_is_named(train):
    model = Net()
    nn.init.constant_(model.body[2].weight[1, 0], float('inf'))
    with pytest.raises(FloatingPointError, match='parameter body.2.weight is not finite; no check'):
        train(model)


def test_images_that_are_not_finite_are_the_first_layers_input(train):
    with pytest.raises(FloatingPointError, match='iteration 3: the input of stem.router '):
        train(Net(), images=Images(broken_at=5))


@pytest.mark.skipif(torch.float16 not in HALVES, reason='torch 2.1 has none on a CPU')
def test_float16_that_overflows_is_the_convolutions_not_the_routers(train, monkeypatch):
    monkeypatch.setattr(AutocastWrapper, 'dtype', torch.float16)
    edge = [image.sign() * 6e4 for image in map(Images().__getitem__, range(8))]
    with pytest.raises(FloatingPointError, match=r'the output of stem \(CondConv2d\) is not'):
        train(Net(), images=edge, wrapper=AutocastWrapper)


def test_a_loss_that_fails_by_itself_is_told_from_the_layers(train):
    def log_of_zero(outputs):
        return (outputs - outputs).log()

    with pytest.raises(FloatingPointError, match='loss is -inf .* all layers are finite'):
        train(Net(loss=log_of_zero))


@pytest.mark.parametrize('dtype', [torch.float32, *HALVES], ids=str)
def test_a_learning_rate_far_too_high_stops_and_keeps_the_last_good_checkpoint(
    train, tmp_path, dtype, monkeypatch
):
    monkeypatch.setattr(AutocastWrapper, 'dtype', dtype)
    jump = dict(type='MultiStepLR', milestones=[5], gamma=1e25, by_epoch=False)
    wrapper = OptimWrapper if dtype == torch.float32 else AutocastWrapper
    with pytest.raises(FloatingPointError, match=f'not finite; .* is {tmp_path}/epoch_1.pth'):
        train(Net(), wrapper=wrapper, param_scheduler=jump)
    assert [path.name for path in tmp_path.glob('*.pth')] == ['epoch_1.pth']
    weights = load_from_local(str(tmp_path / 'epoch_1.pth'))['state_dict']
    assert all(value.isfinite().all() for value in weights.values())


def root_of_zero(outputs):
    """Finite, with a gradient that is not."""
    return (outputs.mean() * 0).abs().sqrt()


def test_a_checkpoint_of_weights_that_are_not_finite_is_not_written(train, tmp_path):
    with pytest.raises(FloatingPointError, match='stem.* is not finite after iteration 1: no'):
        train(Net(loss=root_of_zero), images=Images(2))
    assert not list(tmp_path.glob('*.pth'))


class SkippingWrapper(OptimWrapper):
    """Takes no step, like a gradient scaler that met gradients that are not finite."""

    def step(self):
        pass


def test_gradients_may_overflow_where_a_scaler_skips_the_step(train, tmp_path):
    train(Net(loss=root_of_zero), wrapper=SkippingWrapper)
    assert (tmp_path / 'epoch_3.pth').exists()


def test_the_loss_counts_even_where_the_step_is_skipped(train):
    with pytest.raises(FloatingPointError, match=r'iteration 2: the output of body.1 \(Root\)'):
        train(Net(fails_at=2), wrapper=SkippingWrapper)


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_mmengines_amp_on_a_gpu_stops_at_the_layer_too(train, dtype):
    def amp(optimizer):
        return AmpOptimWrapper(dtype=dtype, optimizer=optimizer)

    with pytest.raises(FloatingPointError, match=r'iteration 6: the output of body.1 \(Root\)'):
        train(Net(fails_at=6), wrapper=amp)
