"""Draws how a trained detector or classifier routes its test images, and what that comes to."""

import argparse
import sys
from pathlib import Path

from mmengine.config import DictAction

from condconv_det.command_line import run


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', type=Path, help='of its network, trained')
    parser.add_argument('--out', type=Path, required=True, help='new folder for page and figures')
    parser.add_argument(
        '--group-by',
        metavar='KEY',
        help="beside classes, a key of the images in the test set's json",
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='key=value overrides of the config, such as '
        'test_dataloader.dataset.ann_file=annotations/val.json',
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    from condconv_det.analysis import read_config
    from condconv_det.analysis.routing_report import PAGE, analyze_routing
    from condconv_det.compat.checkpoints import CheckpointError

    try:
        cfg = read_config(args.config, args.cfg_options)
        summary = analyze_routing(cfg, args.checkpoint, args.out, args.group_by)
    except (CheckpointError, ValueError, OSError, ImportError) as error:
        sys.exit(f'error: {error}')
    width = max(map(len, summary['layers']))
    head = f'{"layer":{width}}  entropy  deviation  saturated  dead'
    compared = any(layer['variance_ratio'] for layer in summary['layers'].values())
    print(f'{head}  between / within variance' if compared else head)
    for name, layer in summary['layers'].items():
        ratios = [f'  {key} {ratio:.3f}' for key, ratio in layer['variance_ratio'].items()]
        numbers = '{entropy:7.2f}  {deviation:9.3f}  {saturated:9.1%}'.format(**layer)
        print(f'{name:{width}}  {numbers}  {len(layer["dead"]):4}', *ratios, sep='')
    print(*summary['findings'], sep='\n')
    print('wrote', args.out / PAGE)


if __name__ == '__main__':
    run(main)
