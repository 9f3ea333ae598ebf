"""Makes a data set of your own ready to train on: one command from images and boxes to two configs.

    new_config.py data/mine --out work_dirs/mine

Reads COCO json, Pascal VOC or the text files of YOLO, in folders of any name; decodes each image,
leaves out what cannot be used and names it; splits into train, val and test with near-duplicates
in one split; and writes, sized to the set, the config of a static detector and that of its CondConv
twin. Then it prints the commands that train and test them. The first trains the backbone on drawn
shapes: a hundred photographs are too few to learn from with nothing to start from.

Five faults of each kind go to stderr, one a line; all go into OUT/faults.txt. Exit codes: 0, though
there may be faults, 2 nothing was written.
"""

import argparse
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from condconv_det.command_line import run
from condconv_det.data.fault import Fault, counted

if TYPE_CHECKING:
    from condconv_det.data.prepare import Prepared

SHAPES = Path(__file__).parents[1] / 'configs' / 'shapes'
DETECTORS = ('ssd300', 'ssdlite', 'retinanet')
PLACES = ('head', 'late', 'everywhere')
NUM_NAMED = 5  # faults of a kind that are printed
NO_LEAKS = 'none has one in another split'


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', type=Path, help='folder of images and boxes, or a COCO json')
    parser.add_argument(
        '--out', type=Path, required=True, help='folder for annotations and configs'
    )
    parser.add_argument('--detector', choices=DETECTORS, default=DETECTORS[0], help='(%(default)s)')
    parser.add_argument(
        '--experts',
        choices=PLACES,
        default=PLACES[0],
        help="where they are: head, its layers alone; late, the paper's backbone layers and SSD's "
        'neck; everywhere, all layers of backbone, neck and head (%(default)s)',
    )
    parser.add_argument(
        '--weights',
        default='shapes',
        metavar='FILE',
        help="checkpoint that the backbone starts from, such as convert_checkpoint.py's; 'shapes': "
        "trained on drawn shapes first, by a command that is printed; 'none': from scratch "
        '(%(default)s)',
    )
    parser.add_argument('--images', type=Path, help='folder of the images, if not in SOURCE')
    parser.add_argument(
        '--format', choices=('coco', 'voc', 'yolo'), help='if SOURCE has boxes in several'
    )
    parser.add_argument(
        '--classes',
        nargs='+',
        help='those to keep, in this order; where the numbers of YOLO have no names, a name for '
        'each, in the order of the numbers',
    )
    parser.add_argument(
        '--ratios',
        nargs=3,
        type=float,
        metavar=('TRAIN', 'VAL', 'TEST'),
        default=(0.7, 0.15, 0.15),
        help='parts of the images (0.7 0.15 0.15)',
    )
    parser.add_argument('--seed', type=int, default=0, help='of the split (%(default)s)')
    parser.add_argument(
        '--group-by',
        metavar='KEY',
        help="keep images together that have one value of a key of COCO's image records, or of "
        "'folder'",
    )
    parser.add_argument(
        '--alike',
        type=float,
        default=0.98,
        help='correlation of thumbnails from which images are near-duplicates, kept together; 2: '
        'none are (%(default)s)',
    )
    parser.add_argument(
        '--resplit', action='store_true', help='split anew though SOURCE has splits of its own'
    )
    parser.add_argument('--name', help="of the data set, in the configs' names (SOURCE's)")
    args = parser.parse_args()
    if args.name is None:
        args.name = re.sub(r'[^\w-]+', '-', args.source.resolve().stem).strip('-') or 'mine'
    return args


def main() -> int:
    args = parse_args()

    from condconv_det.compat.checkpoints import CheckpointError
    from condconv_det.data.prepare import prepare
    from condconv_det.study import twins

    tools = Path(sys.argv[0]).parent
    detector = twins.DETECTORS[args.detector]
    drawn = Path(os.path.relpath(SHAPES / detector.drawn))
    draw = []
    if args.weights == 'shapes':
        start = Path('work_dirs', drawn.stem, f'epoch_{_epochs(drawn)}.pth')
        draw = [
            _command(tools, 'make_shapes.py', 'data/shapes'),
            _command(tools, 'train.py', drawn, *detector.drawn_options),
        ]
    else:
        start = None if args.weights == 'none' else Path(args.weights)
    try:
        twins.check_names(args.detector, args.name)
        if args.weights not in ('shapes', 'none'):
            if not start.is_file():
                raise ValueError(
                    f"--weights must be 'shapes', 'none' or a checkpoint, got {args.weights!r}, "
                    'which is no file'
                )
            twins.check_start(args.detector, start)
        done = prepare(
            args.source,
            args.out,
            images=args.images,
            format=args.format,
            classes=args.classes,
            ratios=dict(zip(('train', 'val', 'test'), args.ratios)),
            seed=args.seed,
            group_by=args.group_by,
            alike=args.alike,
            resplit=args.resplit,
        )
        static, condconv = twins.write_twins(
            done, args.out, args.detector, args.name, args.source.name, start, args.experts, draw
        )
    except (ValueError, OSError, CheckpointError) as error:
        print(f'error: {error}', file=sys.stderr)
        return 2
    named = _report_faults(done.faults, args.out / 'faults.txt')
    print(f'{done.format}: {", ".join(done.classes)}; faults: {named}')
    for split, path in done.files.items():
        boxes = ', '.join(f'{name} {done.boxes[split][name]}' for name in done.classes)
        kept = ", the source's own" if split in done.kept_splits else ''
        images = counted(done.num_images[split], 'image')
        print(f'{split}: {images}{kept}, boxes: {boxes}; {path}')
    together = 'near-duplicates' + f' or of one {args.group_by}' * bool(args.group_by)
    where = f'{done.leaks} of val and test have one in another split'
    print(f'{together}: {counted(done.alike, "image")}, {where if done.leaks else NO_LEAKS}')
    for note in _notes(done):
        print(f'note: {note}')
    if args.weights == 'shapes' and start.exists():
        print(f'The backbone starts from {start}, which is there.')
    elif args.weights == 'shapes':
        print('Train the backbone on drawn shapes, for features to start from:')
        _print_indented(*draw)
    print('Train the static detector and its CondConv twin, and test both:')
    trained = [
        (config, config.with_suffix('') / f'epoch_{_epochs(config)}.pth')
        for config in (static, condconv)
    ]
    _print_indented(
        *(_command(tools, 'train.py', config) for config, _ in trained),
        *(_command(tools, 'test.py', *names) for names in trained),
    )
    return 0


def _report_faults(faults: list[Fault], path: Path) -> str:
    """Names some of each kind on stderr, all in a file; returns how many, and where."""
    path.unlink(missing_ok=True)  # an earlier call's
    if not faults:
        return '0'
    lines = ''.join(f'{fault}\n' for fault in faults)
    path.write_text(lines, encoding='utf-8', errors='backslashreplace')
    kinds: Counter[str] = Counter()
    for fault in faults:
        kinds[fault.kind] += 1
        if kinds[fault.kind] <= NUM_NAMED:
            print(f'fault: {fault}', file=sys.stderr)
    for kind, count in kinds.items():
        if count > NUM_NAMED:
            print(f'fault: {kind}: {count - NUM_NAMED} more, in {path}', file=sys.stderr)
    return f'{len(faults)}, all in {path}'


def _notes(done: 'Prepared') -> Iterator[str]:
    """What is no fault, but may not be what is meant."""
    from condconv_det.study import sizing

    spellings: dict[str, list[str]] = {}
    for name in done.classes:
        spellings.setdefault(name.casefold(), []).append(name)
    for names in spellings.values():
        if len(names) > 1:
            yield f'{" and ".join(names)} differ in case alone and are {len(names)} classes'
    measured = done.boxes['val'] + done.boxes['test']
    without = [name for name in done.classes if measured[name] and not done.boxes['train'][name]]
    if without:
        yield f'train has no box of {", ".join(without)}, which cannot be learned and counts as 0'
    if done.background:
        images = counted(done.background, 'image')
        yield f'train has {images} without boxes, which its random crops leave out'
    tiny = sizing.part_below_a_cell(done.sides)
    if tiny > sizing.SMALLEST:
        yield (
            f'{tiny:.0%} of the boxes in train are below {sizing.BACKBONE_STRIDES[0]} pixels, a '
            f'cell of the finest map, at the {sizing.INPUT_SIZE} that images are resized to: cut '
            'these into parts'
        )
    for split in ('val', 'test'):
        without = [name for name in done.classes if not done.boxes[split][name]]
        if without:
            yield f'{split} has no box of {", ".join(without)}, which its mAP leaves out'


def _epochs(config: Path) -> str:
    return re.search(r'-(\d+)e_', config.name)[1]


def _command(tools: Path, tool: str, *arguments: str | Path) -> str:
    return f'python {shlex.join([str(tools / tool), *map(str, arguments)])}'


def _print_indented(*lines: str) -> None:
    print(*(f'  {line}' for line in lines), sep='\n')


if __name__ == '__main__':
    run(main)
