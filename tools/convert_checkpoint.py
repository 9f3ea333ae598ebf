"""Turns a library's weights into ours, static or with experts; or ours into static ones."""

import argparse
import sys
from collections import Counter
from pathlib import Path

from condconv_det.command_line import run

# those of condconv_det.weights, which is imported after arguments were parsed
SOURCES = ('timm', 'torchvision', 'mmdet', 'mmpretrain')
ACTIVATIONS = ('sigmoid', 'softmax')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('source', type=Path, help='.pth or .safetensors')
    parser.add_argument('dest', type=Path, help='.pth to write')
    parser.add_argument(
        '--from', dest='package', required=True, choices=[*SOURCES, 'condconv_det'],
        help='whose weights they are',
    )  # fmt: skip
    parser.add_argument('--arch', help="the network's name there; a wrong one lists all")
    parser.add_argument('--num-experts', type=int, help='make static weights experts')
    parser.add_argument(
        '--to-static', action='store_true',
        help="with --from condconv_det: the experts' mean kernels, and no routers",
    )  # fmt: skip
    parser.add_argument(
        '--activation', choices=ACTIVATIONS,
        help='with --to-static: of the routers, where the checkpoint has no config that says it '
        '(sigmoid)',
    )  # fmt: skip
    args = parser.parse_args()
    if args.to_static != (args.package == 'condconv_det'):
        parser.error('--from condconv_det and --to-static go together')
    if args.to_static and (args.arch or args.num_experts):
        parser.error('--to-static takes neither --arch nor --num-experts')
    if args.activation and not args.to_static:
        parser.error('--activation goes with --to-static')
    if not args.to_static and args.arch is None:
        parser.error(f'--from {args.package} needs --arch')
    return args


def main() -> None:
    args = parse_args()
    from condconv_det.compat.checkpoints import CheckpointError
    from condconv_det.weights import convert_file, static_file

    try:
        if args.to_static:
            activations = static_file(args.source, args.dest, args.activation)
            counts = Counter(activations.values()).items()
            routings = ', '.join(f'{count} with {name} routing' for name, count in counts)
            print(f'{len(activations)} layers with experts became static: {routings}')
        else:
            done = convert_file(args.source, args.dest, args.package, args.arch, args.num_experts)
            if done.difference is None:
                print(f'not compared with the original: {args.package} is not installed')
            else:
                print(f'largest difference from {args.package}: {done.difference:.2g}')
            print('backbone:', done.backbone)
    except (CheckpointError, ValueError, OSError, ImportError) as error:
        sys.exit(f'error: {error}')
    print('wrote', args.dest)


if __name__ == '__main__':
    run(main)
