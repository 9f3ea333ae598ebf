"""A study file read: what it compares."""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mmdet.registry import DATASETS
from mmengine.config import Config
from numpy import ndarray

from condconv_det.analysis.configs import errors_named, load_config, type_name
from condconv_det.analysis.cost import image_size
from condconv_det.analysis.groups import image_groups
from condconv_det.data.leaf_datasets import leaf_datasets
from condconv_det.layers.cond_cfg import check_keys

from .work_dirs import MAX_KEYS, schedule_options, schedulers

SPLITS = ('val', 'test')
METRICS = ('CocoMetric', 'GroupedCocoMetric')
ARM_KEYS = (
    'baseline',
    'cfg_options',
    'config',
    'custom_hooks',
    'equal_cost',
    'learning_rates',
    'start_from',
)
CHECKPOINT = dict(save_last=True, save_begin=0, filename_tmpl=None, out_dir=None)
# at what time hooks change the training, counted from its start or from its end
TIMES = {
    'epochs': ('switch_epoch', 'num_last_epochs', 'begin_epoch'),
    'iterations': ('begin_iter',),
}
COSTS = ('multiply_adds', 'seconds_per_image')


@dataclass(frozen=True)
class EqualCost:
    """What an arm is to cost.

    Args:
        to: name of the arm that costs as much.
        by: 'multiply_adds', of one image, or 'seconds_per_image', see `time_per_image`.
        variants: options of the arm's config, of which those that come nearest are taken.
    """

    to: str
    by: str
    variants: tuple[dict[str, Any], ...] = field(repr=False)


@dataclass(frozen=True)
class Arm:
    """One way to train, the same for every seed.

    Args:
        name: of its folder and its row in the table.
        cfg: the config with the arm's options and the study's length.
        baseline: name of the arm that it is compared with.
        start_from: name of the arm whose checkpoint of the same seed it starts from; None starts as
            the config says.
        learning_rates: from which it gets the best; none leaves the config's.
        equal_cost: what it is to cost, which `fit_costs` sees to; None is whatever it costs.
    """

    name: str
    cfg: Config
    baseline: str
    start_from: str | None = None
    learning_rates: tuple[float, ...] = ()
    equal_cost: EqualCost | None = None

    def annotations(self, split: str) -> str:
        """COCO json of a split."""
        return self.cfg[f'{split}_evaluator'].ann_file

    @property
    def metric(self) -> str:
        """The figure that counts, as validation logs it."""
        return self.metric_of('val')

    def metric_of(self, split: str) -> str:
        """The figure that counts on a split, one for all of a study."""
        return f'coco/{self.cfg[f"{split}_evaluator"].get("group_by", "bbox")}_mAP'

    def at_rate(self, rate: float) -> 'Arm':
        """The arm at another learning rate, which its name says."""
        cfg = copy.deepcopy(self.cfg)
        cfg.optim_wrapper.optimizer.lr = rate
        return replace(self, name=named(self.name, rate), cfg=cfg, learning_rates=())

    def groups(self, split: str) -> dict[str, ndarray]:
        """The groups of images whose mAP's mean counts, by name; none where all are one."""
        key = self.cfg[f'{split}_evaluator'].get('group_by')
        return image_groups(self.annotations(split), key) if key else {}

    def classes(self, split: str) -> Sequence[str] | None:
        """Those of a split that count; None is all."""
        dataset = next(leaf_datasets(self.cfg[f'{split}_dataloader'].dataset))
        kind = dataset.type if isinstance(dataset.type, type) else DATASETS.get(dataset.type)
        # a class may have its own, and a text is the file that lists them
        return kind._load_metainfo(dataset.get('metainfo')).get('classes')


@dataclass(frozen=True)
class Study:
    """Arms, each to be trained with every seed.

    Args:
        arms: by name; an arm that another one starts from comes before it.
        baseline: the arm that the others are compared with, unless they name one of their own.
        seeds: one training of each arm for each.
        length: of every training, in `unit`.
        unit: what the configs count, 'epochs' or 'iterations'.
    """

    arms: dict[str, Arm] = field(repr=False)
    baseline: str
    seeds: tuple[int, ...]
    length: int
    unit: str = 'epochs'

    @property
    def chooses_rates(self) -> bool:
        """Whether each arm gets the learning rate that is best on val with the first seed."""
        return bool(self.arms[self.baseline].learning_rates)

    def at_all_rates(self) -> 'Study':
        """Every arm at each of its learning rates, with the first seed; all arms' first ones first.

        An arm is compared with its baseline at the rate of the same place.
        """
        rates = {name: arm.learning_rates for name, arm in self.arms.items()}
        arms = [
            replace(
                arm.at_rate(rates[name][place]),
                baseline=named(arm.baseline, rates[arm.baseline][place]),
            )
            for place in range(len(rates[self.baseline]))
            for name, arm in self.arms.items()
        ]
        baseline = named(self.baseline, rates[self.baseline][0])
        return self._of_arms(arms, baseline, self.seeds[:1])

    def at_rates(self, rates: Mapping[str, float]) -> 'Study':
        """Every arm at its own learning rate, with all seeds."""
        arms = [
            replace(arm.at_rate(rates[arm.name]), baseline=named(arm.baseline, rates[arm.baseline]))
            for arm in self.arms.values()
        ]
        baseline = named(self.baseline, rates[self.baseline])
        return self._of_arms(arms, baseline, self.seeds)

    def _of_arms(self, arms: Sequence[Arm], baseline: str, seeds: tuple[int, ...]) -> 'Study':
        by_name = {arm.name: arm for arm in arms}
        return replace(self, arms=by_name, baseline=baseline, seeds=seeds)

    @classmethod
    def fromfile(cls, path: Path) -> 'Study':
        """Reads a study file; its configs' paths count from its own folder.

        Raises:
            FileNotFoundError: the study, or the config of an arm, does not exist.
            ValueError: a key is unknown or missing, a value does not make sense, the baseline has
                experts, or images lack the key by which the metric groups them.
        """
        with errors_named(str(path)):
            try:
                given = Config.fromfile(path, lazy_import=False).to_dict()
            except SyntaxError as error:
                raise ValueError(f'{path} is not Python: {error}') from error
        missing = {'arms', 'baseline', 'seeds'} - set(given)
        if missing:
            raise ValueError(f'{path} lacks {sorted(missing)}')
        units = [unit for unit in MAX_KEYS if unit in given]
        if len(units) != 1:
            raise ValueError(
                f'{path} must have either epochs or iterations, got {units or "neither"}'
            )
        (unit,) = units
        arms, seeds, length = given['arms'], given['seeds'], given[unit]
        if type(length) is not int or length < 1:
            raise ValueError(f'{path}: {unit} must be at least 1, got {length!r}')
        if not _are_seeds(seeds):
            raise ValueError(
                f'{path}: seeds must be different integers of at least 0, got {seeds!r}'
            )
        if not isinstance(arms, dict) or not all(isinstance(arm, dict) for arm in arms.values()):
            raise ValueError(f'{path}: arms must be a dict of dicts, got {arms!r}')
        for name in arms:
            if not isinstance(name, str) or not re.fullmatch(r'\w[\w.-]*', name):
                raise ValueError(f'{path}: an arm is named like a folder, got {name!r}')
        baselines = {name: arm.get('baseline', given['baseline']) for name, arm in arms.items()}
        for baseline in (given['baseline'], *baselines.values()):
            if baseline not in list(arms):  # a list takes what cannot be hashed
                raise ValueError(f'{path}: baseline {baseline!r} is none of {list(arms)}')
        rates = _read_rates(path, given.get('learning_rates'), arms)
        ordered = _in_order_of_start(path, arms)
        read = {
            name: _read_arm(path, name, arms, baselines[name], rates[name], length, unit)
            for name in ordered
        }
        _check_comparable(path, read)
        if _has_experts(read[given['baseline']].cfg.get('model')):
            raise ValueError(
                f'{path}: baseline {given["baseline"]!r} must be a static network, which says what '
                f'experts bring; it has experts'
            )
        return cls(read, given['baseline'], tuple(seeds), length, unit)


def named(arm: str, rate: float) -> str:
    """An arm's name at a learning rate."""
    return f'{arm}_lr{rate:g}'


def _read_rates(path: Path, rates: Any, arms: dict[str, dict]) -> dict[str, tuple[float, ...]]:
    """The learning rates of each arm to choose from: its own, else the study's."""
    own = {name: arm['learning_rates'] for name, arm in arms.items() if 'learning_rates' in arm}
    if rates is None:
        if own:
            raise ValueError(
                f"{path}: arms {list(own)} have learning_rates, so the study must have the others'"
            )
        return dict.fromkeys(arms, ())
    labels = {f'arm {name!r}: learning_rates': given for name, given in own.items()}
    for label, given in {'learning_rates': rates, **labels}.items():
        numbers = isinstance(given, list | tuple) and all(
            isinstance(rate, int | float) and rate > 0 for rate in given
        )
        if not numbers or len(given) < 2:
            raise ValueError(
                f'{path}: {label} must be two or more above 0 to choose from, got {given!r}'
            )
        if len({named('', rate) for rate in given}) < len(given):
            raise ValueError(
                f'{path}: {label} must differ in six digits, by which folders are named, got '
                f'{given!r}'
            )
        if len(given) != len(rates):
            raise ValueError(
                f"{path}: {label} must be as many as the study's {rates!r}, one for each, got "
                f'{given!r}'
            )
    started = [name for name, arm in arms.items() if arm.get('start_from')]
    if started:
        raise ValueError(
            f'{path}: learning_rates are chosen for arms that start on their own, {started} start '
            f'from others: set optimizer.lr in their cfg_options and leave learning_rates out'
        )
    return {name: tuple(own.get(name, rates)) for name in arms}


def _are_seeds(seeds: Any) -> bool:
    return (
        isinstance(seeds, list | tuple)
        and len(seeds) > 0
        and all(type(seed) is int and seed >= 0 for seed in seeds)
        and len(set(seeds)) == len(seeds)
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


def _check_comparable(path: Path, arms: dict[str, Arm]) -> None:
    metrics = {}
    for split in SPLITS:
        for name, arm in arms.items():
            ours, theirs = (each.annotations(split) for each in (arm, arms[arm.baseline]))
            if ours != theirs:
                raise ValueError(
                    f'{path}: arm {name!r} and its baseline {arm.baseline!r} are compared on '
                    f'one {split} set, got {ours} and {theirs}'
                )
            metrics.setdefault(arm.metric_of(split), f'that of arm {name!r} on {split}')
    if len(metrics) > 1:
        found = ', '.join(f'{metric}, {whose}' for metric, whose in metrics.items())
        raise ValueError(
            f'{path}: all arms are scored by one metric and group_by on val and test, got {found}'
        )

    files = {arm.annotations(split): (arm, split) for arm in arms.values() for split in SPLITS}
    for file, (arm, split) in files.items():
        if Path(file).is_file():  # else tools/study.py names it
            with errors_named(file):
                arm.groups(split)


def _has_experts(part: Any) -> bool:
    """Whether a part of a model's config asks for experts."""
    if isinstance(part, list | tuple):
        return any(map(_has_experts, part))
    return isinstance(part, dict) and (
        'num_experts' in part or any(map(_has_experts, part.values()))
    )


def _read_equal_cost(path: Path, name: str, arms: dict[str, dict]) -> EqualCost | None:
    label = f'{path}: arm {name!r}: equal_cost'
    given = arms[name].get('equal_cost')
    if given is None:
        return None
    check_keys(label, given, ['by', 'to', 'variants'], required=['by', 'to', 'variants'])
    fixed = [other for other in arms if 'equal_cost' not in arms[other]]
    if given['to'] not in fixed:
        raise ValueError(
            f'{label}.to must be an arm of a given cost, of {fixed}, got {given["to"]!r}'
        )
    if given['by'] not in COSTS:
        raise ValueError(f'{label}.by must be one of {COSTS}, got {given["by"]!r}')
    variants = given['variants']
    dicts = isinstance(variants, list | tuple) and all(isinstance(each, dict) for each in variants)
    if not dicts or not variants:
        raise ValueError(f'{label}.variants must be a list of cfg_options, got {variants!r}')
    return EqualCost(given['to'], given['by'], tuple(variants))


def _read_arm(
    path: Path,
    name: str,
    arms: dict[str, dict],
    baseline: str,
    rates: tuple[float, ...],
    length: int,
    unit: str,
) -> Arm:
    arm = arms[name]
    label = f'{path}: arm {name!r}'
    check_keys(label, arm, ARM_KEYS, required=['config'])
    hooks = arm.get('custom_hooks', [])
    if not isinstance(arm['config'], str):
        raise ValueError(f'{label}: config must be a path, got {arm["config"]!r}')
    if not isinstance(hooks, list | tuple) or not all(isinstance(hook, dict) for hook in hooks):
        raise ValueError(f'{label}: custom_hooks must be a list of dicts, got {hooks!r}')
    config = path.parent / arm['config']
    if not config.is_file():
        raise FileNotFoundError(f'{label}: its config {config} does not exist')
    with errors_named(label):
        cfg = load_config(config)
        options = schedule_options(cfg, length, unit)
        planned = cfg.train_cfg[MAX_KEYS[unit]]
        cfg.merge_from_dict(options)
        cfg.merge_from_dict(arm.get('cfg_options', {}))
        cfg.custom_hooks = [*cfg.get('custom_hooks', []), *hooks]
        # what a study keeps: two checkpoints to resume from, while one is being written
        checkpoint = cfg.default_hooks.checkpoint
        checkpoint.update(max_keep_ckpts=2, save_best=None)
        # and one at the end, where a study looks for it
        expected = {**CHECKPOINT, 'by_epoch': unit == 'epochs'}
        checkpoint.update({key: expected[key] for key in expected if key in checkpoint})
    if cfg.train_cfg[MAX_KEYS[unit]] != length:
        raise ValueError(
            f'{label}: every training has {length} {unit}, got {cfg.train_cfg[MAX_KEYS[unit]]} by '
            f'cfg_options; an arm that starts from another one trains longer'
        )
    if any(type_name(hook.type) == 'EarlyStoppingHook' for hook in cfg.custom_hooks):
        raise ValueError(
            f'{label}: every training has {length} {unit}, but its EarlyStoppingHook may end one '
            'before; leave that out of custom_hooks'
        )
    for index, hook in enumerate(cfg.custom_hooks if length != planned else ()):
        for key in TIMES[unit]:
            if hook.get(key, 0) >= length:
                raise ValueError(
                    f'{label}: {type_name(hook.type)} changes the training at no time within '
                    f'{length} {unit}; set custom_hooks.{index}.{key}, got {hook[key]}'
                )
    if cfg.get('visualizer'):  # else mmengine's own, which has it
        backends = cfg.visualizer.get('vis_backends') or []
        if not any(type_name(backend.type) == 'LocalVisBackend' for backend in backends):
            # its log has the curves and the times of the table
            cfg.visualizer.vis_backends = [*backends, dict(type='LocalVisBackend')]
    for place, scheduler in schedulers(cfg).items():
        if rates and 'eta_max' in scheduler:
            raise ValueError(
                f'{label}: learning_rates change nothing where {place}, {scheduler.type}, sets the '
                f'rate by eta_max={scheduler.eta_max}; take another schedule, or no learning_rates'
            )
    for split in SPLITS:
        evaluator = cfg.get(f'{split}_evaluator')
        if isinstance(evaluator, list | tuple) and len(evaluator) == 1:
            (evaluator,) = evaluator
            cfg[f'{split}_evaluator'] = evaluator  # where later options find it
        _check_evaluator(f'{label}: {split}_evaluator', evaluator)
    try:
        image_size(cfg)
    except ValueError as error:
        raise ValueError(f'{label}: its cost could not be measured: {error}') from error
    equal_cost = _read_equal_cost(path, name, arms)
    return Arm(name, cfg, baseline, arm.get('start_from'), rates, equal_cost)


def _check_evaluator(label: str, evaluator: Any) -> None:
    """Raises ValueError unless it measures the mAP of boxes under the name that a study reads."""
    if not isinstance(evaluator, dict) or type_name(evaluator.get('type')) not in METRICS:
        raise ValueError(f'{label} must be one CocoMetric, got {evaluator}')
    if not evaluator.get('ann_file'):
        raise ValueError(f'{label} must name its annotations, ann_file')
    metric = evaluator.get('metric', 'bbox')
    wanted = {
        'metric': 'bbox' in ([metric] if isinstance(metric, str) else metric),
        'iou_thrs': evaluator.get('iou_thrs') is None,
        'metric_items': 'mAP' in (evaluator.get('metric_items') or ['mAP']),
        'prefix': evaluator.get('prefix') in (None, 'coco'),
        'format_only': not evaluator.get('format_only'),
    }
    for key, fits in wanted.items():
        if not fits:
            raise ValueError(f"{label} must measure 'coco/bbox_mAP', got {key}={evaluator[key]!r}")
