"""Names every fault of a COCO data set, and writes a file without them.

    check_dataset.py data/mine/train.json --images data/mine/images --fix data/mine/mended.json
    check_dataset.py work_dirs/mine/ssd300_mobilenet-v1-0.5_1xb8-500e_mine.py

Without --images, which a config names by itself, no image of a json is looked at; without --decode
only the headers are read. Exit codes: 0 no errors, though there may be
warnings, 1 errors, 2 unusable arguments, nothing to check, or a file could not be written.
"""

import argparse
import json
import sys
from codecs import BOM_UTF8
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

from condconv_det.command_line import run
from condconv_det.data.check_coco import check_coco, read_coco
from condconv_det.data.check_images import check_images, with_file_sizes
from condconv_det.data.coco_faults import KINDS, level
from condconv_det.data.decode import SUFFIXES, decoded_size
from condconv_det.data.fault import Fault
from condconv_det.data.image_size import loaded_size
from condconv_det.data.whole_files import written_whole

LEVELS = ('error', 'warning', 'note')


class Source(NamedTuple):
    """A json to check, and how it is used."""

    ann_file: Path
    images: Path | None = None
    evaluated: bool = True
    classes: Sequence[str] | None = None


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', type=Path, help="COCO json, or a config, for all of its json's")
    parser.add_argument('--images', type=Path, help="folder that the json's file names are in")
    parser.add_argument('--decode', action='store_true', help='decode every image in full')
    parser.add_argument('--fix', type=Path, metavar='OUT.json', help='write a mended json')
    parser.add_argument('--json', type=Path, metavar='REPORT', help='write all faults as json')
    parser.add_argument('--show', type=int, default=5, help='faults of a kind (%(default)s)')
    args = parser.parse_args()
    if args.source.suffix == '.py' and (args.images or args.fix):
        parser.error('--images and --fix go with a json, not with a config')
    if args.source.suffix != '.py' and args.decode and not args.images:
        parser.error('--decode needs --images FOLDER, where the images of the json are')
    if args.fix and args.json and args.fix.resolve() == args.json.resolve():
        parser.error(f'--fix and --json would both write {args.fix}: name another')
    return args


def sources_of(config: Path) -> list[Source]:
    """The COCO data sets of a config's loaders, each once.

    Raises:
        ValueError: the file is not a config, or it has none.
    """
    from mmdet.registry import DATASETS
    from mmengine.registry import init_default_scope

    from condconv_det.analysis.configs import errors_named, load_config
    from condconv_det.data.leaf_datasets import leaf_datasets
    from condconv_det.engine.dataset_check_hook import reads_coco

    cfg = load_config(config)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    sources: dict[tuple[Path, Path], Source] = {}
    with errors_named(f'config {config}'):
        for split in ('train', 'val', 'test'):
            loader = cfg.get(f'{split}_dataloader')
            for dataset in leaf_datasets(loader.dataset) if loader else ():
                cls = DATASETS.get(dataset.type)
                if not reads_coco(cls):
                    print(f'{split}: {dataset.type} does not read COCO json: not checked')
                    continue
                root = dataset.get('data_root') or ''
                ann_file = Path(root, dataset.ann_file)
                images = Path(root, dataset.get('data_prefix', {}).get('img', ''))
                classes = dataset.get('metainfo', cls.METAINFO).get('classes')
                source = Source(ann_file, images, split != 'train', classes)
                same = sources.setdefault((ann_file, images), source)
                if source.evaluated:
                    sources[ann_file, images] = same._replace(evaluated=True)
    if not sources:
        raise ValueError(f'config {config} has no COCO json to check')
    return list(sources.values())


def check_output(out: Path, checked: Iterable[Path]) -> None:
    """Refuses a file that would be written over one that is checked, or into no folder."""

    if not out.parent.is_dir():
        raise FileNotFoundError(f'{out} cannot be written: there is no folder {out.parent}')
    if not out.exists():
        return
    if any(path.exists() and out.samefile(path) for path in checked):
        raise ValueError(f'{out} is the file to check: name another')
    if out.suffix.lower() in SUFFIXES:
        raise ValueError(f'{out} is an image: name another')


def check(source: Source, decode: bool) -> tuple[list[Fault], dict[str, Any] | None]:
    """Faults, and the mended data if there are any."""
    try:
        data = read_coco(source.ann_file, 'utf-8-sig')
    except ValueError as error:
        return [Fault('not COCO json', 'file', str(error))], None
    with source.ann_file.open('rb') as file:
        marked = file.read(len(BOM_UTF8)) == BOM_UTF8
    faults = [Fault('byte-order mark', 'file', 'its first three bytes')] if marked else []
    found = check_coco(data, source.evaluated, source.classes)
    if source.images is None or any(fault.kind == 'not COCO json' for fault in found.faults):
        return faults + found.faults, found.mended
    read_size = decoded_size if decode else loaded_size
    data, missing = with_file_sizes(data, lambda name: Path(source.images, name), read_size)
    files = check_images(data, source.images, read_size=read_size)
    if missing or files.unusable:
        found = check_coco(data, source.evaluated, source.classes, files.unusable)
    return faults + missing + found.faults + files.faults, found.mended


def report(source: Source, faults: list[Fault], show: int) -> None:
    """Prints the faults, the worst first, with so many of each kind."""
    print(source.ann_file)
    order = list(KINDS)

    def rank(fault: Fault) -> tuple[int, int]:
        return LEVELS.index(level(fault, source.evaluated)), order.index(fault.kind)

    for (rank_of_level, number), group in groupby(sorted(faults, key=rank), rank):
        same, kind = list(group), KINDS[order[number]]
        mend = f'; --fix: {kind.mend}' if kind.mend else ''
        print(f'{LEVELS[rank_of_level]}: {order[number]}: {len(same)} (mmdet: {kind.effect}{mend})')
        for fault in same[:show]:
            print(f'  {fault.where}: {fault.detail}')
        if len(same) > show:
            print(f'  ... and {len(same) - show} more')
    numbers = [sum(level(f, source.evaluated) == name for f in faults) for name in LEVELS]
    print(', '.join(f'{n} {name}{"s" * (n != 1)}' for n, name in zip(numbers, LEVELS)))
    if source.images is None:
        print('no image was looked at: say --images FOLDER')


def records_of(source: Source, faults: list[Fault]) -> list[dict[str, Any]]:
    """The faults as plain data."""
    return [
        dict(
            file=str(source.ann_file),
            level=level(fault, source.evaluated),
            **fault._asdict(),
            mend=KINDS[fault.kind].mend,
        )
        for fault in faults
    ]


def write_json(path: Path, data: Any) -> None:
    with written_whole(path) as partial:
        partial.write_text(json.dumps(data))


def write_mended(path: Path, mended: dict[str, Any] | None) -> None:
    if mended is None:
        raise ValueError('errors without "--fix" are for a person: no mended json is written')
    write_json(path, mended)
    images, annotations = len(mended['images']), len(mended['annotations'])
    print(f'{path}: {images} images, {annotations} annotations')


def main() -> int:
    args = parse_args()
    records = []
    try:
        is_config = args.source.suffix == '.py'
        sources = sources_of(args.source) if is_config else [Source(args.source, args.images)]
        for source in sources:
            if not source.ann_file.exists():
                named = f', which {args.source} names,' if is_config else ''
                raise FileNotFoundError(f'{source.ann_file}{named} does not exist')
        for out in filter(None, (args.fix, args.json)):
            check_output(out, [args.source, *(source.ann_file for source in sources)])
        for source in sources:
            faults, mended = check(source, args.decode)
            report(source, faults, args.show)
            records += records_of(source, faults)
        # before --fix, which refuses what a person must see in the report
        if args.json:
            write_json(args.json, records)
        if args.fix:  # which goes with a single json
            write_mended(args.fix, mended)
    except (ValueError, OSError, ImportError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    return int(any(record['level'] == 'error' for record in records))


if __name__ == '__main__':
    run(main)
