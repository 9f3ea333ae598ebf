"""What a training's folders tell: whether it ended, and what was measured after it."""

import json
from pathlib import Path

from mmengine.config import Config


def schedule_options(cfg: Config, epochs: int) -> dict[str, int]:
    """Options that make a config's training `epochs` long, with some twelve validations.

    Schedulers that end with the training still do; warm-ups that count steps stay as they are.

    Raises:
        ValueError: the training does not count epochs, or a scheduler has milestones or a part of
            the epochs.
    """
    planned = cfg.train_cfg.get('max_epochs')
    if planned is None:
        raise ValueError(f'{cfg.filename}: train_cfg has no max_epochs, so it cannot be resized')
    interval = max(1, epochs // 12)
    options = {
        'train_cfg.max_epochs': epochs,
        'train_cfg.val_interval': interval,
        'default_hooks.checkpoint.interval': interval,
    }
    for index, scheduler in enumerate(cfg.get('param_scheduler') or []):
        if not scheduler.get('by_epoch', True):
            continue
        lasts = [key for key in ('T_max', 'end') if key in scheduler]
        whole = lasts and all(scheduler[key] == planned for key in lasts)
        if not whole or scheduler.get('begin', 0) or 'milestones' in scheduler:
            raise ValueError(
                f'{cfg.filename}: param_scheduler[{index}], {scheduler.type}, does not go evenly '
                f'from the first of {planned} epochs to the last, so it cannot be resized'
            )
        options.update({f'param_scheduler.{index}.{key}': epochs for key in lasts})
    return options


def is_trained(checkpoint: Path) -> bool:
    """Whether a checkpoint, such as `epoch_60.pth`, is whole and its training's last."""
    last = checkpoint.with_name('last_checkpoint')  # written when the checkpoint is whole
    return last.exists() and Path(last.read_text()).name == checkpoint.name


def read_metrics(work_dir: Path) -> dict[str, float] | None:
    """What the test tool measured last in a folder; None if it has not, or was killed meanwhile."""
    files = list(work_dir.glob('*/*.json'))
    try:
        return json.loads(max(files).read_text()) if files else None
    except ValueError:  # half a file
        return None
