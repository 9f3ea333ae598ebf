"""Time of a CondConv detector's training step and inference beside its static twin's.

    python -m benchmarks.detectors configs/ssd/ssd300_mobilenet-v1-condconv-e8_8xb128-20k_coco.py

The twins take turns within a round, so that a busy machine slows both alike; read the ratios.
"""

import argparse
import re
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData
from torch import nn

import condconv_det  # noqa: F401  before mmdet, which may lack mmcv's compiled operators

from mmdet.structures import DetDataSample  # isort: skip


def build(path: Path, device: str) -> nn.Module:
    """A config's detector with random weights; no checkpoint is downloaded."""
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.pop('init_cfg', None)
    return MODELS.build(cfg.model).to(device)


def random_batch(batch: int, side: int, device: str) -> tuple[torch.Tensor, list[DetDataSample]]:
    """Images [B, 3, side, side], with eight boxes of 40 to 140 pixels each."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, side, side, generator=generator).to(device)
    samples = []
    for _ in range(batch):
        corner = torch.rand(8, 2, generator=generator) * (side - 140)
        size = torch.rand(8, 2, generator=generator) * 100 + 40
        shape = (side, side)
        sample = DetDataSample(
            metainfo=dict(
                img_shape=shape,
                ori_shape=shape,
                pad_shape=shape,
                batch_input_shape=shape,
                scale_factor=(1.0, 1.0),
            )
        )
        boxes = torch.cat((corner, corner + size), dim=1).to(device)
        labels = torch.arange(8, device=device)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=labels)
        samples.append(sample)
    return images, samples


def training_step(model: nn.Module, batch: tuple) -> Callable[[], None]:
    """Loss, backward and an SGD step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)

    def step() -> None:
        model.train()
        losses = model(*batch, mode='loss')
        model.parse_losses(losses)[0].backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def inference(model: nn.Module, batch: tuple) -> Callable[[], None]:
    """Backbone, neck and head; no box decoding, no NMS."""

    def infer() -> None:
        model.eval()
        with torch.no_grad():
            model(*batch, mode='tensor')

    return infer


def seconds(call: Callable[[], object], device: str) -> float:
    """Wall-clock time of one call, kernels included."""
    start = time.perf_counter()
    call()
    if device == 'cuda':
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Print both twins' median times, and the median over rounds of their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('configs', nargs='+', type=Path, help='CondConv configs with static twins')
    parser.add_argument('--batch', type=int, default=8, help='in training (%(default)s)')
    parser.add_argument('--side', type=int, default=320, help='of the images (%(default)s)')
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--device', default='cpu', choices=['cpu', 'cuda'])
    args = parser.parse_args()

    threads = f'{torch.get_num_threads()} threads' if args.device == 'cpu' else args.device
    print(f'{args.side}x{args.side}, {threads}, medians of {args.rounds} rounds, ms')
    print(f'{"":52} {"static":>9} {"CondConv":>9} {"ratio":>6}')
    for path in args.configs:
        static = path.with_name(re.sub('-condconv-e[0-9]+', '', path.name))
        twins = [build(static, args.device), build(path, args.device)]
        modes = {
            f'training, batch {args.batch}': (training_step, args.batch),
            'inference, batch 1': (inference, 1),
        }
        for mode, (make, size) in modes.items():
            batch = random_batch(size, args.side, args.device)
            calls = [make(model, batch) for model in twins]
            for call in calls:
                call()
            rounds = [[seconds(call, args.device) for call in calls] for _ in range(args.rounds)]
            plain, routed = (statistics.median(times) * 1000 for times in zip(*rounds))
            ratio = statistics.median(b / a for a, b in rounds)
            name = static.stem.split('_8xb')[0].split('_1x_')[0]
            print(f'{name:32} {mode:19} {plain:9.0f} {routed:9.0f} {ratio:6.2f}')


if __name__ == '__main__':
    main()
