"""Prints a detector's or classifier's parameters and multiply-adds; needs no data set."""

import argparse
import sys

from mmengine.config import DictAction

from condconv_det.command_line import run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument(
        '--shape',
        type=int,
        nargs='+',
        metavar='SIDE',
        help="image's side, or height and width, in pixels; default: the config's test size",
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='key=value overrides of the config, such as model.bbox_head.num_classes=90',
    )
    args = parser.parse_args()
    if args.shape and (len(args.shape) > 2 or min(args.shape) < 1):
        parser.error(f'--shape takes one or two numbers of at least 1, got {args.shape}')
    return args


def main() -> None:
    args = parse_args()
    from condconv_det.analysis import image_size, measure_config, read_config
    from condconv_det.analysis.configs import errors_named

    try:
        cfg = read_config(args.config, args.cfg_options)
        height, width = (args.shape * 2)[:2] if args.shape else image_size(cfg)
        with errors_named(f'config {args.config} at {height}x{width}'):
            cost = measure_config(cfg, (height, width))
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f'error: {error}')
    print(f'{args.config} at {height}x{width}')
    print(f'parameters     {cost.parameters / 1e6:10.3f} M')
    print(f'  experts      {cost.expert_parameters / 1e6:10.3f} M')
    print(f'  the rest     {(cost.parameters - cost.expert_parameters) / 1e6:10.3f} M')
    print(f'multiply-adds  {cost.multiply_adds / 1e6:10.1f} M')
    print(f'  mixing       {cost.mixing / 1e6:10.1f} M')
    print(f'  routing      {cost.routing / 1e6:10.1f} M')


if __name__ == '__main__':
    run(main)
