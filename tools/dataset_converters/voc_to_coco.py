"""Convert a Pascal VOC folder to COCO json, and report every fault of the source by name.

Each image is decoded to its end, as a truncated one would stop the first validation.
Faults go to stderr, one a line; the summary goes to stdout. Exit codes: 0 all clean (or faults
allowed), 1 converted with faults reported, 2 nothing converted or unusable arguments.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from condconv_det.command_line import run
from condconv_det.data.decode import decoded_size
from condconv_det.data.fault import counted
from condconv_det.data.image_size import loaded_size
from condconv_det.data.voc import convert_voc


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('root', type=Path, help='folder with Annotations, JPEGImages, ImageSets')
    parser.add_argument('--out', type=Path, required=True, help='writes OUT/annotations/*.json')
    parser.add_argument(
        '--splits',
        nargs='+',
        help='lists in ImageSets/Main; default: train, val and test where they exist, '
        'or all annotations as one split "all" where there are no lists',
    )
    parser.add_argument(
        '--classes', nargs='+', help='in the order of their ids; default: all found, sorted'
    )
    parser.add_argument(
        '--allow-faults', action='store_true', help='exit with 0 although faults were reported'
    )
    parser.add_argument(
        '--no-decode',
        action='store_true',
        help='read only the headers of images: quicker, and does not see a truncated one',
    )
    return parser.parse_args()


def main() -> int:
    args = parse_args()
    read_size = loaded_size if args.no_decode else decoded_size
    try:
        done = convert_voc(args.root, args.out, args.splits, args.classes, read_size)
    except (ValueError, OSError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    for fault in done.faults:
        print(f'fault: {fault}', file=sys.stderr)
    print('classes:', ', '.join(done.classes))
    for split, path in done.files.items():
        boxes = ', '.join(f'{name} {done.boxes[split][name]}' for name in done.classes)
        print(f'{split}: {counted(done.images[split], "image")}, boxes: {boxes}; {path}')
    kinds = Counter(fault.kind for fault in done.faults)
    print(f'faults: {len(done.faults)}', *(f'  {kind}: {n}' for kind, n in kinds.items()), sep='\n')
    return 1 if done.faults and not args.allow_faults else 0


if __name__ == '__main__':
    run(main)
