"""One image in an exported file: the static twin beside frozen, merged and whole CondConv.

    python -m benchmarks.exported --out work_dirs/exported

Writes the files of each network, with random weights, and runs them in turns in ONNX Runtime and in
OpenVINO, on one thread and on two. Each network's times are written as soon as they are measured,
to results.json and as a table; a run that was cut off goes on with what is missing.

    python -m benchmarks.exported --files static.onnx condconv.onnx merged.onnx

does the same with files of your own, and prints their ratios to the first.
"""

import argparse
import json
import platform
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchmarks.int8 import quantize_mixing
from benchmarks.networks import CONFIGS, detector, static_twin, two_routings
from benchmarks.timing import ratio, spread
from condconv_det.analysis import image_size, read_config
from condconv_det.analysis.interleave import interleave
from condconv_det.data.whole_files import written_whole
from condconv_det.deploy import (
    ExportableDetector,
    freeze_routing,
    mean_routing,
    merge_experts,
)
from condconv_det.deploy.check import (
    MAX_PIXELS,
    MAX_SCORE,
    largest_differences,
    open_file,
    random_images,
)
from condconv_det.deploy.runtimes import RUNTIMES, check_runtime, open_onnx
from condconv_det.deploy.write import check_environment, write_export

NETWORKS = {
    'SSD128-0.5': 'shapes/ssd128_mobilenet-v1-0.5-condconv-e8_1xb8-5e_shapes.py',
    'SSD128-0.5-head': 'shapes/ssd128_mobilenet-v1-0.5-condconv-e8-head_1xb8-5e_shapes.py',
    'SSD192-0.25-head': 'domains/ssd192_mobilenet-v1-0.25-condconv-e8-head_1xb8-25e_domains.py',
    'SSD300-0.5': 'ssd/ssd300_mobilenet-v1-0.5-condconv-e8_8xb128-20k_coco.py',
    'SSD300-1.0': 'ssd/ssd300_mobilenet-v1-condconv-e8_8xb128-20k_coco.py',
    'SSDLite-MobileNetV2': 'ssd/ssdlite_mobilenet-v2-scratch-condconv-e8_8xb24-600e_coco.py',
    'RetinaNet-EfficientNet-B0': 'bccd/retinanet_effb0-condconv-e8_1xb8-60e_bccd.py',
}
STATIC, FROZEN, MERGED, MERGED_CPU, ROUTED, ROUTED_CPU, HALF, INT8 = FILES = (
    'static',
    'frozen',
    'CondConv, merged to 2 experts',
    'merged to 2, for this CPU',
    'CondConv',
    'for this CPU',
    'float16 experts',
    'int8 experts',
)
KEYS = ('network', 'threads', 'runtime', 'file')


def write_files(config: str, folder: Path) -> dict[str, Path]:
    """Writes a network's files, each for one image and without NMS, by what they are.

    Args:
        config: of the CondConv network, in `configs`; its static twin's is beside it.
        folder: for the files.

    Raises:
        ValueError: a file of float32 computes something else than PyTorch.
    """
    torch.manual_seed(0)
    models, size = {}, None
    for name, path in ((STATIC, static_twin(CONFIGS / config)), (ROUTED, CONFIGS / config)):
        cfg = read_config(path)
        models[name] = detector(cfg).eval()
        divisor = models[name].data_preprocessor.pad_size_divisor
        size = tuple(-(-side // divisor) * divisor for side in image_size(cfg))
    routing = two_routings(models[ROUTED])
    models[FROZEN] = freeze_routing(models[ROUTED], mean_routing(routing))
    models[MERGED] = merge_experts(models[ROUTED], routing, tolerance=1e-3)
    models[MERGED_CPU], models[ROUTED_CPU] = models[MERGED], models[ROUTED]
    detectors = {name: ExportableDetector(model, size) for name, model in models.items()}
    files = {name: folder / f'{index}.onnx' for index, name in enumerate(FILES)}
    image = random_images(1, size)
    for name, exportable in detectors.items():
        format = 'onnx-cpu' if name in (MERGED_CPU, ROUTED_CPU) else 'onnx'
        write_export(exportable, files[name], format, batch=1)
        with torch.no_grad():
            outputs = exportable(image)
        pixels, score = largest_differences(open_file(files[name], format)(image), outputs)
        if not (pixels <= MAX_PIXELS and score <= MAX_SCORE):
            raise ValueError(
                f'{config}: the {name} file differs from PyTorch by {pixels:.2g} pixels and '
                f'{score:.2g} of a score; allowed are {MAX_PIXELS} and {MAX_SCORE}'
            )
    write_export(detectors[ROUTED], files[HALF], 'onnx', batch=1, half_experts=True)
    quantize_mixing(files[ROUTED], files[INT8])
    return files


def measure(
    network: str, files: Mapping[str, Path], threads: int, runtime: str, rounds: int
) -> list[dict[str, Any]]:
    """Runs a network's files in turns; a row for each file.

    Of one runtime at a time: threads of another would still be waiting, at the cost of a core.

    Args:
        network: its name, for the rows.
        files: by what they are, each for one image.
        threads: of each call.
        runtime: of `RUNTIMES`.
        rounds: how often each file runs.

    Returns:
        Rows with `seconds`, one a round, or with `error` where the runtime does not take a file.
    """
    rows, calls = [], {}
    for name, path in files.items():
        row = dict(network=network, threads=threads, runtime=runtime, file=name)
        rows.append(dict(row, megabytes=path.stat().st_size / 1e6))
        try:
            opened = open_onnx(path, runtime, threads)
            image = random_images(1, opened.about['size']).numpy()
            opened.run(image)
        except Exception as error:  # the runtimes' own have no class in common
            rows[-1]['error'] = str(error).strip().splitlines()[-1]
        else:
            calls[name] = partial(opened.run, image)
    times = interleave(calls, rounds, warm=True)
    for row in rows:
        if 'error' not in row:
            row['seconds'] = times[row['file']]
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Two tables: times and sizes.

    Medians in milliseconds, and in brackets the ratio to the static twin's, round by round; and a
    network's files in MB.
    """
    blocks: dict[tuple, dict[str, Mapping]] = {}
    for row in rows:
        blocks.setdefault(tuple(row[key] for key in KEYS[:3]), {})[row['file']] = row
    lines = [
        f'| network | threads | runtime | {" | ".join(FILES)} |',
        '|---' * (3 + len(FILES)) + '|',
    ]
    for (network, threads, runtime), found in blocks.items():
        cells = [_cell(found.get(name), found.get(STATIC)) for name in FILES]
        lines.append(f'| {network} | {threads} | {RUNTIMES[runtime][0]} | {" | ".join(cells)} |')
    lines += ['', f'| MB | {" | ".join(FILES)} |', '|---' * (1 + len(FILES)) + '|']
    # the same files for all threads and runtimes
    for network, found in {network: found for (network, _, _), found in blocks.items()}.items():
        cells = [f'{found[name]["megabytes"]:.1f}' if name in found else '' for name in FILES]
        lines.append(f'| {network} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def _cell(row: Mapping[str, Any] | None, static: Mapping[str, Any] | None) -> str:
    if row is None:
        return ''
    if 'error' in row:
        return 'not taken'
    cell = f'{1000 * median(row["seconds"]):.1f}'
    if row is static or static is None or 'error' in static:
        return cell
    return f'{cell} ({ratio(row["seconds"], static["seconds"]):.2f})'


def machine(runtimes: Sequence[str]) -> dict[str, Any]:
    """What the figures of one file have in common."""
    packages = ['torch', *({'onnx': 'onnxruntime'}.get(name, name) for name in runtimes)]
    cpu = f'{platform.machine()} CPU, {torch.backends.cpu.get_cpu_capability()}'
    return dict(device=cpu, **{package: version(package) for package in packages})


def read_results(path: Path, here: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured so far.

    Raises:
        ValueError: the file is not one of this benchmark, or was measured elsewhere or with other
            versions.
    """
    if not path.exists():
        return dict(machine=dict(here), rows=[])
    try:
        results = json.loads(path.read_text())
        there = results['machine']
        complete = all({*KEYS, 'megabytes'} <= row.keys() for row in results['rows'])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{path} is not a file of this benchmark: {error!r}') from error
    if not complete:
        raise ValueError(f'{path} is not a file of this benchmark: its rows lack some of {KEYS}')
    if any(there.get(key, value) != value for key, value in here.items()):
        raise ValueError(
            f'{path} must be of this machine, {dict(here)}, got {there}: name another --out'
        )
    results['machine'] = {**there, **here}
    return results


def save(results: Mapping[str, Any], folder: Path) -> None:
    """Writes what was measured beside the old and renames."""
    for name, text in (
        ('results.json', json.dumps(results, indent=1)),
        ('table.md', table(results['rows']) + '\n'),
    ):
        with written_whole(folder / name) as partial:
            partial.write_text(text)


def at_least_one(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'a number of at least 1, not {text!r}')
    return int(text)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/exported'), help='(%(default)s)'
    )
    parser.add_argument('--networks', nargs='+', choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument('--threads', nargs='+', type=at_least_one, default=[1, 2])
    parser.add_argument('--runtimes', nargs='+', choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument('--rounds', type=at_least_one, default=30, help='(%(default)s)')
    parser.add_argument(
        '--files', nargs='+', type=Path, metavar='FILE', help='to measure in place of networks'
    )
    args = parser.parse_args(argv)
    try:
        check_environment('onnx')
        for runtime in args.runtimes:
            check_runtime(runtime)
        if args.files:
            files = {str(file): file for file in args.files}
            compare_files(files, args.threads, args.runtimes, args.rounds)
            return
        results = read_results(args.out / 'results.json', machine(args.runtimes))
    except (ImportError, ValueError, OSError) as error:
        sys.exit(f'error: {error}')
    try:
        for network in args.networks:
            measure_network(network, results, args)
    except KeyboardInterrupt:
        print(table(results['rows']))
        sys.exit(f'cut off; what was measured is in {args.out}, and the same command goes on')
    print(table(results['rows']))


def compare_files(
    files: Mapping[str, Path], threads: Sequence[int], runtimes: Sequence[str], rounds: int
) -> None:
    """Runs files in turns and prints their names, medians and ratios to the first.

    Raises:
        FileNotFoundError: there is no such file.
    """
    for file in files.values():
        if not file.is_file():
            raise FileNotFoundError(f'{file} does not exist')
    print('| file | MB | threads | runtime | ms |\n|---|---|---|---|---|')
    for count in threads:
        for runtime in runtimes:
            rows = measure('', files, count, runtime, rounds)
            for row in rows:
                print(
                    f'| {row["file"]} | {row["megabytes"]:.1f} | {count} | {RUNTIMES[runtime][0]} '
                    f'| {_cell(row, rows[0])} |',
                    flush=True,
                )


def measure_network(network: str, results: dict[str, Any], args: argparse.Namespace) -> None:
    """Measures what `results` lacks of a network, adds it there and saves it."""
    done = {tuple(row[key] for key in KEYS[:3]) for row in results['rows']}
    missing = [
        (threads, runtime)
        for threads in args.threads
        for runtime in args.runtimes
        if (network, threads, runtime) not in done
    ]
    if not missing:
        return
    with TemporaryDirectory() as folder:
        files = write_files(NETWORKS[network], Path(folder))
        for threads, runtime in missing:
            rows = measure(network, files, threads, runtime, args.rounds)
            results['rows'] += rows
            save(results, args.out)
            for row in rows:
                said = row.get('error')
                if said is None:
                    middle, range_ = median(row['seconds']), spread(row['seconds'])
                    said = f'{1000 * middle:.1f} ms (quartiles apart by {1000 * range_:.1f})'
                place = ', '.join(str(row[key]) for key in KEYS)
                print(f'{place}, {row["megabytes"]:.1f} MB: {said}', flush=True)


if __name__ == '__main__':
    main()
