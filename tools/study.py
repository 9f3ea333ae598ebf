"""Trains the arms of a study with every seed, tests them, and compares them in one table.

A study file names configs, or variants of one, as `arms`; each is trained with each of the `seeds`.
Run again after an interruption, it goes on where it was. docs/study.md explains file and table.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from condconv_det import command_line

if TYPE_CHECKING:
    from condconv_det.study.plan import Study
    from condconv_det.study.runs import Run
    from condconv_det.study.trainings import Trainings

TOOLS = Path(__file__).parent


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('study', type=Path, help='such as configs/studies/bccd_ssd300.py')
    parser.add_argument(
        '--out', type=Path, required=True, help="the study's folder, such as work_dirs/bccd_ssd300"
    )
    parser.add_argument('--jobs', type=int, default=1, help='trainings at a time (%(default)s)')
    parser.add_argument(
        '--threads',
        type=int,
        help="of each training (PyTorch's, which OMP_NUM_THREADS sets, over --jobs)",
    )
    parser.add_argument(
        '--resamples', type=int, default=1000, help='of the bootstrap (%(default)s)'
    )
    args = parser.parse_args()
    for name in ('jobs', 'threads', 'resamples'):
        value = getattr(args, name)
        if value is not None and value < 1:
            parser.error(f'--{name} must be at least 1, got {value}')
    return args


def choose_rates(
    study: 'Study', trainings: 'Trainings', args: argparse.Namespace
) -> 'tuple[Study, dict[Run, str]]':
    """The study with each arm at its best learning rate, and the runs that failed on the way."""
    from condconv_det.study.report import write_report
    from condconv_det.study.runs import best_rates, plan_runs

    grid = study.at_all_rates()
    runs = plan_runs(grid, args.out)
    trainings.say('learning rates first, by one seed; the other seeds come after them')
    failed = trainings.carry_out(runs)
    (args.out / 'learning_rates').mkdir(exist_ok=True)
    table, _ = write_report(grid, runs, args.out / 'learning_rates', args.resamples)
    trainings.say(f'\n{table}')
    try:
        return study.at_rates(best_rates(study, runs)), failed
    except ValueError as error:
        sys.exit(f'error: {error}')


def main() -> None:
    args = parse_args()
    import torch

    from condconv_det.compat.missing_files import missing_files
    from condconv_det.study.equal_cost import fit_costs
    from condconv_det.study.plan import SPLITS, Study
    from condconv_det.study.report import write_report
    from condconv_det.study.runs import plan_runs, write_configs
    from condconv_det.study.trainings import Trainings

    # to the same place from all threads, whatever one of them does to sys.stdout meanwhile
    say = partial(print, file=sys.stdout, flush=True)
    try:
        study = Study.fromfile(args.study)
        for arm in study.arms.values():
            if missing := next(missing_files(arm.cfg, ('train', *SPLITS), training=True), None):
                raise FileNotFoundError(f'arm {arm.name!r}: {missing}')
        args.out.mkdir(parents=True, exist_ok=True)
        threads = args.threads or max(1, torch.get_num_threads() // args.jobs)
        trainings = Trainings(TOOLS, args.out, args.jobs, threads, say)  # writes only alone
        study = fit_costs(study, args.out)
        write_configs(study.at_all_rates() if study.chooses_rates else study, args.out)
    except (OSError, ValueError, ImportError) as error:
        sys.exit(f'error: {error}')
    with trainings:
        failed = {}
        if study.chooses_rates:
            study, failed = choose_rates(study, trainings, args)
        runs = plan_runs(study, args.out)
        failed |= trainings.carry_out(runs)
        table, files = write_report(study, runs, args.out, args.resamples)
        say(f'\n{table}')
        say(f'also in {args.out}: {", ".join(files)}')
    if failed:
        sys.exit(f'error: failed: {", ".join(run.name for run in failed)}')


if __name__ == '__main__':
    command_line.run(main, again=())
