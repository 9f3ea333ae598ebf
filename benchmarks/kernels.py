"""Every kernel of `cond_conv2d` over a grid of shapes, beside forms that are not used.

    python -m benchmarks.kernels --out benchmarks/kernels-cpu.md

`condconv_det.ops.cond_conv2d.choose_kernel` follows from this table.
"""

import argparse
import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.timing import ratio
from condconv_det.analysis.interleave import interleave
from condconv_det.ops import any_batch_conv2d
from condconv_det.ops.cond_conv2d import choose_kernel
from condconv_det.ops.kernels import (
    GroupedConv,
    Kernel,
    Matmul,
    MixedOutputs,
    MixedProducts,
    OneByOne,
)

EXPERTS = 8
BATCHES = (1, 8, 24)
BLOCK_MIB = (2, 6, 16)


class Shape(NamedTuple):
    """A layer of stride 1 that keeps its side."""

    batch: int
    in_channels: int
    out_channels: int
    kernel: int
    groups: int
    side: int

    def __str__(self) -> str:
        kind = 'depthwise ' if self.groups > 1 else ''
        channels = f'{self.in_channels}->{self.out_channels}'
        return f'{kind}{self.kernel}x{self.kernel} {channels} at {self.side}, batch {self.batch}'


def grid() -> Iterator[Shape]:
    pointwise = ((64, 128), (128, 512), (512, 128), (512, 512), (1024, 1024))
    for (cin, cout), side, batch in itertools.product(pointwise, (1, 2, 3, 10, 19, 38), BATCHES):
        yield Shape(batch, cin, cout, 1, 1, side)
    for channels, side, batch in itertools.product(
        (128, 256, 512), (1, 2, 3, 5, 10, 14, 19), BATCHES
    ):
        yield Shape(batch, channels, channels, 3, 1, side)
    # SSD's predictors, of boxes and of classes
    predictors = ((128, 18, 38), (128, 12, 38), (128, 36, 16), (256, 36, 8), (512, 36, 4))
    for (cin, cout, side), batch in itertools.product(
        (*predictors, (64, 180, 24), (128, 180, 12), (256, 180, 6)), BATCHES
    ):
        yield Shape(batch, cin, cout, 3, 1, side)
    for channels, kernel, side in itertools.product((128, 512, 1024), (3, 5), (10, 19)):
        for batch in BATCHES:
            yield Shape(batch, channels, channels, kernel, channels, side)


def tap_by_tap(x: Tensor, routing: Tensor, weight: Tensor, padding: int) -> Tensor:
    """For each tap of the kernels a product with the shifted image, as exported files do it."""
    groups = x.shape[1] // weight.shape[2]
    return any_batch_conv2d(x, routing, weight, padding=padding, groups=groups)


def one_by_one_kept(x: Tensor, routing: Tensor, weight: Tensor, padding: int) -> Tensor:
    """A plain convolution an example, from kernels that are all mixed at once and kept."""
    kernels = torch.tensordot(routing, weight, dims=1)
    images = zip(x.split(1), kernels)
    return torch.cat([F.conv2d(image, kernel, padding=padding) for image, kernel in images])


def kernels(shape: Shape) -> dict[str, Kernel]:
    """Those of the package that can compute this layer, matrix products in several blocks."""
    padding = shape.kernel // 2
    geometry = ((1, 1), (padding, padding), (1, 1))
    found: dict[str, Kernel] = {'grouped conv': GroupedConv(*geometry, shape.groups)}
    if shape.groups > 1:
        return found
    found['one by one'] = OneByOne(*geometry)
    found['matmul'] = Matmul(*geometry)
    found['mixed outputs'] = MixedOutputs(*geometry)
    found['mixed products'] = MixedProducts(*geometry)
    row = shape.batch * shape.in_channels * shape.kernel**2 * 4
    for mebibytes in BLOCK_MIB:
        block = max(1, mebibytes * 2**20 // row)
        if block < shape.out_channels:
            found[f'matmul by {mebibytes} MiB'] = Matmul(*geometry, block)
    return found


def measure(shape: Shape, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds by mode, then by form; 'chosen' is what `cond_conv2d` does."""
    batch, cin, cout, size, groups, side = shape
    padding = size // 2
    x = torch.randn(batch, cin, side, side, requires_grad=True)
    routing = torch.rand(batch, EXPERTS, requires_grad=True)
    weight = torch.randn(EXPERTS, cout, cin // groups, size, size, requires_grad=True)
    plain = torch.randn(cout, cin // groups, size, size, requires_grad=True)
    leaves = x, routing, weight, plain
    grad = torch.randn(batch, cout, side, side)

    ours = kernels(shape)
    pads = (padding, padding)
    ours['chosen'] = choose_kernel(x, weight, (1, 1), pads, (1, 1), groups)
    forms: dict[str, Callable[[], Tensor]] = {
        'plain conv': lambda: F.conv2d(x, plain, padding=padding, groups=groups),
        **{name: lambda kernel=kernel: kernel(x, routing, weight) for name, kernel in ours.items()},
    }
    for form in (tap_by_tap,) if groups > 1 else (one_by_one_kept, tap_by_tap):
        name = form.__name__.replace('_', ' ')
        forms[name] = lambda form=form: form(x, routing, weight, padding)

    def train(form: Callable[[], Tensor]) -> None:
        form().backward(grad)
        for leaf in leaves:
            leaf.grad = None

    def infer(form: Callable[[], Tensor]) -> None:
        with torch.no_grad():
            form()

    return {
        mode: interleave(
            {name: lambda form=form, run=run: run(form) for name, form in forms.items()}, rounds
        )
        for mode, run in (('inference', infer), ('training', train))
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row per shape, and how far the chosen kernel is from the best."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--rounds', type=int, default=5, help='(%(default)s)')
    parser.add_argument('--only', default='', help='shapes whose row contains this')
    parser.add_argument('--out', type=Path, help='a Markdown file for the table')
    args = parser.parse_args(argv)
    shapes = [shape for shape in grid() if args.only in str(shape)]
    if not shapes:
        parser.error(f'--only {args.only!r} is in no row, such as {next(grid())}')

    lines = [f'{EXPERTS} experts, {torch.get_num_threads()} threads, inference / training, ms', '']
    print(*lines, sep='\n')
    behind = []
    for shape in shapes:
        modes = measure(shape, args.rounds)
        medians = [
            {name: statistics.median(times) * 1000 for name, times in forms.items()}
            for forms in modes.values()
        ]
        ratios = []
        for times, median in zip(modes.values(), medians):
            best = min((n for n in median if n not in ('plain conv', 'chosen')), key=median.get)
            ratios.append(ratio(times['chosen'], times[best]))
        behind += ratios
        cells = ', '.join(
            f'{name} {medians[0][name]:.2f} / {medians[1][name]:.2f}' for name in medians[0]
        )
        lines.append(f'- {shape}: {cells}; chosen / best {ratios[0]:.2f}, {ratios[1]:.2f}')
        print(lines[-1], flush=True)
    summary = f'chosen / best other: median {statistics.median(behind):.2f}, most {max(behind):.2f}'
    print(summary)
    if args.out:
        args.out.write_text('\n'.join([*lines, '', summary, '']))


if __name__ == '__main__':
    main()
