"""Make the embedded shapes data set and say what is in it."""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from condconv_det.command_line import run
from condconv_det.data.shapes import DOMAINS, SPLITS, make_shapes


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', type=Path, help='folder to make; found complete, it is left as is')
    for split, count in SPLITS.items():
        parser.add_argument(
            f'--{split}', type=int, default=count, help=f'number of {split} images (%(default)s)'
        )
    parser.add_argument('--size', type=int, default=128, help='side in pixels (%(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='(%(default)s)')
    parser.add_argument(
        '--domains', nargs='+', choices=DOMAINS, default=DOMAINS, help='the looks (all of them)'
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    splits = {split: getattr(args, split) for split in SPLITS}
    try:
        files = make_shapes(args.out, splits, args.size, args.seed, args.domains)
    except (ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    for split, path in files.items():
        data = json.loads(path.read_text())
        names = {category['id']: category['name'] for category in data['categories']}
        domains = Counter(image['domain'] for image in data['images'])
        classes = Counter(names[annotation['category_id']] for annotation in data['annotations'])
        print(f'{split}: {len(data["images"])} images in {args.out / split}, boxes in {path}')
        print('  images by domain:', ', '.join(f'{k} {n}' for k, n in domains.items()))
        print('  objects by class:', ', '.join(f'{k} {classes[k]}' for k in names.values()))


if __name__ == '__main__':
    run(main)
