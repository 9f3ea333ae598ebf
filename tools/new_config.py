"""Makes a data set of your own ready to train on: one command from images and boxes to two configs.

    new_config.py data/mine --out work_dirs/mine

Reads COCO json, Pascal VOC or the text files of YOLO, in folders of any name; decodes each image,
leaves out what cannot be used and names it; splits into train, val and test with near-duplicates
in one split; and writes, sized to the set, the config of a static detector and that of its CondConv
twin. Then it prints the commands that train and test them.

Faults go to stderr, one a line. Exit codes: 0, though there may be faults, 2 nothing was written.
"""

import argparse
import re
import shlex
import sys
from pathlib import Path

from condconv_det.command_line import run

DETECTORS = ('ssd300', 'ssdlite', 'retinanet')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', type=Path, help='folder of images and boxes, or a COCO json')
    parser.add_argument(
        '--out', type=Path, required=True, help='folder for annotations and configs'
    )
    parser.add_argument('--detector', choices=DETECTORS, default=DETECTORS[0], help='(%(default)s)')
    parser.add_argument('--images', type=Path, help='folder of the images, if not in SOURCE')
    parser.add_argument(
        '--format', choices=('coco', 'voc', 'yolo'), help='if SOURCE has boxes in several'
    )
    parser.add_argument(
        '--classes',
        nargs='+',
        help='those to keep, in this order; of YOLO numbers without names, the names',
    )
    parser.add_argument(
        '--ratios',
        nargs=3,
        type=float,
        metavar=('TRAIN', 'VAL', 'TEST'),
        default=(0.7, 0.15, 0.15),
        help='parts of the images (0.7 0.15 0.15)',
    )
    parser.add_argument('--seed', type=int, default=0, help='of the split (%(default)s)')
    parser.add_argument(
        '--group-by',
        metavar='KEY',
        help="keep images together that have one value of a key of COCO's image records, or of "
        "'folder'",
    )
    parser.add_argument(
        '--alike',
        type=float,
        default=0.98,
        help='correlation of thumbnails from which images are near-duplicates, kept together; 2: '
        'none are (%(default)s)',
    )
    parser.add_argument(
        '--resplit', action='store_true', help='split anew though SOURCE has splits of its own'
    )
    parser.add_argument('--name', help="of the data set, in the configs' names (SOURCE's)")
    args = parser.parse_args()
    if args.name is None:
        args.name = re.sub(r'[^\w-]+', '-', args.source.resolve().stem).strip('-') or 'mine'
    return args


def main() -> int:
    args = parse_args()

    from condconv_det.data.prepare import prepare
    from condconv_det.study.twins import check_names, write_twins

    try:
        check_names(args.detector, args.name)
        done = prepare(
            args.source,
            args.out,
            images=args.images,
            format=args.format,
            classes=args.classes,
            ratios=dict(zip(('train', 'val', 'test'), args.ratios)),
            seed=args.seed,
            group_by=args.group_by,
            alike=args.alike,
            resplit=args.resplit,
        )
        static, condconv = write_twins(done, args.out, args.detector, args.name, args.source.name)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    for fault in done.faults:
        print(f'fault: {fault}', file=sys.stderr)
    classes = ', '.join(done.classes)
    print(f'{done.format}: {classes}; faults: {len(done.faults)}')
    for split, path in done.files.items():
        boxes = ', '.join(f'{name} {done.boxes[split][name]}' for name in done.classes)
        kept = ", the source's own" if split in done.kept_splits else ''
        print(f'{split}: {done.num_images[split]} images{kept}, boxes: {boxes}; {path}')
    print(f'near-duplicates: {done.alike} images; in two splits: {done.leaks} of val and test')
    epochs = re.search(r'-(\d+)e_', static.name)[1]
    tools = Path(sys.argv[0]).parent
    checkpoint = f'work_dirs/{condconv.stem}/epoch_{epochs}.pth'
    print('Train the static detector and its CondConv twin, and test:')
    for command in (
        ['train.py', static],
        ['train.py', condconv],
        ['test.py', condconv, checkpoint],
    ):
        print('  python', shlex.join([str(tools / command[0]), *map(str, command[1:])]))
    return 0


if __name__ == '__main__':
    run(main)
