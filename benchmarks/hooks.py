"""What this package's hooks cost a training.

    python -m benchmarks.hooks CONFIG --epochs 6

Trains the config, whose data must be on disk. RoutingHook listens in every other step and
EpochSeedHook starts workers anew in every other epoch, so that both are compared with what came
just before; the other hooks take the time of their own methods.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import median

from mmengine.config import Config, DictAction
from mmengine.runner import Runner

import condconv_det  # noqa: F401  registers the hooks
from condconv_det.engine import EpochSeedHook, RoutingHook


class Stopwatch:
    """Seconds of a training's parts, in a list for each name."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = defaultdict(list)
        self.epoch_began = 0.0

    def timed(self, name: str, call: Callable) -> Callable:
        def run(*args, **kwargs):
            began = time.perf_counter()
            result = call(*args, **kwargs)
            self.times[name].append(time.perf_counter() - began)
            return result

        return run


def watch(runner: Runner) -> Stopwatch:
    """Times a runner's steps, epochs, waits for first batches, and its hooks of this package."""
    watched = Stopwatch()
    loop = runner.train_loop
    for hook in runner.hooks:
        if not type(hook).__module__.startswith('condconv_det.'):
            continue
        name = type(hook).__name__
        if isinstance(hook, RoutingHook):
            hook.num_iters = len(runner.train_dataloader)
        for stage in hook.get_triggered_stages():
            method = watched.timed(f'{name}.{stage}', getattr(hook, stage))
            if isinstance(hook, RoutingHook) and stage.endswith('train_iter'):
                method = in_turns(method, lambda: runner.iter)
            if isinstance(hook, EpochSeedHook) and stage == 'before_train_epoch':
                method = in_turns(method, lambda: runner.epoch)
            setattr(hook, stage, method)

    run_iter, run_epoch = loop.run_iter, loop.run_epoch

    def timed_iter(index: int, batch: object) -> None:
        if index == 0:
            wait = time.perf_counter() - watched.epoch_began
            watched.times[f'first batch {runner.epoch % 2}'].append(wait)
        watched.timed(f'step {runner.iter % 2}', run_iter)(index, batch)

    def timed_epoch() -> None:
        watched.epoch_began = time.perf_counter()
        watched.timed('epoch', run_epoch)()

    loop.run_iter, loop.run_epoch = timed_iter, timed_epoch
    return watched


def in_turns(method: Callable, count: Callable[[], int]) -> Callable:
    """The method where the count is even, nothing where it is odd."""

    def run(*args, **kwargs):
        if count() % 2 == 0:
            return method(*args, **kwargs)

    return run


def report(watched: Stopwatch) -> str:
    """A table: milliseconds, and their share of a step or an epoch."""
    times = watched.times
    # the first two are slow in any training
    step = median(times['step 1'][2:])
    pairs = zip(times['step 0'][2:], times['step 1'][2:])
    listening = median(with_hook - without for with_hook, without in pairs)
    epoch = median(times['epoch'])
    rows = [('a step', step, 1.0), ('an epoch', epoch, 1.0)]
    if 'RoutingHook.after_train_iter' in times:
        rows.append(('RoutingHook, listening, a step', listening, listening / step))
        summing = max(times['RoutingHook.after_train_iter'])
        rows.append(('RoutingHook, its numbers, an epoch', summing, summing / epoch))
    if 'EpochSeedHook.before_train_epoch' in times:
        # the first epoch starts workers anyway
        again = median(times['first batch 0'][1:]) - median(times['first batch 1'])
        rows.append(('EpochSeedHook, new workers, an epoch', again, again / epoch))
    for key, spent in times.items():
        hook, _, stage = key.partition('.')
        if hook in ('RoutingHook', 'EpochSeedHook') or not stage:
            continue
        whole = step if stage.endswith('iter') else epoch
        rows.append((f'{hook}, {stage}', median(spent), median(spent) / whole))
    lines = ['| | ms | share |', '|---|---|---|']
    lines += [f'| {name} | {spent * 1e3:.3g} | {share:.2%} |' for name, spent, share in rows]
    return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Train and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', help='of a training that counts epochs')
    parser.add_argument('--epochs', type=int, default=6, help='at least 4 (%(default)s)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='key=value overrides')
    args = parser.parse_args(argv)
    if args.epochs < 4:
        parser.error(f'--epochs must be at least 4, got {args.epochs}')
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options or {})
    cfg.merge_from_dict(
        {
            'train_cfg.max_epochs': args.epochs,
            'train_cfg.val_begin': args.epochs + 1,
            'default_hooks.checkpoint': None,
            'default_hooks.routing': dict(type='RoutingHook'),
        }
    )
    with tempfile.TemporaryDirectory() as work_dir:
        cfg.work_dir = work_dir
        runner = Runner.from_cfg(cfg)
        watched = watch(runner)
        runner.train()
    print(report(watched))


if __name__ == '__main__':
    main()
