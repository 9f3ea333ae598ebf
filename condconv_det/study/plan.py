"""A study file read: which trainings it asks for."""

import re
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config

from condconv_det.layers.cond_cfg import check_keys

from .work_dirs import is_trained, read_metrics, schedule_options

SPLITS = ('val', 'test')


@dataclass(frozen=True)
class Arm:
    """One way to train, the same for every seed.

    Args:
        name: of its folder and its row in the table.
        cfg: the config with the arm's options and the study's length.
        start_from: name of the arm whose checkpoint of the same seed it starts from; None starts as
            the config says.
    """

    name: str
    cfg: Config
    start_from: str | None = None


@dataclass(frozen=True)
class Study:
    """Arms, each to be trained with every seed.

    Args:
        arms: by name; an arm that another one starts from comes before it.
        baseline: the arm that the others are compared with.
        seeds: one training of each arm for each.
        epochs: of every training.
    """

    arms: dict[str, Arm] = field(repr=False)
    baseline: str
    seeds: tuple[int, ...]
    epochs: int

    @classmethod
    def fromfile(cls, path: Path) -> 'Study':
        """Reads a study file; its configs' paths count from its own folder.

        Raises:
            FileNotFoundError: the study, or the config of an arm, does not exist.
            ValueError: a key is unknown or missing, or a value does not make sense.
        """
        given = Config.fromfile(path, lazy_import=False).to_dict()
        missing = {'arms', 'baseline', 'epochs', 'seeds'} - set(given)
        if missing:
            raise ValueError(f'{path} lacks {sorted(missing)}')
        arms, seeds, epochs = given['arms'], tuple(given['seeds']), given['epochs']
        if not isinstance(epochs, int) or epochs < 1:
            raise ValueError(f'{path}: epochs must be at least 1, got {epochs!r}')
        if not seeds or len(set(seeds)) < len(seeds):
            raise ValueError(f'{path}: seeds must be different numbers, got {seeds}')
        if given['baseline'] not in arms:
            raise ValueError(f'{path}: baseline {given["baseline"]!r} is none of {list(arms)}')
        for name in arms:
            if not re.fullmatch(r'\w[\w.-]*', name):
                raise ValueError(f'{path}: an arm is named like a folder, got {name!r}')
        ordered = _in_order_of_start(path, arms)
        return cls(
            {name: _read_arm(path, name, arms[name], epochs) for name in ordered},
            given['baseline'],
            seeds,
            epochs,
        )


def _in_order_of_start(path: Path, arms: dict[str, dict]) -> list[str]:
    """Arms' names as given, but each after the one it starts from."""
    ordered: list[str] = []
    waiting = list(arms)
    while waiting:
        ready = [name for name in waiting if arms[name].get('start_from') in (None, *ordered)]
        if not ready:
            starts = {name: arms[name]['start_from'] for name in waiting}
            raise ValueError(
                f'{path}: start_from must lead to an arm that starts on its own, got {starts}'
            )
        ordered += ready
        waiting = [name for name in waiting if name not in ready]
    return ordered


def _read_arm(path: Path, name: str, arm: dict, epochs: int) -> Arm:
    label = f'{path}: arm {name!r}'
    known = ['cfg_options', 'config', 'custom_hooks', 'start_from']
    check_keys(label, arm, known, required=['config'])
    config = path.parent / arm['config']
    if not config.is_file():
        raise FileNotFoundError(f'{label}: its config {config} does not exist')
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(schedule_options(cfg, epochs))
    cfg.merge_from_dict(arm.get('cfg_options', {}))
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), *arm.get('custom_hooks', [])]
    # what a study keeps: two checkpoints to resume from, while one is being written
    cfg.default_hooks.checkpoint.update(max_keep_ckpts=2, save_best=None)
    for split in SPLITS:
        evaluator = cfg.get(f'{split}_evaluator')
        if not isinstance(evaluator, dict) or evaluator.get('type') != 'CocoMetric':
            raise ValueError(f'{label}: {split}_evaluator must be one CocoMetric, got {evaluator}')
    return Arm(name, cfg, arm.get('start_from'))


@dataclass(frozen=True)
class Run:
    """An arm trained with one seed, and tested.

    Args:
        arm, seed, epochs: what to train, and how long.
        out: folder of the whole study.
        start: the run whose checkpoint this one starts from.
    """

    arm: str
    seed: int
    epochs: int
    out: Path
    start: 'Run | None' = None

    @property
    def name(self) -> str:
        return f'{self.arm} seed {self.seed}'

    @property
    def work_dir(self) -> Path:
        return self.out / self.arm / f'seed{self.seed}'

    @property
    def checkpoint(self) -> Path:
        return self.work_dir / f'epoch_{self.epochs}.pth'

    def predictions(self, split: str) -> Path:
        """COCO results of the trained network."""
        return self.work_dir / split / 'predictions.bbox.json'

    @property
    def is_done(self) -> bool:
        return not self.commands()

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
                    runs[arm.name, seed] = Run(arm.name, seed, study.epochs, out, start)
    return list(runs.values())


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
            pairs = zip(path.read_text().splitlines(), texts[path].splitlines())
            before, now = next((pair for pair in pairs if pair[0] != pair[1]), ('', ''))
            raise ValueError(
                f'{path.parent} holds trainings with {before.strip()!r}, where the study now says '
                f'{now.strip()!r}; give another --out, or change the study back'
            )
    for path, text in texts.items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
