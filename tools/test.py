"""mmdet's tools/test.py, or mmpretrain's for a classifier, run after condconv_det so that neither
needs compiled mmcv. With `--backend onnx` or `--backend openvino` the checkpoint is a file of
tools/export.py."""

import argparse
import sys

from condconv_det.command_line import run
from condconv_det.compat.openmmlab_tools import run_openmmlab_tool

RUNNERS = dict(onnx='OnnxRunner', openvino='OpenVinoRunner')


def parse_backend() -> str:
    """Takes `--backend`, which the scripts do not know, from the command line."""
    parser = argparse.ArgumentParser(
        description="One option beside those of mmdet's script, or mmpretrain's, which follow.",
        add_help=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        '--backend',
        choices=['pytorch', *RUNNERS],
        default='pytorch',
        help='what runs the checkpoint; onnx (ONNX Runtime) and openvino take a file of '
        'tools/export.py (%(default)s)',
    )
    args, sys.argv[1:] = parser.parse_known_args()
    if {'-h', '--help'} & set(sys.argv[1:]):  # which the script answers
        print(parser.format_help())
    return args.backend


def main() -> None:
    backend = parse_backend()
    if backend == 'pytorch':
        run_openmmlab_tool('test.py')
        return
    for option in ('--tta', '--launcher'):
        if any(arg.split('=')[0] == option for arg in sys.argv[1:]):
            sys.exit(f'error: --backend {backend} does not go with {option}')
    sys.argv += ['--cfg-options', f'runner_type={RUNNERS[backend]}']
    try:
        run_openmmlab_tool('test.py', imports=['condconv_det.deploy.onnx_detector'])
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    run(main)
