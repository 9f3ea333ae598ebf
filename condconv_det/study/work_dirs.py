"""What a training's folders tell: whether it ended, and what was measured after it."""

import json
import re
from pathlib import Path
from typing import Any

from mmengine.config import Config

# What a training counts: mmengine's keys for its length, and its checkpoints' names.
MAX_KEYS = {'epochs': 'max_epochs', 'iterations': 'max_iters'}
CHECKPOINTS = {'epochs': 'epoch_{}.pth', 'iterations': 'iter_{}.pth'}
# arguments by which a scheduler counts other than to its end
FIXED = {'gamma', 'milestones', 'periods', 'step_size', 'total_steps'}


def schedule_options(cfg: Config, length: int, unit: str = 'epochs') -> dict[str, Any]:
    """Options that make a config's training so long, with some twelve validations.

    Schedulers that end with the training still do; warm-ups that count steps stay as they are, and
    in a training of epochs nothing else may count steps. At the config's own length all stay.

    Args:
        length: in epochs or iterations, whatever the config counts.
        unit: which of them `length` is.

    Raises:
        ValueError: the training does not count in `unit`, or a scheduler has steps of its own, such
            as milestones, a part of the training or a warm-up that is longer.
    """
    planned = cfg.train_cfg.get(MAX_KEYS[unit])
    if planned is None:
        found = [other for other, key in MAX_KEYS.items() if key in cfg.train_cfg]
        raise ValueError(
            f'{cfg.filename}: train_cfg has no {MAX_KEYS[unit]}, so it cannot be resized to '
            f'{length} {unit}; it counts {" and ".join(found) or "neither epochs nor iterations"}'
        )
    interval = max(1, length // 12)
    options: dict[str, Any] = {
        f'train_cfg.{MAX_KEYS[unit]}': length,
        'train_cfg.val_interval': interval,
        'default_hooks.checkpoint.interval': interval,
    }
    resized = _resized_by_epochs if unit == 'epochs' else _resized_by_iterations
    for place, scheduler in schedulers(cfg).items() if length != planned else ():
        keys = None if FIXED & set(scheduler) else resized(scheduler, planned, length)
        if keys is None:
            raise ValueError(
                f'{cfg.filename}: {place}, {scheduler.type}, does not go evenly to the last of '
                f'{planned} {unit}, so it cannot be resized to {length}'
            )
        options.update({f'{place}.{key}': value for key, value in keys.items()})
    if cfg.train_cfg.get('val_begin', 1) > length:
        options['train_cfg.val_begin'] = 1
    if unit == 'iterations':
        logged = cfg.default_hooks.logger.get('interval', interval)
        options |= {
            'default_hooks.checkpoint.by_epoch': False,
            'default_hooks.logger.interval': min(logged, interval),
            # which would log all validations as epoch 0
            'default_hooks.logger.log_metric_by_epoch': False,
            'log_processor.by_epoch': False,
        }
    return options


def schedulers(cfg: Config) -> dict[str, Any]:
    """By their places in the config, where one may stand alone."""
    found = cfg.get('param_scheduler') or []
    if isinstance(found, dict):
        return dict(param_scheduler=found)
    return {f'param_scheduler.{index}': scheduler for index, scheduler in enumerate(found)}


def _resized_by_epochs(scheduler: Any, planned: int, length: int) -> dict[str, int] | None:
    """What changes of a scheduler; None if it cannot be resized."""
    if not scheduler.get('by_epoch', True):
        from_the_start = 'end' in scheduler and not scheduler.get('begin', 0)
        return {} if from_the_start and 'T_max' not in scheduler else None
    lasts = [key for key in ('T_max', 'end') if key in scheduler]
    if not lasts or any(scheduler[key] != planned for key in lasts):
        return None
    if scheduler.get('begin', 0):
        return None
    return dict.fromkeys(lasts, length)


def _resized_by_iterations(scheduler: Any, planned: int, length: int) -> dict[str, int] | None:
    """What changes of a scheduler; None if it cannot be resized."""
    begin, end = scheduler.get('begin', 0), scheduler.get('end')
    if scheduler.get('by_epoch', True) or begin >= length:
        return None
    if 'T_max' not in scheduler and end is not None and end < planned:
        return {} if begin == 0 and end < length else None  # a warm-up
    lasts = {'T_max': planned - begin, 'end': planned}
    lasts = {key: last for key, last in lasts.items() if key in scheduler}
    if not lasts or any(scheduler[key] != last for key, last in lasts.items()):
        return None
    return {key: last - planned + length for key, last in lasts.items()}


def is_trained(checkpoint: Path) -> bool:
    """Whether a checkpoint, such as `epoch_60.pth`, is whole and its training's last."""
    last = checkpoint.with_name('last_checkpoint')  # written when the checkpoint is whole
    return last.exists() and Path(last.read_text()).name == checkpoint.name


def trained_length(work_dir: Path) -> int:
    """After how many epochs or iterations a training was saved last; 0 if it never was."""
    last = work_dir / 'last_checkpoint'
    named = re.search(r'_(\d+)\.pth$', last.read_text() if last.exists() else '')
    return int(named[1]) if named else 0


def read_metrics(work_dir: Path) -> dict[str, float] | None:
    """What the test tool measured last in a folder; None if it has not, or was killed meanwhile."""
    files = list(work_dir.glob('*/*.json'))
    try:
        return json.loads(max(files).read_text()) if files else None
    except ValueError:  # half a file
        return None
