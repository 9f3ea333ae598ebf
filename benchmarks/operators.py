"""Where the time of an exported file goes, by ONNX Runtime's own clock.

    python -m benchmarks.operators static.onnx condconv.onnx

For each file the milliseconds of an image in each kind of operator, and what reading its constants
takes at the speed of a large copy in the same run. The clock itself slows small operators.
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
import onnxruntime
import torch

from benchmarks.timing import copy_bandwidth
from condconv_det.deploy.check import random_images
from condconv_det.deploy.runtimes import open_onnx

MIXED = 'kernel that is mixed'
LEAST = 0.05  # milliseconds, of an operator with a row of its own


def operators(file: Path, threads: int, rounds: int) -> dict[str, float]:
    """Milliseconds of an image by kind of operator, the mean of `rounds` calls.

    `MatMul` with a constant mixes experts or routes; a convolution whose kernel is not constant is
    called so.

    Raises:
        FileNotFoundError, ValueError: as in `open_onnx`.
    """
    image = random_images(1, open_onnx(file).about['size']).numpy()
    with TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.optimized_model_filepath = f'{folder}/optimized.onnx'
        options.enable_profiling = True
        options.profile_file_prefix = f'{folder}/profile'
        options.log_severity_level = 3  # a file that is optimised for this machine is meant
        session = onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])
        for _ in range(rounds + 1):
            session.run(None, {'images': image})
        events = json.loads(Path(session.end_profiling()).read_text())
        kinds = _kinds(onnx.load(options.optimized_model_filepath))
    times = defaultdict(list)
    for event in events:
        if event['cat'] == 'Node' and event['name'].endswith('_kernel_time'):
            times[event['name'].removesuffix('_kernel_time')].append(event['dur'] / 1000)
    found: dict[str, float] = defaultdict(float)
    for name, each in times.items():
        found[kinds[name]] += sum(each[1:]) / rounds
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _kinds(model: onnx.ModelProto) -> dict[str, str]:
    """What each node of an optimised model is, by its name."""
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {
        node.output[0] for node in model.graph.node if node.op_type.startswith('Constant')
    }
    kinds = {}
    for node in model.graph.node:
        kinds[node.name] = node.op_type
        if node.op_type in ('Conv', 'FusedConv') and node.input[1] not in constants:
            kinds[node.name] = f'{node.op_type}, {MIXED}'
        elif node.op_type in ('MatMul', 'Gemm') and constants & set(node.input):
            kinds[node.name] = f'{node.op_type} with a constant'
    return kinds


def constant_bytes(file: Path) -> int:
    """Of all tensors in a file: weights, experts and anchors."""
    return sum(
        onnx.numpy_helper.to_array(tensor).nbytes for tensor in onnx.load(file).graph.initializer
    )


def table(files: Sequence[Path], threads: int, rounds: int) -> str:
    """A column for each file.

    Raises:
        FileNotFoundError, ValueError: as in `open_onnx`.
    """
    found = [operators(file, threads, rounds) for file in files]
    bandwidth = copy_bandwidth('cpu')
    largest = {
        kind: max(each.get(kind, 0) for each in found)
        for kind in {k for each in found for k in each}
    }
    kinds = sorted((k for k, ms in largest.items() if ms >= LEAST), key=lambda k: -largest[k])
    rows = [(kind, [each.get(kind, 0) for each in found]) for kind in kinds]
    rest = [sum(each.values()) - sum(each.get(k, 0) for k in kinds) for each in found]
    rows += [('others', rest), ('all', [sum(each.values()) for each in found])]
    rows.append(
        (
            f'constants read once, at {bandwidth / 1e9:.0f} GB/s',
            [1000 * constant_bytes(file) / bandwidth for file in files],
        )
    )
    lines = [f'| ms | {" | ".join(file.stem for file in files)} |', '|---' * (1 + len(files)) + '|']
    for name, values in rows:
        lines.append(f'| {name} | {" | ".join(f"{value:.2f}" for value in values)} |')
    return '\n'.join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('files', type=Path, nargs='+', help='of tools/export.py, for one image')
    parser.add_argument('--threads', type=int, default=1, help='(%(default)s)')
    parser.add_argument('--rounds', type=int, default=30, help='(%(default)s)')
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        print(table(args.files, args.threads, args.rounds))
    except (OSError, ValueError) as error:
        sys.exit(f'error: {error}')


if __name__ == '__main__':
    main()
