"""Configs of a static detector and its CondConv twin, sized to a data set of its user's own."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from condconv_det.data.coco_files import SPLITS
from condconv_det.data.prepare import Prepared
from condconv_det.data.whole_files import written_whole

from .sizing import BACKBONE_STRIDES, INPUT_SIZE, Anchors, Schedule, place_anchors, plan_schedule

EXPERTS = 8
# the head alone, the paper's backbone layers and SSD's neck, and all from the first block on
PLACES = ('head', 'late', 'everywhere')
WARM_UP = 100  # steps


@dataclass(frozen=True)
class Detector:
    """What a config needs to know of a detector.

    Args:
        name: of the config, as mmdet names them; also its part in configs/_base_/own.
        title: for people.
        stages: of the backbone, as `out_indices` names those at strides 4, 8, 16 and 32.
        channels: that they give.
        drawn: config, in configs/shapes, that trains its backbone on drawn shapes.
        extra_channels: of the levels that the neck adds; none has a pyramid, whose are alike.
        head_norm: whether the head has depthwise layers with batch norms.
        drawn_options: of that config's training, at a better learning rate than its own.
    """

    name: str
    title: str
    stages: tuple[int, ...]
    channels: tuple[int, ...]
    drawn: str
    extra_channels: tuple[int, ...] = ()
    head_norm: bool = False
    drawn_options: tuple[str, ...] = ()

    @property
    def has_pyramid(self) -> bool:
        return not self.extra_channels


DETECTORS = {
    'ssd300': Detector(
        'ssd300_mobilenet-v1-0.5',
        'SSD300 on MobileNetV1 0.5',
        (1, 2, 3, 4),
        (64, 128, 256, 512),
        'ssd128_mobilenet-v1-0.5_1xb8-5e_shapes.py',
        (256, 128),
        drawn_options=('--cfg-options', 'optim_wrapper.optimizer.lr=16e-3'),
    ),
    'ssdlite': Detector(
        'ssdlite300_mobilenet-v2',
        'SSDLite on MobileNetV2 at 300 pixels',
        (1, 2, 4, 7),
        (24, 32, 96, 1280),
        'ssdlite128_mobilenet-v2_1xb8-5e_shapes.py',
        (256, 128),
        head_norm=True,
    ),
    'retinanet': Detector(
        'retinanet300_effb0',
        'RetinaNet on EfficientNet-B0 at 300 pixels',
        (2, 3, 4, 5),
        (24, 40, 112, 320),
        'retinanet128_effb0_1xb8-10e_shapes.py',
    ),
}


def check_names(detector: str, name: str) -> None:
    """Checks what `write_twins` is asked for, before a data set is prepared for it.

    Raises:
        ValueError: there is no such detector, or the name cannot be part of a config's.
    """
    if detector not in DETECTORS:
        raise ValueError(f'detector must be one of {", ".join(DETECTORS)}, got {detector!r}')
    if not re.fullmatch(r'\w[\w-]*', name):
        raise ValueError(f'a data set is named by letters, digits, "_" and "-", got {name!r}')


def check_start(detector: str, start: Path) -> None:
    """Checks that a detector's backbone can start from the weights of a file.

    Raises:
        CheckpointError: it is no checkpoint, or does not fit the backbone.
    """
    base = f"_base_ = '{_base(DETECTORS[detector])}'"
    backbone = Config.fromstring(base, '.py').model.backbone
    init_default_scope('mmdet')
    pretrained = dict(type='Pretrained', checkpoint=str(start), prefix='backbone.')
    MODELS.build(dict(backbone, init_cfg=pretrained)).init_weights()


def write_twins(
    prepared: Prepared,
    out: Path,
    detector: str,
    name: str,
    source: str,
    start: Path | None = None,
    experts: str = PLACES[0],
    trained_by: Sequence[str] = (),
) -> tuple[Path, Path]:
    """Writes a detector's config for a data set, and that of its CondConv twin.

    The twins differ by the switch, and by how experts and routers learn: kernels start and move as
    the static ones do. Each trains into the folder of its name beside it. What they share with
    others they inherit from `configs/_base_/own`.

    Args:
        prepared: the data set.
        out: folder.
        detector: one of `DETECTORS`.
        name: of the data set, for the file names.
        source: what the configs say they were made from.
        start: checkpoint with the weights that the backbone starts from, under `backbone.`, which
            may come later; None starts from scratch.
        experts: where they are, one of `PLACES`.
        trained_by: commands that make `start`, for tools/train.py to name where it is missing.

    Raises:
        ValueError: see `check_names`.
        OSError: a file cannot be written.
    """
    check_names(detector, name)
    kind = DETECTORS[detector]
    schedule = plan_schedule(prepared.num_images['train'])
    tail = f'1xb{schedule.batch}-{schedule.epochs}e_{name}.py'
    static = out / f'{kind.name}_{tail}'
    place = '' if experts == 'late' else f'-{experts}'  # the paper's needs no word
    condconv = out / f'{kind.name}-condconv-e{EXPERTS}{place}_{tail}'
    texts = {
        static: _static_text(prepared, kind, schedule, source, start, trained_by),
        condconv: f"_base_ = './{static.name}'\n\n{_switch(kind, experts)}",
    }
    for path, text in texts.items():
        # beside the config: two data sets of one name must not share it
        work_dir = f'\nwork_dir = {str(path.with_suffix("").resolve())!r}\n'
        with written_whole(path) as partial:
            partial.write_text(text + work_dir)
    return static, condconv


def _base(kind: Detector) -> str:
    return f'condconv_det::_base_/own/{kind.name}.py'


def _switch(kind: Detector, place: str) -> str:
    experts = f"num_experts={EXPERTS}, init='one-kernel'"
    by_conv_cfg = f"conv_cfg=dict(type='CondConv2d', {experts})"
    everywhere = place == 'everywhere'
    parts = {}
    if place != 'head':
        parts['backbone'] = [f'cond_cfg=dict({"start=1, " * everywhere}{experts})']
        if everywhere or not kind.has_pyramid:
            parts['neck'] = [by_conv_cfg]
    if place != 'late':  # cond_cfg routes SSD's predictors, conv_cfg what is depthwise before them
        parts['bbox_head'] = [f'cond_cfg=dict({experts})', *[by_conv_cfg] * kind.head_norm]
    lines = ''.join(f'\n    {part}={_dict(arguments)},' for part, arguments in parts.items())
    return f"""model = dict({lines}
)
# kernels start and move as the static ones do, and routers slowly: see docs/when.md
optim_wrapper = dict(
    constructor='CondConvOptimWrapperConstructor',
    paramwise_cfg=dict(expert_lr_mult='matched', custom_keys=dict(router=dict(lr_mult=0.1))),
)
"""


def _dict(arguments: Sequence[str]) -> str:
    """Python's text of a dict, an argument a line where there are several."""
    if len(arguments) == 1:
        return f'dict({arguments[0]})'
    return 'dict(' + ''.join(f'\n        {argument},' for argument in arguments) + '\n    )'


def _static_text(
    prepared: Prepared,
    kind: Detector,
    schedule: Schedule,
    source: str,
    start: Path | None,
    trained_by: Sequence[str],
) -> str:
    images, annotations = prepared.num_images, prepared.files['train'].parent.resolve()
    anchors = place_anchors(prepared.sides)
    write_model = _retinanet if kind.has_pyramid else _ssd
    total = schedule.epochs * schedule.steps
    init_cfg = ''
    if start:
        checkpoint = f'checkpoint={str(start.resolve())!r}'
        init_cfg = f"""
        init_cfg=dict(
            type='Pretrained',
            {checkpoint},
            prefix='backbone.',
        ),"""
    made = ''
    if trained_by:
        commands = ''.join(f'    {command!r},\n' for command in trained_by)
        made = f'\ntrained_by = (  # what the backbone starts from\n{commands})\n'
    batch = {'train': f'batch_size={schedule.batch}, '}
    loaders = '\n'.join(
        f'{split}_dataloader = dict({batch.get(split, "")}'
        f"dataset=dict(ann_file=annotations + '{split}.json', **own))"
        for split in SPLITS
    )
    return f"""# {kind.title} for {source}: {images['train']} images to train on, {images['val']} \
to
# validate and {images['test']} to test. Sized by tools/new_config.py.
_base_ = '{_base(kind)}'

annotations = {f'{annotations}/'!r}
own = dict(
    metainfo=dict(classes={prepared.classes!r}),
    data_prefix=dict(img={f'{prepared.images}/'!r}),
)
{loaders}
val_evaluator = dict(ann_file=annotations + 'val.json')
test_evaluator = dict(ann_file=annotations + 'test.json')

# at {INPUT_SIZE} pixels, nine tenths of the boxes have sides of {anchors.smallest:.0f} to \
{anchors.largest:.0f}
{write_model(kind, anchors, len(prepared.classes), schedule.momentum, init_cfg)}{made}
# {schedule.epochs} epochs * {schedule.steps} steps of {schedule.batch} images = {total:,} steps
max_epochs = {schedule.epochs}
train_cfg = dict(max_epochs=max_epochs, val_interval={schedule.interval})
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end={WARM_UP}),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        eta_min=0,
        begin=0,
        end=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
default_hooks = dict(
    logger=dict(interval={schedule.steps}),
    checkpoint=dict(interval={schedule.interval}),
)
"""


def _ssd(kind: Detector, anchors: Anchors, num_classes: int, momentum: float, init_cfg: str) -> str:
    first = BACKBONE_STRIDES.index(anchors.strides[0])
    stages, taps = kind.stages[first:], len(kind.stages) - first
    extras = len(anchors.strides) - taps
    channels = (*kind.channels[first:], *kind.extra_channels[:extras])
    sides = ', '.join(str(math.ceil(INPUT_SIZE / stride)) for stride in anchors.strides)
    low, high = (float(f'{side / INPUT_SIZE:.2g}') for side in (anchors.smallest, anchors.top))
    norm = f'norm_cfg=dict(momentum={momentum})'
    head_norm = f'\n        {norm},' if kind.head_norm else ''
    return f"""channels = {channels}
model = dict(
    backbone=dict(
        out_indices={stages},
        {norm},{init_cfg}
    ),
    neck=dict(
        in_channels=channels[:{taps}],
        out_channels=channels,
        level_strides={(2,) * extras},
        level_paddings={('same',) * extras},
        {norm},
    ),
    bbox_head=dict(
        num_classes={num_classes},
        in_channels=channels,
        anchor_generator=dict(
            strides=[{INPUT_SIZE} / side for side in ({sides})],
            scale_range=({low}, {high}),
        ),{head_norm}
    ),
)
"""


def _retinanet(kind: Detector, anchors: Anchors, num_classes: int, _: float, init_cfg: str) -> str:
    first = BACKBONE_STRIDES.index(anchors.strides[0])
    stages, channels = kind.stages[first:], kind.channels[first:]
    # two sizes an octave, up to one that overlaps the largest boxes by two thirds
    octaves = math.log2(anchors.largest / anchors.smallest / 1.2) - 0.5
    levels = min(max(1 + math.ceil(octaves), 3, len(stages)), 5)
    strides = [anchors.strides[0] * 2**level for level in range(levels)]
    return f"""model = dict(
    backbone=dict(
        out_indices={stages},{init_cfg}
    ),
    neck=dict(in_channels={list(channels)}, num_outs={levels}),
    bbox_head=dict(
        num_classes={num_classes},
        anchor_generator=dict(
            octave_base_scale={anchors.smallest / anchors.strides[0]:.2g},
            strides={strides},
        ),
    ),
)
"""
