"""A training step as a config's recipe takes it, of the static twin and of CondConv.

    python -m benchmarks.recipes CONFIG

From normalised images to the optimizer's step, gradients clipped as the config says; CondConv in
the head alone, as the config has it, from block 1 on, and so with one router a block; each with
AdamW's fused form, which the recipes ask for, and without. All take turns within a round. Freed
memory is kept, as tools/train.py does, unless --new-memory asks for PyTorch's ways.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from benchmarks.networks import annotated_images, detector, static_twin
from condconv_det.analysis.cost import image_size
from condconv_det.analysis.interleave import Call, interleave
from condconv_det.compat.memory import keep_freed_memory

STATIC = 'static'
# of the static twin
HEAD = {'model.bbox_head.cond_cfg': dict(num_experts=8, init='one-kernel')}
EARLY = {'model.backbone.cond_cfg.start': 1}
# whether a form is of the CondConv config or of its static twin, and its options
FORMS = {
    STATIC: (False, {}),
    'CondConv in the head alone': (False, HEAD),
    'CondConv, as configured': (True, {}),
    'CondConv from block 1': (True, EARLY),
    "CondConv from block 1, share='block'": (
        True,
        EARLY | {'model.backbone.cond_cfg.share': 'block'},
    ),
}


def recipe_step(cfg: Config, batch: int, fused: bool) -> Call:
    """A call that takes one step of a config's training, on the same random images each time."""
    network = detector(cfg).train()
    optimizer = dict(cfg.optim_wrapper.optimizer, fused=fused or None)
    wrapper = build_optim_wrapper(network, dict(cfg.optim_wrapper, optimizer=optimizer))
    images, samples = annotated_images(image_size(cfg)[0], batch)
    for sample in samples:
        sample.gt_instances.labels %= cfg.model.bbox_head.num_classes

    def step() -> None:
        losses = network(images, samples, mode='loss')
        wrapper.update_params(network.parse_losses(losses)[0])

    return step


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', type=Path, help='of a CondConv detector with a static twin')
    parser.add_argument('--batch', type=int, default=8, help='(%(default)s)')
    parser.add_argument('--rounds', type=int, default=20, help='(%(default)s)')
    parser.add_argument('--threads', type=int, help="(PyTorch's)")
    parser.add_argument('--new-memory', action='store_true', help='what is freed goes back')
    args = parser.parse_args(argv)
    kept = not args.new_memory and keep_freed_memory()
    torch.set_num_threads(args.threads or torch.get_num_threads())
    calls: dict[tuple[str, bool], Call] = {}
    for form, (routed, options) in FORMS.items():
        cfg = Config.fromfile(args.config if routed else static_twin(args.config))
        cfg.merge_from_dict(options)
        for fused in (True, False):
            calls[form, fused] = recipe_step(cfg, args.batch, fused)
    times = {key: statistics.median(found) for key, found in interleave(calls, args.rounds).items()}
    print(
        f'{args.config.name}, batch {args.batch}, {torch.get_num_threads()} threads, PyTorch '
        f'{torch.__version__}, {"kept" if kept else "new"} memory, medians of {args.rounds} turns\n'
        '\n'
        '| a training step | AdamW fused, ms | to static | not fused, ms | to static |\n'
        '|---|---|---|---|---|'
    )
    for form in FORMS:
        cells = [
            cell
            for fused in (True, False)
            for cell in (
                f'{1e3 * times[form, fused]:.0f}',
                f'{times[form, fused] / times[STATIC, fused]:.2f}',
            )
        ]
        print(f'| {form} | {" | ".join(cells)} |')


if __name__ == '__main__':
    main()
