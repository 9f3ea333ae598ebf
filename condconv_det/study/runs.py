"""The trainings that a study asks for, and what is left of each to do."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

from condconv_det.data.whole_files import written_whole

from .plan import SPLITS, Study, named
from .work_dirs import CHECKPOINTS, is_trained, read_metrics, trained_length


@dataclass(frozen=True)
class Run:
    """An arm trained with one seed, and tested.

    Args:
        arm, seed, length: what to train, and how long, in `unit`.
        out: folder of the whole study.
        metric: the figure that counts, as tests name it.
        start: the run whose checkpoint this one starts from.
        unit: 'epochs' or 'iterations'.
    """

    arm: str
    seed: int
    length: int
    out: Path
    metric: str = 'coco/bbox_mAP'
    start: 'Run | None' = None
    unit: str = 'epochs'

    @property
    def name(self) -> str:
        return f'{self.arm} seed {self.seed}'

    @property
    def work_dir(self) -> Path:
        return self.out / self.arm / f'seed{self.seed}'

    @property
    def checkpoint(self) -> Path:
        return self.work_dir / CHECKPOINTS[self.unit].format(self.length)

    def predictions(self, split: str) -> Path:
        """COCO results of the trained network."""
        return self.work_dir / split / 'predictions.bbox.json'

    @property
    def is_done(self) -> bool:
        return not self.commands()

    def measured(self, split: str) -> float:
        """The metric on a split of a run that is done; 0 where nothing was detected."""
        return read_metrics(self.work_dir / split).get(self.metric, 0)

    @property
    def trained_part(self) -> float:
        """How much of the training is saved, of 1."""
        return min(1, trained_length(self.work_dir) / self.length)

    def commands(self) -> list[tuple[str, ...]]:
        """What is left to do: command lines of tools/, without their folder."""
        left: list[tuple[str, ...]] = []
        if not is_trained(self.checkpoint):
            left.append(self._train_command())
        for split in SPLITS:
            if left or read_metrics(self.work_dir / split) is None:
                left.append(
                    (
                        *('test.py', str(config_file(self.out, self.arm, split))),
                        *(str(self.checkpoint), '--work-dir', str(self.work_dir / split)),
                        '--cfg-options',
                        f'test_evaluator.outfile_prefix={self.work_dir / split / "predictions"}',
                    )
                )
        return left

    def _train_command(self) -> tuple[str, ...]:
        options = [f'randomness.seed={self.seed}']
        # with `--resume` the training script forgets `load_from`
        resume = (self.work_dir / 'last_checkpoint').exists()
        if self.start is not None and not resume:
            options.append(f'load_from={self.start.checkpoint}')
        return (
            *('train.py', str(config_file(self.out, self.arm))),
            *('--work-dir', str(self.work_dir)),
            *(('--resume',) if resume else ()),
            *('--cfg-options', *options),
        )


def config_file(out: Path, arm: str, split: str = 'test') -> Path:
    """The config that an arm is trained and tested with, or tested on another split."""
    return out / arm / ('config.py' if split == 'test' else f'config_{split}.py')


def plan_runs(study: Study, out: Path) -> list[Run]:
    """All runs of a study, each after the one it starts from, and one seed of all arms first."""
    runs: dict[tuple[str, int], Run] = {}
    for starts_alone in (True, False):
        for seed in study.seeds:
            for arm in study.arms.values():
                if (arm.start_from is None) == starts_alone:
                    start = runs.get((arm.start_from, seed))
                    runs[arm.name, seed] = Run(
                        arm.name, seed, study.length, out, arm.metric, start, study.unit
                    )
    return list(runs.values())


def best_rates(study: Study, runs: Sequence[Run]) -> dict[str, float]:
    """The learning rate at which each arm of a study is best on val, among runs that are done.

    Raises:
        ValueError: of an arm none is done.
    """
    on_val = {run.arm: run.measured('val') for run in runs if run.is_done}
    best = {}
    for name, arm in study.arms.items():
        tried = [rate for rate in arm.learning_rates if named(name, rate) in on_val]
        if not tried:
            raise ValueError(f'arm {name!r} failed at every learning rate of the study')
        best[name] = max(tried, key=lambda rate: on_val[named(name, rate)])
    return best


def write_configs(study: Study, out: Path) -> None:
    """Writes each arm's configs into its folder, for its command lines.

    Raises:
        ValueError: an arm has begun to train there with another config.
    """
    texts: dict[Path, str] = {}
    for arm in study.arms.values():
        start = f'# starts from {arm.start_from or "scratch, or as the config says"}\n'
        on_val = arm.cfg.copy()
        on_val.test_dataloader, on_val.test_evaluator = (
            arm.cfg.val_dataloader,
            arm.cfg.val_evaluator,
        )
        path = config_file(out, arm.name)
        texts[path] = start + arm.cfg.pretty_text
        texts[config_file(out, arm.name, 'val')] = start + on_val.pretty_text
        if list(path.parent.glob('seed*')) and path.read_text() != texts[path]:
            lines = (text.splitlines() for text in (path.read_text(), texts[path]))
            pairs = zip_longest(*lines, fillvalue='')
            before, now = next((pair for pair in pairs if pair[0] != pair[1]), ('', ''))
            raise ValueError(
                f'{path.parent} holds trainings with {before.strip()!r}, where the study now says '
                f'{now.strip()!r}; give another --out, or change the study back'
            )
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        with written_whole(path) as partial:
            partial.write_text(text)
