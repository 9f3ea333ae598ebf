"""Freezes a trained network's routing: a static network, or one for each site, as fast as one
without experts. See docs/sites.md.
"""

import argparse
import sys
from pathlib import Path

from mmengine.config import DictAction

from condconv_det.command_line import run

# that of condconv_det.deploy, which is imported after arguments were parsed
LIMIT = 0.7


def part(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f'expected a number from 0 to 1, got {text}')
    return value


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of a network with experts')
    parser.add_argument('checkpoint', type=Path, help='its weights, trained')
    parser.add_argument('--out', type=Path, required=True, help='new folder for the networks')
    site = parser.add_mutually_exclusive_group()
    site.add_argument(
        '--images',
        metavar='FOLDER',
        help="of one site; or a glob of images; default: all of the data set's split",
    )
    site.add_argument(
        '--group-by',
        metavar='KEY',
        help="a key of the images in the data set's json; each value is a site",
    )
    parser.add_argument(
        '--split',
        choices=['val', 'train'],
        help='without --images: whose images, without augmentation (val)',
    )
    parser.add_argument(
        '--only', nargs='+', metavar='VALUE', help='with --group-by: the sites to write'
    )
    parser.add_argument(
        '--limit',
        type=part,
        default=LIMIT,
        help="least agreement with the routed network's detections (%(default)s)",
    )
    parser.add_argument(
        '--renew-norms',
        action='store_true',
        help="measure the batch norms' statistics anew on each site's images",
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='key=value overrides')
    args = parser.parse_args()
    if args.only and not args.group_by:
        parser.error('--only goes with --group-by')
    if args.split and args.images:
        parser.error('--split does not go with --images, which are all of a site')
    args.split = args.split or 'val'
    return args


def main() -> None:
    args = parse_args()
    from condconv_det.analysis import read_config
    from condconv_det.compat.checkpoints import CheckpointError
    from condconv_det.deploy.images import describe_failures, find_images, readable_images
    from condconv_det.deploy.site_images import images_by_key, images_of_folder, images_of_split
    from condconv_det.deploy.sites import freeze_sites

    failures = {}
    try:
        cfg = read_config(args.config, args.cfg_options)
        if args.images:
            images = find_images(args.images)
            files, failures = readable_images(images)
            if failures and len(files) < 2:  # too few for a site
                raise ValueError(describe_failures(failures, len(images)))
            groups = images_of_folder(files)
        elif args.group_by:
            groups = images_by_key(cfg, args.group_by, args.split, args.only)
        else:
            groups = {'all': images_of_split(cfg, args.split)}
        sites = freeze_sites(cfg, args.checkpoint, groups, args.out, args.limit, args.renew_norms)
    except (CheckpointError, ValueError, OSError, ImportError) as error:
        sys.exit(f'error: {error}')
    width = max(map(len, ['site', *sites]))
    print(f'{"site":{width}}  images  kernels vary  agreement  outputs move')
    for name, site in sites.items():
        print(
            f'{name:{width}}  {site.images:6}  {site.kernels_vary:12.3f}  {site.agreement:9.3f}  '
            f'{site.outputs_error:12.3f}'
        )
    print(f'wrote a config and a checkpoint for each into {args.out}')
    if failures:
        sys.exit(f'error: {describe_failures(failures, len(images))}')


if __name__ == '__main__':
    run(main)
