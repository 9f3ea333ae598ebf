"""What the options of tools/export.py cost or save in one detector, beside PyTorch.

    python -m benchmarks.export_options CONFIG CHECKPOINT IMAGE... --out DIR

Writes the files into a folder, those in int8 too, and prints their sizes and the median call with
one image and with eight. `tools/test.py CONFIG DIR/FILE --backend onnx` measures any of them.
"""

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median

import torch
from mmengine.config import DictAction
from torch import Tensor

from benchmarks.int8 import quantize_everything, quantize_mixing
from condconv_det.analysis import image_size, read_config
from condconv_det.analysis.interleave import interleave
from condconv_det.deploy import ExportableDetector, export_detector
from condconv_det.deploy.check import Run, open_file, read_images
from condconv_det.deploy.export import load_detector

# by the options of tools/export.py
FILES = {
    'batch-1': dict(batch=1),
    'half-experts': dict(batch=1, half_experts=True),
    'dynamic': dict(batch=None),
    'dynamic-nms': dict(batch=None, with_nms=True),
}
MANY = 8


def one_by_one(run: Run, images: Tensor) -> None:
    for image in images:
        run(image[None])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('checkpoint', type=Path)
    parser.add_argument('images', type=Path, nargs='+', help='files: eight for time, 32 for int8')
    parser.add_argument('--out', type=Path, required=True, help='folder for the files')
    parser.add_argument('--rounds', type=int, default=30)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction)
    args = parser.parse_args(argv)
    cfg = read_config(args.config, args.cfg_options)
    size = image_size(cfg)
    images = read_images(args.images[:32], size)
    args.out.mkdir(parents=True, exist_ok=True)
    files = {name: args.out / f'{name}.onnx' for name in (*FILES, 'int8-mixing', 'int8')}
    for name, options in FILES.items():
        export_detector(cfg, args.checkpoint, files[name], 'onnx', size=size, **options)
    quantize_mixing(files['batch-1'], files['int8-mixing'])
    quantize_everything(files['batch-1'], files['int8'], images)

    model, _ = load_detector(cfg, args.checkpoint)
    runs = {
        'PyTorch': ExportableDetector(model, size),
        'PyTorch with NMS': ExportableDetector(model, size, with_nms=True),
    } | {name: open_file(file, 'onnx') for name, file in files.items()}
    calls = {}
    for name, run in runs.items():
        calls[name, 1] = partial(run, images[:1])
        in_one_call = name.startswith(('PyTorch', 'dynamic'))
        calls[name, MANY] = partial(run if in_one_call else partial(one_by_one, run), images[:MANY])
    with torch.no_grad():
        times = interleave(calls, args.rounds, warm=True)
    print(f'{torch.get_num_threads()} threads, median of {args.rounds}')
    print(f'| | MB | one image, ms | {MANY} images, ms |\n|---|---|---|---|')
    for name in runs:
        megabytes = f'{files[name].stat().st_size / 1e6:.1f}' if name in files else ''
        one, many = (1000 * median(times[name, count]) for count in (1, MANY))
        print(f'| {name} | {megabytes} | {one:.1f} | {many:.1f} |')


if __name__ == '__main__':
    main()
