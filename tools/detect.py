"""Draws boxes round what a detector finds in images, and lists them as JSON beside each picture."""

import argparse
import sys
from pathlib import Path

from condconv_det.command_line import run
from condconv_det.data.fault import counted


def score(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'expected a score from 0 to 1, got {text}')
    return value


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('images', help='an image, a folder, or a glob in quotation marks')
    parser.add_argument('config', type=Path, nargs='?', help="config file; without it, the demo's")
    parser.add_argument('checkpoint', type=Path, nargs='?', help='checkpoint of that config')
    parser.add_argument(
        '--out-dir', type=Path, default=Path('work_dirs/detect'), help='(%(default)s)'
    )
    parser.add_argument(
        '--score-thr', type=score, default=0.3, help='boxes score more than this (%(default)s)'
    )
    parser.add_argument('--device', help='such as cpu or cuda:0; default: a GPU if there is one')
    args = parser.parse_args()
    if args.config and not args.checkpoint:
        parser.error('a config needs its checkpoint')
    return args


def main() -> None:
    args = parse_args()
    from condconv_det.compat.checkpoints import CheckpointError
    from condconv_det.deploy.detect_files import detect_files
    from condconv_det.deploy.detector import Detector, last_checkpoint
    from condconv_det.deploy.images import describe_failures, find_images

    try:
        images = find_images(args.images)
        files = (args.config, args.checkpoint) if args.config else last_checkpoint()
        detector = Detector(*files, args.device)
        pictures, failures = detect_files(detector, images, args.out_dir, args.score_thr)
    except (CheckpointError, ValueError, OSError, ImportError) as error:
        sys.exit(f'error: {error}')
    print(f'{counted(len(pictures), "picture")}, and as many lists of boxes, in {args.out_dir}')
    if failures:
        sys.exit(f'error: {describe_failures(failures, len(images))}')


if __name__ == '__main__':
    run(main)
