import random
from functools import partial

import numpy as np
import pytest
import torch
from mmengine.dataset import worker_init_fn
from mmengine.runner import EpochBasedTrainLoop
from torch.utils.data import DataLoader, Dataset

from condconv_det.engine import EpochSeedHook


class Draws(Dataset):
    """What the three generators draw when a sample is loaded."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()])


class Runner:
    seed = 5
    _randomness_cfg = dict(seed=5)

    def __init__(self, loader, loop=EpochBasedTrainLoop):
        self.train_dataloader, self.train_loop = loader, loop.__new__(loop)

    def run_epoch(self, epoch):
        """All that an epoch draws, in its workers and beside them."""
        self.epoch = epoch
        EpochSeedHook().before_train_epoch(self)
        loaded = torch.cat(list(self.train_dataloader))
        return torch.cat([loaded, Draws()[0][None]])


def loader(num_workers=1, **kwargs):
    init = partial(worker_init_fn, num_workers=num_workers, rank=0, seed=5)
    return DataLoader(Draws(), 2, num_workers=num_workers, worker_init_fn=init, **kwargs)


@pytest.mark.parametrize(
    'kwargs',
    [dict(num_workers=0), dict(num_workers=2), dict(num_workers=2, persistent_workers=True)],
    ids=['no workers', 'workers', 'persistent workers'],
)
def test_a_resumed_epoch_draws_what_the_uninterrupted_run_draws_and_no_other_epoch_does(kwargs):
    runner = Runner(loader(**kwargs))
    first, second = runner.run_epoch(0), runner.run_epoch(1)
    assert torch.equal(Runner(loader(**kwargs)).run_epoch(1), second)
    assert len({value for value in torch.cat([first, second]).flatten().tolist()}) == 2 * 5 * 3


def test_each_process_draws_its_own_numbers_if_the_config_says_so(monkeypatch):
    drawn = []
    for rank in (0, 1):
        monkeypatch.setattr('mmengine.runner.utils.get_rank', lambda rank=rank: rank)
        for different in (False, True):
            runner = Runner(loader(num_workers=0))
            runner._randomness_cfg = dict(seed=5, diff_rank_seed=different)
            drawn.append(runner.run_epoch(0)[0, 0].item())
    assert drawn[0] == drawn[1] == drawn[2] != drawn[3]


def test_a_worker_init_fn_of_the_users_own_stays():
    own = DataLoader(Draws(), 2, num_workers=1, worker_init_fn=partial(worker_init_fn, 0))
    init = own.worker_init_fn
    runner = Runner(own)
    runner.epoch = 1
    EpochSeedHook().before_train_epoch(runner)
    assert own.worker_init_fn is init


def test_without_epochs_the_iteration_seeds_the_main_process():
    from mmengine.runner import IterBasedTrainLoop

    runner = Runner(loader(), IterBasedTrainLoop)
    drawn = []
    for runner.iter in (0, 1, 1):
        EpochSeedHook().before_train_iter(runner, runner.iter)
        drawn.append(Draws()[0].tolist())
    assert drawn[1] == drawn[2] and not {*drawn[0]} & {*drawn[1]}
