"""mmdet's tools/test.py, or mmpretrain's for a classifier, run after condconv_det so that neither
needs compiled mmcv. With `--backend onnx` or `--backend openvino` the checkpoint is a file of
tools/export.py. Pictures of a detector (`--show-dir`) have labels as those of tools/detect.py."""

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


def prepare(package: str) -> None:
    """Has configs of detectors draw by this package's visualizer where they name mmdet's."""
    if package != 'mmdet':
        return
    from mmdet.registry import VISUALIZERS

    from condconv_det.analysis.pictures import Visualizer

    VISUALIZERS.register_module('DetLocalVisualizer', force=True, module=Visualizer)


def prepare_runner(package: str) -> None:
    prepare(package)
    from condconv_det.deploy import onnx_detector  # noqa: F401  whose runners are registered


def main() -> None:
    backend = parse_backend()
    # a resumed training leaves resume=True in its config, by which a test would go on with it
    sys.argv += ['--cfg-options', 'resume=False']
    if backend == 'pytorch':
        run_openmmlab_tool('test.py', prepare)
        return
    for option in ('--tta', '--launcher'):
        if any(arg.split('=')[0] == option for arg in sys.argv[1:]):
            sys.exit(f'error: --backend {backend} does not go with {option}')
    sys.argv += ['--cfg-options', f'runner_type={RUNNERS[backend]}']
    try:
        run_openmmlab_tool('test.py', prepare_runner)
    except (ValueError, OSError, ImportError) as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    run(main)
