"""Training that goes on past an image that cannot be read."""

import os
import tempfile
from collections import Counter
from itertools import chain, islice
from typing import Any

from mmengine.dataset import BaseDataset
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from condconv_det.compat.data_errors import ImageError
from condconv_det.data.leaf_datasets import leaf_datasets

NUM_NAMED = 10  # files in the log

_plain_prepare_data = BaseDataset.prepare_data


@HOOKS.register_module()
class SkipBrokenImagesHook(Hook):
    """Draws another image for one that cannot be read; logs each epoch how many and which.

    In training only: validation and test still stop, as a figure over fewer images would be a wrong
    one, also where a config leaves out `test_mode`. The log also comes before each validation, for
    a training that counts iterations.

    The workers get it from the process that forks them; where they are spawned, a broken image
    stops the training as it does without this hook.

    Args:
        max_in_a_row: after so many in one worker, training stops: they are no accident.

    Raises:
        ImageError: in training, `max_in_a_row` images one after the other could not be read.
    """

    def __init__(self, max_in_a_row: int = 10) -> None:
        if max_in_a_row < 1:
            raise ValueError(f'max_in_a_row must be at least 1, got {max_in_a_row}')
        self.max_in_a_row = max_in_a_row
        self._in_a_row = 0
        # Workers append to it, each line at once; iteration loops fork them before any hook runs.
        self._journal = tempfile.TemporaryFile('a+b', buffering=0)
        self._read_to = 0

        def prepare_data(dataset: BaseDataset, idx: int) -> Any:
            return self._prepare_data(dataset, idx)

        self._installed = BaseDataset.prepare_data = prepare_data

    def before_run(self, runner: Runner) -> None:
        BaseDataset.prepare_data = self._installed

    def before_val(self, runner: Runner) -> None:
        _measure(runner.val_dataloader.dataset)

    def before_test(self, runner: Runner) -> None:
        _measure(runner.test_dataloader.dataset)

    def after_train_epoch(self, runner: Runner) -> None:
        self._log(runner)

    def before_val_epoch(self, runner: Runner) -> None:
        self._log(runner)

    def after_run(self, runner: Runner) -> None:
        if BaseDataset.prepare_data is self._installed:
            BaseDataset.prepare_data = _plain_prepare_data

    def _prepare_data(self, dataset: BaseDataset, idx: int) -> Any:
        """The transformed sample, or None, for which mmengine draws another."""
        try:
            sample = _plain_prepare_data(dataset, idx)
        except ImageError as error:
            if dataset.test_mode:
                raise
            self._in_a_row += 1
            if self._in_a_row == self.max_in_a_row:
                raise ImageError(
                    f'{error}; nor could the {self._in_a_row - 1} images before it'
                ) from error
            line = ' '.join(str(error).split()) + '\n'
            self._journal.write(line.encode(errors='backslashreplace'))
            return None
        self._in_a_row = 0
        return sample

    def _log(self, runner: Runner) -> None:
        journal = self._journal.fileno()
        # not by read(), which would move the place that the workers share
        content = os.pread(journal, os.fstat(journal).st_size - self._read_to, self._read_to)
        self._read_to += len(content)
        skipped = Counter(chain.from_iterable(all_gather_object(content.decode().splitlines())))
        if not skipped:
            return
        lines = [f'  {line} ({times} times)' for line, times in islice(skipped.items(), NUM_NAMED)]
        if len(skipped) > NUM_NAMED:
            lines.append(f'  ... and {len(skipped) - NUM_NAMED} more')
        head = f'{skipped.total()} times another image was drawn for one that cannot be read:'
        runner.logger.warning('\n'.join([head, *lines]))


def _measure(dataset: Any) -> None:
    for part in leaf_datasets(dataset):
        part.test_mode = True
