"""Makes a small data set, trains a static SSD and a CondConv one on it, and compares them.

docs/when.md says what to make of the outcome. Takes some minutes on two cores.
"""

import argparse
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from condconv_det import command_line
from condconv_det.data.shapes import SPLITS, make_shapes

if TYPE_CHECKING:
    from condconv_det.study.plan import Study
    from condconv_det.study.runs import Run

ROOT = Path(__file__).parents[1]
STATIC = ROOT / 'configs/shapes/ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py'
CONDCONV = ROOT / 'configs/shapes/ssd128_mobilenet-v1-0.5-condconv-e8-head_1xb8-5e_shapes.py'
# the static network's best in configs/studies/shapes.py
RATE = {'optim_wrapper.optimizer.lr': 16e-3}
EPOCHS = 4
QUICK_SPLITS = dict(train=64, val=32, test=32)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--out', type=Path, help='(work_dirs/demo, with --quick work_dirs/demo-quick)'
    )
    parser.add_argument(
        '--quick', action='store_true', help='one short epoch: shows that all runs, finds nothing'
    )
    args = parser.parse_args()
    args.out = args.out or Path('work_dirs/demo-quick' if args.quick else 'work_dirs/demo')
    return args


def say(text: str) -> None:
    if not text.startswith('$'):  # command lines, which the logs have too
        print(text, flush=True)


def make_study(data_root: Path, epochs: int) -> 'Study':
    """Both detectors, to be trained with one seed."""
    from condconv_det.analysis.configs import load_config
    from condconv_det.study.plan import Arm, Study
    from condconv_det.study.work_dirs import schedule_options

    arms = {}
    for name, config in (('static', STATIC), ('condconv', CONDCONV)):
        cfg = load_config(config)
        cfg.merge_from_dict(RATE | schedule_options(cfg, epochs))
        for split in ('train', 'val', 'test'):
            cfg[f'{split}_dataloader'].dataset.data_root = str(data_root)
        for split in ('val', 'test'):
            cfg[f'{split}_evaluator'].ann_file = str(data_root / 'annotations' / f'{split}.json')
        arms[name] = Arm(name, cfg, 'static')
    return Study(arms, 'static', seeds=(0,), length=epochs)


@contextmanager
def followed(runs: 'list[Run]') -> Iterator[None]:
    """Says what the trainings log meanwhile, line by line, each under its name."""

    def logs() -> 'Iterator[tuple[Run, Path, list[str]]]':
        for run in runs:
            for log in run.work_dir.glob('*/vis_data/scalars.json'):
                yield run, log, log.read_text().splitlines()

    def follow() -> None:
        while not ended.wait(1):
            for run, log, lines in logs():
                for line in lines[said.get(log, 0) :]:
                    say(f'{run.arm:10}{described(line)}')
                said[log] = len(lines)

    ended = threading.Event()
    said = {log: len(lines) for _, log, lines in logs()}  # by a call that was interrupted
    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def described(line: str) -> str:
    """A line of a training's scalars for people."""
    scalars = json.loads(line)
    if 'loss' in scalars:
        return f'epoch {scalars["epoch"]}, step {scalars["step"]}: loss {scalars["loss"]:.2f}'
    # COCO's figures are left out where nothing was detected
    return f'epoch {scalars["step"]}: val mAP {scalars.get("coco/bbox_mAP", 0):.3f}'


def main() -> None:
    args = parse_args()
    splits = QUICK_SPLITS if args.quick else SPLITS
    data_root = args.out / 'shapes'
    say(f'Data set: {sum(splits.values())} images of 128x128 in {data_root}')
    args.out.mkdir(parents=True, exist_ok=True)
    make_shapes(data_root, splits, size=128)

    from mmdet.apis import init_detector
    from mmdet.registry import DATASETS

    from condconv_det.analysis.pictures import draw_detections
    from condconv_det.study.report import write_report
    from condconv_det.study.runs import plan_runs, write_configs
    from condconv_det.study.trainings import Trainings

    study = make_study(data_root, epochs=1 if args.quick else EPOCHS)
    runs = plan_runs(study, args.out)
    try:
        write_configs(study, args.out)
        trainings = Trainings(ROOT / 'tools', args.out, jobs=2, threads=1, say=say)
    except (OSError, ValueError) as error:  # of an older demo, or of one at work
        sys.exit(f'error: {error}')
    with trainings, followed(runs):
        failed = trainings.carry_out(runs)
    if failed:
        sys.exit(f'error: failed: {", ".join(run.name for run in failed)}')
    table, files = write_report(study, runs, args.out, num_resamples=200)

    models = [
        init_detector(study.arms[run.arm].cfg, str(run.checkpoint), device='cpu') for run in runs
    ]
    dataset = DATASETS.build(study.arms['static'].cfg.test_dataloader.dataset)
    pictures = draw_detections(
        models, dataset, args.out / 'pictures', num_pictures=24, names=('static', 'CondConv')
    )
    say(f"""
{table}
  curves       {args.out / files[-1]}
  pictures     {pictures[0].parent}: true boxes, static, CondConv
  checkpoints  {', '.join(str(run.checkpoint) for run in runs)}""")


if __name__ == '__main__':
    command_line.run(main, again=())
