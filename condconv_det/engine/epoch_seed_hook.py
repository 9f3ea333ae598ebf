"""Random numbers that a resumed training draws again."""

from functools import partial
from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import EpochBasedTrainLoop, Runner, set_random_seed


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Draws an epoch's random numbers from the run's seed and the epoch's number alone.

    Resumed at the end of an epoch with the same seed and number of workers, a training then goes on
    as if it had not stopped. In mmengine, a resumed training starts over with the first epoch's
    random numbers; and workers that are not persistent augment every epoch with the same ones.

    Workers start anew each epoch, persistent or not, to take the new seed.

    A training that counts iterations in place of epochs draws them, but for its workers, from the
    seed and the iteration's number. Its workers need nothing: mmengine resumes by loading, and
    dropping, all batches before. Without workers (`num_workers=0`) that draws from the training's
    own random numbers, and the first batch after it is another one.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            return
        seed, worker_seed = _seeds(runner.seed, runner.epoch)
        self._set_seed(runner, seed)
        loader = runner.train_dataloader
        init = loader.worker_init_fn
        if isinstance(init, partial) and 'seed' in init.keywords:  # mmengine's, not the user's own
            loader.worker_init_fn = partial(init, seed=worker_seed)
            loader._iterator = None  # as mmdet's PipelineSwitchHook restarts persistent workers

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            self._set_seed(runner, _seeds(runner.seed, runner.iter)[0])

    def _set_seed(self, runner: Runner, seed: int) -> None:
        each_its_own = runner._randomness_cfg.get('diff_rank_seed', False)
        set_random_seed(seed, diff_rank_seed=each_its_own)


def _seeds(seed: int, step: int) -> list[int]:
    """Two seeds that have nothing in common with those of any other step; numpy takes 32 bits."""
    return (np.random.SeedSequence([seed, step]).generate_state(2) >> 1).tolist()
