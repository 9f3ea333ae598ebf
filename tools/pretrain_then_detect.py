"""Trains SSD300 on BCCD from a backbone that first classified its cells, and from scratch.

CondConv-MobileNetV1 0.5 learns to classify crops of the training boxes; SSD300 is then trained
twice, for the same steps with the same seed, once from that backbone and once from scratch, and
both are measured on val and test. Needs data/bccd in the current folder, see
docs/measured/results.md. Run again after an interruption, it goes on from the last checkpoints.
"""

import argparse
import shlex
import subprocess
import sys
import time
from pathlib import Path

from mmengine.config import Config

from condconv_det import command_line
from condconv_det.study.work_dirs import is_trained, read_metrics, schedule_options

TOOLS = Path(__file__).parent
CONFIGS = TOOLS.parent / 'configs' / 'bccd'
CLASSIFIER = CONFIGS / 'mobilenet-v1-0.5-condconv-e8_1xb32-10e_bccd-crops.py'
DETECTOR = CONFIGS / 'ssd300_mobilenet-v1-0.5-condconv-e8_1xb8-60e_bccd.py'
DATA = Path('data/bccd')
CROPS = Path('data/bccd-crops')
SPLITS = ('train', 'val', 'test')
METRICS = ('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/pretrain_then_detect'), help='(%(default)s)'
    )
    parser.add_argument('--epochs', type=int, default=60, help="each detector's (%(default)s)")
    parser.add_argument(
        '--classifier-epochs', type=int, default=10, help="the classifier's (%(default)s)"
    )
    parser.add_argument('--seed', type=int, default=0, help='of all three (%(default)s)')
    return parser.parse_args()


def run(tool: str, *args: object) -> None:
    """Runs a tool of this folder as a user would, and says which and how long it took."""
    command = [sys.executable, str(TOOLS / tool), *map(str, args)]
    print('$', shlex.join(command), flush=True)
    start = time.monotonic()
    code = subprocess.run(command).returncode
    if code:
        sys.exit(f'error: {tool} ended with {code}; what came before it is kept for the next run')
    print(f'{tool}: {time.monotonic() - start:.0f} s', flush=True)


def train(config: Path, work_dir: Path, epochs: int, seed: int, *options: str) -> Path:
    """Trains to the last of `epochs`, or goes on to it, and returns its checkpoint."""
    checkpoint = work_dir / f'epoch_{epochs}.pth'
    if not is_trained(checkpoint):
        length = schedule_options(Config.fromfile(config), epochs)
        run(
            *('train.py', config, '--work-dir', work_dir, '--resume', '--cfg-options'),
            *(f'{key}={value}' for key, value in length.items()),
            f'randomness.seed={seed}',
            *options,
        )
    return checkpoint


def evaluate(config: Path, checkpoint: Path, name: str, *options: str) -> dict[str, float]:
    """What the test tool measures, kept in a folder `name` beside the checkpoint."""
    work_dir = checkpoint.parent / name
    if read_metrics(work_dir) is None:
        run(
            *('test.py', config, checkpoint, '--work-dir', work_dir),
            *(('--cfg-options', *options) if options else ()),
        )
    return read_metrics(work_dir)


def main() -> None:
    args = parse_args()
    from condconv_det.analysis.curves import plot_curves, read_scalars

    jsons = [DATA / 'annotations' / f'{split}.json' for split in SPLITS]
    for path in (*jsons, DATA / 'JPEGImages'):
        if not path.exists():
            sys.exit(
                f'error: {path} does not exist; docs/measured/results.md says how to make {DATA}'
            )
    run(
        *('dataset_converters/crop_objects.py', *jsons, '--images', DATA / 'JPEGImages'),
        *('--out', CROPS, '--margin', 0.1, '--allow-faults'),
    )

    name = f'classifier-{args.classifier_epochs}e'
    classifier = train(
        CLASSIFIER, args.out / f'{name}_seed{args.seed}', args.classifier_epochs, args.seed
    )
    cells = evaluate(CLASSIFIER, classifier, 'test')
    starts = {
        'scratch': (),
        name: (
            'model.backbone.init_cfg.type=Pretrained',
            f'model.backbone.init_cfg.checkpoint={classifier}',
            'model.backbone.init_cfg.prefix=backbone.',
        ),
    }
    work_dirs, metrics = {}, {}
    for start, options in starts.items():
        work_dirs[start] = args.out / f'ssd300-from-{start}_{args.epochs}e_seed{args.seed}'
        detector = train(DETECTOR, work_dirs[start], args.epochs, args.seed, *options)
        for split in ('val', 'test'):
            metrics[start, split] = evaluate(
                *(DETECTOR, detector, split),
                f'test_dataloader.dataset.ann_file=annotations/{split}.json',
                f'test_evaluator.ann_file={DATA / "annotations" / split}.json',
            )

    drawn = [list(work_dirs.values()), ['coco/bbox_mAP'], args.out / 'mAP.png', list(starts)]
    accuracy = plot_curves(*drawn, xlabel='epoch (validation set)')
    drawn[1:3] = ['loss'], args.out / 'loss.png'
    loss = plot_curves(*drawn)

    top1, recall = cells['accuracy/top1'], cells['single-label/recall']
    print(f'\nClassifier, test crops: top-1 {top1:.1f}, mean recall of the classes {recall:.1f}')
    print('\n| SSD300 from | split |', ' | '.join(METRICS), '|')
    print('|---' * (len(METRICS) + 2) + '|')
    for split in ('val', 'test'):
        for start in starts:
            row = [f'{metrics[start, split][f"coco/bbox_{metric}"]:.3f}' for metric in METRICS]
            print(f'| {start} | {split} |', ' | '.join(row), '|')
    for start, work_dir in work_dirs.items():
        epochs, values = read_scalars(work_dir, 'coco/bbox_mAP')
        points = ', '.join(f'{epoch}: {value:.3f}' for epoch, value in zip(epochs, values))
        print(f'\nval mAP after epoch, from {start}: {points}')
    print(f'\ncurves: {accuracy}, {loss}')


if __name__ == '__main__':
    command_line.run(main, again=())
