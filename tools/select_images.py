"""Make a data set of some sites, domains or cameras of another one.

    select_images.py data/domains data/domains_chess --key domain --values chess --num-train 128

Both have annotations/{train,val,test}.json; the images stay where they are.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from condconv_det.command_line import run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', type=Path, help='folder of the data set')
    parser.add_argument('out', type=Path, help='folder to make')
    parser.add_argument('--key', required=True, help='of the images in the json, such as domain')
    parser.add_argument('--values', nargs='+', required=True, help='which of them to take')
    parser.add_argument(
        '--num-train', type=int, help='training images in all, the same share of each value (all)'
    )
    parser.add_argument('--seed', type=int, default=0, help='of the draw (%(default)s)')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from condconv_det.data.check_coco import read_coco
    from condconv_det.data.select_images import select_images

    try:
        files = select_images(
            args.source, args.out, args.key, args.values, args.num_train, args.seed
        )
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    for split, path in files.items():
        data = read_coco(path)
        numbers = Counter(str(image[args.key]) for image in data['images'])
        found = ', '.join(f'{value} {number}' for value, number in numbers.items())
        print(f'{split}: {found}; {len(data["annotations"])} boxes in {path}')


if __name__ == '__main__':
    run(main)
