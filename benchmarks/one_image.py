"""One image in PyTorch: the static twin, CondConv, experts merged and in half precision.

    python -m benchmarks.one_image [CONFIG...]

MobileNetV1 at 300 pixels, then the detector of each config up to its head's maps; norms folded,
weights random. Experts are in float32, two in every layer by `deploy.merge_experts`, in float16 as
PyTorch mixes them, and in float16 mixed by the operator of `deploy.compile_mixing`; then the static
network and experts in float32 by `torch.compile`. All take turns within a round.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.networks import (
    MOBILENET_V1,
    backbone,
    detector,
    images,
    static_twin,
    two_routings,
)
from benchmarks.timing import ratio
from condconv_det.analysis import image_size, read_config
from condconv_det.analysis.interleave import Call, interleave
from condconv_det.deploy import cast_experts, compile_mixing, fold_batch_norm, merge_experts
from condconv_det.ops import compiled_mixing

FORMS = STATIC, _, _, _, MIXING, *_ = (
    'static',
    'CondConv',
    'merged to 2 experts',
    'float16 experts',
    'float16 experts, compiled mixing',
    'static, torch.compile',
    'CondConv, torch.compile',
)


def networks(configs: Sequence[Path]) -> Iterator[tuple[str, nn.Module, nn.Module, Tensor]]:
    """Each network's name, its static twin, itself and an image."""
    yield 'MobileNetV1 at 300', backbone(MOBILENET_V1), backbone(MOBILENET_V1, 8), *images(300, 1)
    for config in configs:
        side = image_size(read_config(config))[0]
        yield config.stem, detector(static_twin(config)), detector(config), *images(side, 1)


def calls(
    static: nn.Module, routed: nn.Module, image: Tensor, operator: Callable
) -> dict[str, Call]:
    """A call of each form."""
    merged = merge_experts(routed.eval(), two_routings(routed), tolerance=1e-3)
    static, routed, merged = map(fold_batch_norm, (static.eval(), routed, merged))
    half = cast_experts(routed, torch.float16)
    traced = (torch.compile(network, dynamic=False) for network in (static, routed))
    forms = dict(zip(FORMS, (static, routed, merged, half, half, *traced), strict=True))
    mode = {'mode': 'tensor'} if hasattr(routed, 'backbone') else {}

    def call(form: str) -> None:
        compiled_mixing.operator = operator if form == MIXING else None
        forms[form](image, **mode)

    return {form: torch.no_grad()(partial(call, form)) for form in forms}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('configs', type=Path, nargs='*', help='of CondConv detectors')
    parser.add_argument('--rounds', type=int, default=60, help='(%(default)s)')
    parser.add_argument('--threads', type=int, nargs='+', default=[1, 2], help='(1 2)')
    args = parser.parse_args(argv)
    if not compile_mixing():
        sys.exit('error: the operator could not be built: compile_mixing(verbose=True) says why')
    print(
        f'PyTorch {torch.__version__}, medians of {args.rounds} turns, ms and ratio to static\n\n'
        f'| network | threads | {" | ".join(FORMS)} |\n{"|---" * (2 + len(FORMS))}|'
    )
    operator = compiled_mixing.operator
    for name, *network in networks(args.configs):
        prepared = calls(*network, operator)
        for threads in args.threads:
            torch.set_num_threads(threads)
            times = interleave(prepared, args.rounds, warm=True)
            cells = [
                f'{1e3 * statistics.median(found):.1f} ({ratio(found, times[STATIC]):.2f})'
                for found in times.values()
            ]
            print(f'| {name} | {threads} | {" | ".join(cells)} |', flush=True)


if __name__ == '__main__':
    main()
