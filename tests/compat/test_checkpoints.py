import collections
import functools
import os
import pickle
import random
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.logging import MessageHub
from mmengine.optim import OneCycleParamScheduler
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import checkpoint as mmengine_checkpoint
from mmengine.runner.checkpoint import CheckpointLoader, load_checkpoint

from condconv_det.compat.checkpoints import CheckpointError


class RunsCode:
    def __reduce__(self):
        return os.system, ('touch ran',)


@pytest.fixture
def save(tmp_path):
    def save(content, **kwargs):
        path = tmp_path / 'checkpoint.pth'
        torch.save(content, path, **kwargs)
        return str(path)

    return save


def whole_checkpoint():
    """What mmengine's runner saves, with every kind of scalar that a log may hold."""
    hub = MessageHub('test_checkpoints')
    hub.update_scalar('train/loss', 1.5)
    hub.update_scalar('train/loss', np.float32(0.5))
    hub.update_scalar('train/lr', torch.tensor(0.25))
    hub.update_info('iter', 3)
    hub.update_info('seed', np.int64(7))
    return dict(
        meta=dict(epoch=1, dataset_meta=dict(classes=('a', 'b'), sites=ConfigDict(a=dict(id=1)))),
        message_hub=hub.state_dict(),
        state_dict=torch.nn.Conv2d(3, 4, 1).state_dict(),
        param_schedulers=[dict(milestones=collections.Counter([8, 11]))],  # MultiStepLR's
    )


@pytest.mark.parametrize('zipped', [True, False])
def test_mmengines_own_checkpoint_loads_whole(save, zipped):
    path = save(whole_checkpoint(), _use_new_zipfile_serialization=zipped)
    loaded = CheckpointLoader.load_checkpoint(path, 'cpu')
    history = loaded['message_hub']['log_scalars']['train/loss']
    assert history.data[0].tolist() == [1.5, 0.5] and history.mean() == 1.0
    assert loaded['message_hub']['runtime_info']['seed'] == 7
    assert loaded['meta']['dataset_meta']['sites'] == dict(a=dict(id=1))
    assert loaded['state_dict']['weight'].shape == (4, 3, 1, 1)


SCHEDULES = dict(
    Step=dict(step_size=2),
    MultiStep=dict(milestones=[2, 4]),
    Exponential=dict(gamma=0.9),
    CosineAnnealing=dict(T_max=6),
    OneCycle=dict(eta_max=1.0, total_steps=6),
    CosineRestart=dict(periods=[3, 3], restart_weights=[1, 0.5], eta_min=0.0),
)


def schedule(name, **kwargs):
    """One of mmengine's schedulers, and the optimizer whose learning rate or momentum it sets."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.5, momentum=0.5)
    family = name.removesuffix('ParamScheduler').removesuffix('LR').removesuffix('Momentum')
    if name.endswith('ParamScheduler'):
        kwargs['param_name'] = 'lr'
    config = dict(type=name, **SCHEDULES.get(family, {}), **kwargs)
    return PARAM_SCHEDULERS.build(config, default_args=dict(optimizer=optimizer)), optimizer


def go_on(scheduler, optimizer):
    """What it sets in the next three steps."""
    monitored = [dict(loss=1.0)] if 'ReduceOnPlateau' in type(scheduler).__name__ else []
    values = []
    for _ in range(3):
        optimizer.step()
        scheduler.step(*monitored)
        values.append((optimizer.param_groups[0]['lr'], optimizer.param_groups[0]['momentum']))
    return values


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize(
    'name, options',
    [
        *((name, {}) for name in sorted(PARAM_SCHEDULERS.module_dict)),
        ('OneCycleLR', dict(anneal_strategy='linear')),
    ],
)
def test_each_schedule_goes_on_from_its_checkpoint(save, name, options, zipped):
    first, optimizer = schedule(name, **options)
    go_on(first, optimizer)
    content = dict(param_schedulers=[first.state_dict()], optimizer=optimizer.state_dict())
    path = save(content, _use_new_zipfile_serialization=zipped)
    loaded = CheckpointLoader.load_checkpoint(path, 'cpu')
    second, other = schedule(name, **options)
    second.load_state_dict(loaded['param_schedulers'][0])
    other.load_state_dict(loaded['optimizer'])
    assert go_on(second, other) == go_on(first, optimizer)


def test_loads_into_a_model_through_mmengine(save):
    model = torch.nn.Conv2d(3, 4, 1)
    load_checkpoint(model, save(whole_checkpoint()), strict=True)


@pytest.mark.parametrize('zipped', [True, False])
@pytest.mark.parametrize(
    'content, name',
    [
        (RunsCode(), 'posix.system'),
        (functools.partial(print, 'hello'), 'functools.partial'),
        (dict(state_dict={}, hook=collections.deque()), 'collections.deque'),
    ],
)
def test_any_other_class_is_refused_by_name(save, tmp_path, monkeypatch, content, name, zipped):
    monkeypatch.chdir(tmp_path)
    path = save(content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=f'{path} holds .*{name}'):
        CheckpointLoader.load_checkpoint(path)
    assert not (tmp_path / 'ran').exists()


class Calls:
    """Pickles as a call."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


def test_getattr_reaches_nothing_but_statistics_and_annealing(save):
    from mmengine.logging import HistoryBuffer

    for owner, name in (
        (HistoryBuffer, '__init__'),
        (np.ndarray, 'tofile'),
        (OneCycleParamScheduler, '__init__'),
        (OneCycleParamScheduler, 'step'),
        (HistoryBuffer, '_annealing_cos'),
    ):
        with pytest.raises(CheckpointError, match='getattr'):
            CheckpointLoader.load_checkpoint(save(Calls(getattr, owner, name)))


def test_a_scheduler_is_never_built(save, monkeypatch):
    built = []
    monkeypatch.setattr(OneCycleParamScheduler, '__init__', lambda *_: built.append('called'))
    for content in (Calls(OneCycleParamScheduler, 1), object.__new__(OneCycleParamScheduler)):
        with pytest.raises(CheckpointError):
            CheckpointLoader.load_checkpoint(save(content))
    assert built == []


def test_damaged_files_are_named(tmp_path, save):
    whole = save(whole_checkpoint())
    data = open(whole, 'rb').read()
    for content in (b'', b'not a checkpoint', data[: len(data) // 2], data[:-10]):
        path = tmp_path / 'damaged.pth'
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match='damaged.pth is not a whole checkpoint'):
            CheckpointLoader.load_checkpoint(str(path))


def test_damaged_files_in_the_format_before_torch_1_6_are_named(tmp_path, save):
    weights = collections.OrderedDict(weight=torch.randn(4, 3, 1, 1))
    whole = save(dict(meta={}, state_dict=weights), _use_new_zipfile_serialization=False)
    data = Path(whole).read_bytes()
    path = tmp_path / 'damaged.pth'
    rng = random.Random(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(data)
        if rng.random() < 0.5:
            damaged = damaged[: rng.randrange(len(data))]
        else:
            damaged[rng.randrange(len(data))] ^= rng.randrange(1, 256)
        path.write_bytes(damaged)
        try:
            CheckpointLoader.load_checkpoint(str(path), 'cpu')
        except CheckpointError as error:
            assert 'damaged.pth' in str(error)
            refused += 1
    assert refused > 100  # it has no checksums: a byte of a weight may change


def test_one_flipped_bit_in_the_weights_is_noticed(tmp_path, save):
    weights = torch.randn(4, 3, 1, 1)
    whole = save(dict(state_dict=dict(weight=weights)))
    data = bytearray(open(whole, 'rb').read())
    data[data.index(weights.numpy().tobytes()) + 5] ^= 1
    path = tmp_path / 'flipped.pth'
    path.write_bytes(data)
    assert not torch.equal(torch.load(path, weights_only=True)['state_dict']['weight'], weights)
    with pytest.raises(CheckpointError, match='flipped.pth is not .* Bad CRC-32 .*data/0'):
        CheckpointLoader.load_checkpoint(str(path))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='nowhere.pth does not exist'):
        CheckpointLoader.load_checkpoint(str(tmp_path / 'nowhere.pth'))


def test_downloads_are_checked_too(save, tmp_path, monkeypatch):
    from condconv_det.compat import checkpoints

    path = save(RunsCode())
    cache = tmp_path / 'cache'
    with pytest.raises(CheckpointError, match='posix.system'):
        checkpoints.load_from_url(f'file://{path}', model_dir=str(cache))
    assert [file.name for file in cache.iterdir()] == ['checkpoint.pth']


@pytest.mark.parametrize('scheme', ['pavi', 's3', 'petrel', 'cluster:s3'])
def test_no_other_loader_runs_what_a_file_says(save, tmp_path, monkeypatch, scheme):
    """Of a storage service whose client hands out a hostile file."""
    monkeypatch.chdir(tmp_path)
    path = Path(save(RunsCode()))
    model = SimpleNamespace(name='model', download=lambda to: shutil.copy(path, to))
    pavi = SimpleNamespace(modelcloud=SimpleNamespace(get=lambda name: model))
    monkeypatch.setitem(sys.modules, 'pavi', pavi)
    backend = SimpleNamespace(get=lambda name: path.read_bytes())
    monkeypatch.setattr(mmengine_checkpoint, 'get_file_backend', lambda *_, **__: backend)
    with pytest.raises((CheckpointError, pickle.UnpicklingError)):
        CheckpointLoader.load_checkpoint(f'{scheme}://bucket/model.pth', 'cpu')
    assert not Path('ran').exists()
