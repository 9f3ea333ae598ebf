"""Writes a trained detector as ONNX or as a program of torch.export, and checks what it wrote.

See docs/export.md.
"""

import argparse
import sys
import time
from pathlib import Path

from mmengine.config import DictAction

from condconv_det.command_line import run

AGREEMENT = 0.98
# that of condconv_det.deploy, which is imported after arguments were parsed
SUFFIXES = {'onnx': '.onnx', 'onnx-cpu': '.onnx', 'torch-export': '.pt2'}
MAX_PIXELS = 100_000_000


def batch_size(text: str) -> int | None:
    if text == 'dynamic':
        return None
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number of at least 1, or 'dynamic', not {text!r}")
    return int(text)


def part(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f'a number above 0 and up to 1, not {text!r}')
    return value


def height_and_width(text: str) -> tuple[int, int]:
    sides = text.lower().split('x')
    if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
        raise argparse.ArgumentTypeError(f'HEIGHTxWIDTH in pixels, such as 300x300, not {text!r}')
    height, width = map(int, sides)
    if height * width > MAX_PIXELS:
        raise argparse.ArgumentTypeError(f'at most {MAX_PIXELS:,} pixels, not {text!r}')
    return height, width


def default_out(checkpoint: Path, format: str) -> Path:
    """A file beside the checkpoint, under a name that no other format has."""
    kind = '-cpu' if format == 'onnx-cpu' else ''
    return checkpoint.with_name(f'{checkpoint.stem}{kind}{SUFFIXES[format]}')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of a detector')
    parser.add_argument('checkpoint', type=Path, help='its weights')
    parser.add_argument(
        '--format', choices=SUFFIXES, default='onnx',
        help='(%(default)s; onnx-cpu: faster, for ONNX Runtime on CPUs like this one alone)',
    )  # fmt: skip
    parser.add_argument(
        '--out', type=Path,
        help="file to write; default: the checkpoint's name, .onnx, -cpu.onnx or .pt2",
    )  # fmt: skip
    parser.add_argument(
        '--batch', type=batch_size, default=1, metavar='N|dynamic', help='images a call (1)'
    )
    parser.add_argument(
        '--size', type=height_and_width, metavar='HxW', help="default: the config's test size"
    )
    parser.add_argument('--nms', action='store_true', help='with non-maximum suppression inside')
    parser.add_argument(
        '--half-experts', action='store_true', help='keep the experts in float16: half the file'
    )
    parser.add_argument(
        '--merge-experts', type=part, nargs='?', const=AGREEMENT, metavar='AGREEMENT',
        help='merge experts into fewer, as far as detections agree by so much with those before '
        f'({AGREEMENT}; 1: all alike): a smaller and faster file',
    )  # fmt: skip
    parser.add_argument(
        '--images', nargs='+', default=[], metavar='IMAGES',
        help='images, folders or globs of them to check with and to merge experts by; default: a '
        "few of the config's test set, where it is on disk, and some 200 of its validation set",
    )  # fmt: skip
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='key=value overrides')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    began = time.monotonic()
    import torch

    from condconv_det.analysis import image_size, read_config
    from condconv_det.compat.checkpoints import CheckpointError
    from condconv_det.deploy import ExportError, export_detector
    from condconv_det.deploy.images import find_images

    try:
        cfg = read_config(args.config, args.cfg_options)
        images = [image for named in args.images for image in find_images(named)]
        export = export_detector(
            cfg,
            args.checkpoint,
            args.out or default_out(args.checkpoint, args.format),
            args.format,
            args.batch,
            args.size or image_size(cfg),
            args.nms,
            args.half_experts,
            args.merge_experts,
            images,
            say=lambda stage: print(f'{time.monotonic() - began:5.0f} s  {stage}', flush=True),
        )
    except (CheckpointError, ExportError, ValueError, OSError, ImportError) as error:
        sys.exit(f'error: {error}')
    runtime = 'torch.export' if args.format == 'torch-export' else 'ONNX Runtime'
    print(f'PyTorch and {runtime}, {torch.get_num_threads()} threads, on the CPU')
    print(
        f'{"images":>12} {"boxes differ, px":>17} {"scores":>8} {"PyTorch, ms":>12} {"file, ms":>9}'
    )
    for row in export.comparisons:
        print(
            f'{row.batch:>5} {row.kind:>6} {row.pixels:17.2g} {row.score:8.1g} '
            f'{row.torch_ms:12.1f} {row.file_ms:9.1f}'
        )
    if merged := export.merged:
        print(
            f'experts: {merged.before:,} parameters, merged {merged.after:,}; '
            f'agreement on {merged.images} images {merged.agreement:.3f}'
        )
    if not any(row.kind == 'real' for row in export.comparisons):
        print('no real images: the test set of the config is not on disk; name some with --images')
    print(f'wrote {export.file}, {export.file.stat().st_size / 1e6:.1f} MB')


if __name__ == '__main__':
    run(main)
