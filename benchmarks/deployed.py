"""What folding and half-precision experts change in a trained detector: outputs, mAP and size.

    python -m benchmarks.deployed CONFIG CHECKPOINT

Tests the detector on its config's test set, once for each way to deploy it, and prints a table.
"""

import argparse
import io
import tempfile
from collections.abc import Iterator, Sequence

import torch
from mmengine.config import Config, DictAction
from mmengine.runner import Runner
from torch import Tensor, nn

import condconv_det  # noqa: F401  before mmdet, which may lack mmcv's compiled operators
from condconv_det.deploy import cast_experts, fold_batch_norm
from condconv_det.deploy.agreement import raw_maps


def ways(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The model in each of its forms, one at a time."""
    folded = fold_batch_norm(model)
    yield 'as trained', model
    yield 'folded', folded
    yield 'folded, bfloat16 experts', cast_experts(folded, torch.bfloat16)
    yield 'folded, float16 experts', cast_experts(folded, torch.float16)


def relative_error(found: list[Tensor], expected: list[Tensor]) -> float:
    """The largest of any map: root mean square error over root mean square deviation."""
    return max(
        ((mine - theirs).norm() / (theirs - theirs.mean()).norm()).item()
        for mine, theirs in zip(found, expected)
    )


def file_megabytes(model: nn.Module) -> float:
    """Size of its checkpoint."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell() / 1e6


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    args = parser.parse_args(argv)
    cfg = Config.fromfile(args.config)
    cfg.merge_from_dict(args.cfg_options)
    cfg.load_from = args.checkpoint
    with tempfile.TemporaryDirectory() as work_dir:
        cfg.work_dir = work_dir
        runner = Runner.from_cfg(cfg)
        runner.load_or_resume()
        batch = next(iter(runner.test_dataloader))
        rows, expected = [], None
        for name, model in ways(runner.model.eval()):
            runner.model = model
            with torch.no_grad():
                maps = raw_maps(model, batch)
            expected = expected or maps
            score = runner.test()['coco/bbox_mAP']
            rows.append((name, file_megabytes(model), relative_error(maps, expected), score))
    print('| | file, MB | largest relative error of a map | mAP |\n|---|---|---|---|')
    for name, megabytes, error, score in rows:
        print(f'| {name} | {megabytes:.1f} | {error:.1e} | {score:.3f} |')


if __name__ == '__main__':
    main()
