"""From a config and a checkpoint to a file that has been held to both."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config
from torch import Tensor, nn

from condconv_det.analysis.configs import build_model, errors_named, first_dataset
from condconv_det.data.check_coco import read_coco
from condconv_det.data.whole_files import written_whole
from condconv_det.layers import CondConv2d
from condconv_det.weights.trained import read_trained

from .agreement import agreement
from .check import Comparison, Run, compare, open_file, random_images, read_images
from .exportable import ExportableDetector
from .images import check_colour
from .merge_experts import merge_experts
from .site_images import SiteImages, images_of_split, predict, record_routing
from .write import SUFFIXES, Say, check_environment, check_format, write_export

# of `merge_experts`, from the largest that is tried to the smallest
TOLERANCES = (0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.015, 0.01, 0.005)
MOST_IMAGES = 200  # that experts are merged by
OPEN_BATCHES = (1, 2, 5)  # that a file for any batch is tried with
TIES = (
    '; scores that are nearly equal, as those of a detector that was hardly trained, may suppress '
    'each other the other way round: train it longer, or leave out --nms'
)


class ExportError(RuntimeError):
    """PyTorch cannot write the network, or what was written computes something else."""


@dataclass(frozen=True)
class Merged:
    """What `merge_experts` made of a network.

    Args:
        before, after: parameters of all experts.
        images: whose routing weights it went by.
        agreement: of the detections in them with the network's before, 0 to 1.
    """

    before: int
    after: int
    images: int
    agreement: float


@dataclass(frozen=True)
class Export:
    """A file, and how it compared with PyTorch.

    Args:
        merged: None where experts are as they were trained.
    """

    file: Path
    comparisons: list[Comparison]
    merged: Merged | None = None


def export_detector(
    cfg: Config,
    checkpoint: Path,
    out: Path,
    format: str,
    batch: int | None,
    size: tuple[int, int],
    with_nms: bool = False,
    half_experts: bool = False,
    least_agreement: float | None = None,
    image_files: Sequence[Path] = (),
    say: Say = lambda stage: None,
) -> Export:
    """Writes a config's detector with a checkpoint's weights, and runs the file to see it done.

    Args:
        cfg, checkpoint: of the detector.
        out: file to write, .onnx or .pt2; it is there whole and checked, or not at all.
        format: one of `SUFFIXES`.
        batch: number of images in a call, None for any.
        size: height and width.
        with_nms: whether to suppress overlapping boxes in the file.
        half_experts: whether experts are kept in float16.
        least_agreement: merges experts as far as detections agree by this much with those of the
            network before, see `agreement`; None leaves the experts as they are. Where it leaves
            none, the file is a static detector's, whatever was asked for experts.
        image_files: real images to compare on, and to merge experts by; empty for the first of the
            config's test set, and some of its validation set.
        say: is told of each stage as it begins.

    Raises:
        ValueError: an option or the detector is not supported.
        ImportError: torch is too old, or a package is missing.
        OSError: there is no such checkpoint or image, or `out` can't be written.
        CheckpointError: the checkpoint is damaged or does not fit the config.
        ExportError: PyTorch or ONNX does not take the network; or file and PyTorch differ by more
            than 0.5 pixels or 0.001 of a score; or no merging keeps to `least_agreement`.
    """
    check_format(format, batch, half_experts)
    if out.suffix != SUFFIXES[format]:
        raise ValueError(f'--format {format} writes {SUFFIXES[format]}, got {out}')
    check_environment(format)
    say('building the detector')
    model, classes = load_detector(cfg, checkpoint)
    for_experts = half_experts or format == 'onnx-cpu'
    if for_experts and not _expert_parameters(model):
        option = '--half-experts' if half_experts else f'--format {format}'
        raise ValueError(
            f'{option} is for experts, of which {type(model).__name__} has none: it is static, '
            'export it without'
        )
    with errors_named(f'--size {size[0]}x{size[1]}'):  # which may be too small for a layer
        detector = ExportableDetector(model, size, with_nms)
    merged = None
    with written_whole(out) as partial:  # before it takes long
        if least_agreement is not None:
            say('merging experts')
            model, merged = _merge(cfg, model, size, image_files, least_agreement)
            detector = ExportableDetector(model, size, with_nms)
            if for_experts and not merged.after:
                say('no experts are left, so it is a plain file')
                format, half_experts = 'onnx' if format == 'onnx-cpu' else format, False
        shown = list(image_files)[: batch or max(OPEN_BATCHES)] or _test_images(cfg)
        real = read_images(shown, size)
        try:
            write_export(detector, partial, format, batch, half_experts, classes, say)
            say('checking the file')
            run = open_file(partial, format)
            comparisons = _compare_all(run, detector, batch, real, say)
        except OSError:
            raise
        except Exception as error:  # those of exporters, checker and runtime have none in common
            reason = f'{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}'
            raise ExportError(f'{out} is not written: {reason}') from error
        for row in comparisons:
            if not row.agrees:
                raise ExportError(
                    f'{out} is not written: for {row.batch} {row.kind} images it differs from '
                    f'PyTorch by {row.pixels:.2g} pixels and {row.score:.2g} of a score; allowed '
                    f'are 0.5 and 0.001{TIES if with_nms else ""}'
                )
    return Export(out, comparisons, merged)


def _merge(
    cfg: Config,
    model: nn.Module,
    size: tuple[int, int],
    image_files: Sequence[Path],
    least_agreement: float,
) -> tuple[nn.Module, Merged]:
    """Merges experts by the largest of `TOLERANCES` that keeps to an agreement, by bisection."""
    images = SiteImages(_resized_to(size), _images_to_merge_by(cfg, image_files))
    found, weights = record_routing(model, images, 'Routing')
    fits: tuple[nn.Module, Merged] | None = None
    tolerances = list(TOLERANCES)
    while tolerances:
        middle = len(tolerances) // 2
        merged = merge_experts(model, weights, tolerances[middle])
        agreed = agreement(found, predict(merged, images))
        if agreed >= least_agreement:
            sizes = map(_expert_parameters, (model, merged))
            fits = merged, Merged(*sizes, len(images.files), agreed)
            tolerances = tolerances[:middle]
        else:
            tolerances = tolerances[middle + 1 :]
    if fits is None:
        raise ExportError(
            f'merged by a tolerance of {TOLERANCES[-1]}, experts agree by {agreed:.4f} with those '
            f'before, on {len(images.files)} images; asked for is {least_agreement:g}'
        )
    return fits


def _images_to_merge_by(cfg: Config, image_files: Sequence[Path]) -> list[Path]:
    try:
        files = list(image_files) or images_of_split(cfg, limit=MOST_IMAGES)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{error}; or name images with --images') from error
    if len(files) < 2:
        raise ValueError(
            f'experts are merged by how routing varies over at least 2 images, got {len(files)}; '
            'name more with --images'
        )
    return files


def _resized_to(size: tuple[int, int]) -> Config:
    """A test pipeline that gives images as the file takes them, whatever the config's does."""
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=size[::-1], keep_ratio=False),
        dict(type='PackDetInputs', meta_keys=('ori_shape', 'img_shape', 'scale_factor')),
    ]
    return Config(dict(test_dataloader=dict(dataset=dict(pipeline=pipeline))))


def _expert_parameters(model: nn.Module) -> int:
    layers = (layer for layer in model.modules() if isinstance(layer, CondConv2d))
    return sum(layer.weight.numel() for layer in layers)


def load_detector(cfg: Config, checkpoint: Path) -> tuple[nn.Module, tuple[str, ...]]:
    """A config's detector with a checkpoint's weights, every one of them, and its classes' names.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        CheckpointError: it is damaged, or does not fit the config.
        ValueError: the config has no detector, or one of grey images.
    """
    if cfg.get('default_scope', 'mmdet') != 'mmdet':
        raise ValueError(f'detectors are exported, got a config of {cfg.default_scope}')
    check_colour(cfg)
    model = build_model(cfg).eval()
    weights, meta = read_trained(model, checkpoint)
    model.load_state_dict(weights)
    return model, tuple((meta.get('dataset_meta') or {}).get('classes') or ())


def _compare_all(
    run: Run, detector: ExportableDetector, batch: int | None, real: Tensor, say: Say
) -> list[Comparison]:
    """Comparisons on random images and, if there are any, real ones, [B, 3, H, W]."""
    comparisons = []
    for count in OPEN_BATCHES if batch is None else (batch,):
        say(f'comparing it with PyTorch on {count} image{"s" * (count > 1)}')
        kinds = {'random': random_images(count, detector.size)}
        if len(real):
            kinds['real'] = real[torch.arange(count) % len(real)]
        comparisons += [compare(run, detector, images, kind) for kind, images in kinds.items()]
    return comparisons


def _test_images(cfg: Config) -> list[Path]:
    """The first images of a config's test set in COCO json, none where it is not on disk.

    Raises:
        ValueError: the json is there, but holds no list of images.
    """
    dataset = first_dataset(cfg)
    root = Path(dataset.get('data_root') or '')
    annotations = root / dataset.get('ann_file', '')
    if annotations.suffix != '.json' or not annotations.is_file():
        return []
    folder = root / dataset.get('data_prefix', {}).get('img', '')
    data = read_coco(annotations)
    try:
        files = [folder / image['file_name'] for image in data['images'][: max(OPEN_BATCHES)]]
    except (KeyError, TypeError) as error:
        raise ValueError(
            f'{annotations} is not COCO json: expected "images" to be a list of objects with a '
            'file_name each; tools/check_dataset.py names what is wrong'
        ) from error
    return [file for file in files if file.is_file()]
