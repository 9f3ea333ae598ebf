"""Serves a web page: drop an image, see the boxes and the experts' routing weights."""

import argparse
import sys
import threading
from pathlib import Path

from condconv_det.command_line import run


def port_number(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f'a number from 1 to 65535, not {text!r}')
    return int(text)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', type=Path, nargs='?', help="config file; without it, the demo's")
    parser.add_argument('checkpoint', type=Path, nargs='?', help='checkpoint of that config')
    parser.add_argument(
        '--static', type=Path, nargs=2, metavar=('CONFIG', 'CHECKPOINT'),
        help='a static detector, shown beside',
    )  # fmt: skip
    parser.add_argument(
        '--host', default='127.0.0.1', help='0.0.0.0 lets every network in (%(default)s)'
    )
    parser.add_argument('--port', type=port_number, default=7860, help='(%(default)s)')
    parser.add_argument('--device', help='such as cpu or cuda:0; default: a GPU if there is one')
    args = parser.parse_args()
    if args.config and not args.checkpoint:
        parser.error('a config needs its checkpoint')
    return args


def main() -> None:
    args = parse_args()
    from condconv_det.compat.checkpoints import CheckpointError
    from condconv_det.deploy.detector import Detector, last_checkpoint
    from condconv_det.deploy.page import serve

    try:
        files = (args.config, args.checkpoint) if args.config else last_checkpoint()
        detector = Detector(*files, args.device)
        static = Detector(*args.static, args.device) if args.static else None
        if static is not None and static.is_routed:
            raise ValueError(
                f'--static takes a detector without routed layers, got {args.static[0]}, which has '
                'some'
            )
        with serve(detector, static, args.host, args.port) as address:
            print(f'{address} is up; Ctrl+C ends it', flush=True)
            threading.Event().wait()
    except (CheckpointError, ValueError, OSError, ImportError) as error:
        sys.exit(f'error: {error}')
    except KeyboardInterrupt:  # or SIGTERM
        pass


if __name__ == '__main__':
    run(main)
