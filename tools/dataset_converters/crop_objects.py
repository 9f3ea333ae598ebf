"""Cut the boxes of COCO jsons out as a classification set: OUT/<split>/<class>/<image>_<id>.jpg.

    crop_objects.py data/bccd/annotations/{train,val,test}.json \\
        --images data/bccd/JPEGImages --out data/bccd-crops

A split that OUT already has, complete and made with the same arguments, is left as it is. Faults go
to stderr, one a line; the summary goes to stdout. Exit codes: 0 all clean (or faults allowed), 1
cropped with faults reported, 2 an error: splits before it are complete, nothing else is written.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from condconv_det.command_line import run
from condconv_det.data.crops import crop_objects


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'jsons', type=Path, nargs='+', metavar='json', help='one a split, named after it'
    )
    parser.add_argument(
        '--images',
        required=True,
        help="folder that the jsons' file names are relative to; {split} in it is the json's name",
    )
    parser.add_argument('--out', type=Path, required=True, help='writes OUT/<split>')
    parser.add_argument(
        '--margin',
        type=float,
        default=0.0,
        help="added on each side, as a part of the box's width and height (%(default)s)",
    )
    parser.add_argument(
        '--min-size',
        type=float,
        default=0.0,
        help='leaves out boxes with a shorter side, in pixels (%(default)s)',
    )
    parser.add_argument(
        '--allow-faults', action='store_true', help='exit with 0 although faults were reported'
    )
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    faults = []
    for path in args.jsons:
        images = args.images.replace('{split}', path.stem)
        try:
            done = crop_objects(path, images, args.out, margin=args.margin, min_size=args.min_size)
        except (ValueError, OSError) as error:
            print(f'error: {error}', file=sys.stderr)
            return 2
        for fault in done.faults:
            print(f'fault: {fault}', file=sys.stderr)
        crops = ', '.join(f'{name} {count}' for name, count in done.crops.items())
        left_out = ', '.join(f'{reason} {count}' for reason, count in done.left_out.items())
        print(f'{path.stem}: crops: {crops}; left out: {left_out or "none"}; {done.folder}')
        faults += done.faults
    kinds = Counter(fault.kind for fault in faults)
    print(f'faults: {len(faults)}', *(f'  {kind}: {n}' for kind, n in kinds.items()), sep='\n')
    return 1 if faults and not args.allow_faults else 0


if __name__ == '__main__':
    run(main)
