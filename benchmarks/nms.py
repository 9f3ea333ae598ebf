"""Time of nms through mmcv and through our `mmcv._ext`, beside torchvision's own.

    python -m benchmarks.nms --boxes 20000 --rounds 9

The ways take turns within a round, so that a busy machine slows all of them alike; read the ratios.
"""

import argparse
import importlib
import statistics
from collections.abc import Sequence

import torch
import torchvision

from benchmarks.timing import ratio
from condconv_det.analysis.interleave import interleave
from condconv_det.compat.mmcv_ext import install


def random_detections(number: int, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Boxes [N, 4] of 8 to 108 pixels in an image of 1000 by 1000, and scores [N]."""
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(number, 2, generator=generator) * 900
    size = torch.rand(number, 2, generator=generator) * 100 + 8
    scores = torch.rand(number, generator=generator)
    return torch.cat((corner, corner + size), dim=1).to(device), scores.to(device)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the median time of each way, and the median over rounds of its ratio to torchvision."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--boxes', type=int, default=20_000)
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--iou-threshold', type=float, default=0.5)
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'])
    args = parser.parse_args(argv)

    install()
    mmcv_nms = importlib.import_module('mmcv.ops').nms
    ext_nms = importlib.import_module('mmcv._ext').nms
    boxes, scores = random_detections(args.boxes, args.device)
    threshold = args.iou_threshold
    ways = {
        'torchvision.ops.nms': lambda: torchvision.ops.nms(boxes, scores, threshold),
        'mmcv._ext.nms': lambda: ext_nms(boxes, scores, iou_threshold=threshold, offset=0),
        'mmcv._ext.nms, offset 1': lambda: ext_nms(
            boxes, scores, iou_threshold=threshold, offset=1
        ),
        'mmcv.ops.nms': lambda: mmcv_nms(boxes, scores, threshold),
    }
    times = interleave(ways, args.rounds, args.device)
    baseline = times['torchvision.ops.nms']
    kept = len(ways['torchvision.ops.nms']())
    print(f'{args.boxes} boxes, {kept} kept, {args.device}, median of {args.rounds} rounds')
    print(f'{"":24} {"ms":>8} {"ratio":>7}')
    for name, measured in times.items():
        print(
            f'{name:24} {statistics.median(measured) * 1000:8.2f} {ratio(measured, baseline):7.3f}'
        )


if __name__ == '__main__':
    main()
