"""Writes a detector as ONNX or as a program of torch.export."""

import copy
import json
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from mmengine.config import ConfigDict

from condconv_det.layers import CondConv2d
from condconv_det.ops import any_batch_conv2d, single_image_conv2d

from .cast_experts import cast_experts
from .exportable import ExportableDetector
from .fold_batch_norm import fold_batch_norm
from .suppression import suppress_at_once

Say = Callable[[str], None]
# onnx-cpu is for ONNX Runtime on CPUs like this one, see `lay_out_kernels`
SUFFIXES = {'onnx': '.onnx', 'onnx-cpu': '.onnx', 'torch-export': '.pt2'}
METADATA = 'condconv_det'  # the key in an ONNX file's metadata; with .json, the file in a .pt2
MIN_TORCH = (2, 14)


def check_environment(format: str) -> None:
    """Raises ImportError, which says what to install, unless this environment can export."""
    version = tuple(map(int, torch.__version__.split('.')[:2]))
    if version < MIN_TORCH:
        needed = '.'.join(map(str, MIN_TORCH))
        raise ImportError(
            f'export needs torch >= {needed}, the oldest it is tested with; this is '
            f'{torch.__version__}'
        )
    packages = ('onnx', 'onnxscript', 'onnxruntime') if SUFFIXES[format] == '.onnx' else ()
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ImportError(
            f'--format {format} needs {", ".join(missing)}: '
            "install them with `pip install -e '.[deploy]'`"
        )


def check_format(format: str, batch: int | None, half_experts: bool = False) -> None:
    """Raises ValueError unless there is such a format for this batch and these experts."""
    if format not in SUFFIXES:
        raise ValueError(f'format must be one of {", ".join(SUFFIXES)}, got {format!r}')
    if format == 'onnx-cpu' and batch != 1:
        given = 'any' if batch is None else batch
        raise ValueError(f'onnx-cpu takes one image a call, got a batch of {given}')
    if format == 'onnx-cpu' and half_experts:
        raise ValueError('onnx-cpu mixes experts in float32, and keeps them so, not in float16')


def prepare(
    detector: ExportableDetector,
    batch: int | None,
    half_experts: bool = False,
    mixes_depthwise: bool = False,
) -> ExportableDetector:
    """A copy to be exported: norms folded, and operations that do not depend on the batch.

    Args:
        detector: is not changed.
        batch: as in `write_export`.
        half_experts: whether experts become float16; they are widened before they are mixed.
        mixes_depthwise: as in `single_image_conv2d`, of a batch of one.
    """
    prepared = copy.deepcopy(detector)
    prepared.model = fold_batch_norm(prepared.model)
    if half_experts:
        prepared.model = cast_experts(prepared.model, torch.float16)
    of_one = partial(single_image_conv2d, mixes_depthwise=mixes_depthwise)
    for layer in prepared.modules():
        if isinstance(layer, CondConv2d):
            layer.convolve = of_one if batch == 1 else any_batch_conv2d
    return prepared.requires_grad_(False)


def write_export(
    detector: ExportableDetector,
    path: Path,
    format: str,
    batch: int | None,
    half_experts: bool = False,
    classes: Sequence[str] = (),
    say: Say = lambda stage: None,
) -> None:
    """Writes a detector to a file.

    Args:
        detector: is not changed.
        path: of the file.
        format: one of `SUFFIXES`.
        batch: number of images in each call; None leaves it open.
        half_experts: as in `prepare`.
        classes: names, for the file's metadata.
        say: is told of each stage as it begins.

    Raises:
        ImportError: torch is too old, or a package is missing.
        ValueError: the format is unknown, or does not go with the batch or the experts.
    """
    check_format(format, batch, half_experts)
    check_environment(format)
    about = describe(detector, classes)
    say('tracing the network')
    lays_out = format == 'onnx-cpu'
    prepared = prepare(detector, batch, half_experts, mixes_depthwise=lays_out)
    # of a batch of one torch.export would conclude that all are
    images = torch.zeros(batch or 2, 3, *detector.size, device=detector.priors.device)
    dynamic_shapes = ({0: torch.export.Dim('batch')},) if batch is None else None
    if SUFFIXES[format] == '.onnx':
        from . import onnx_conv, onnx_nms, onnx_pool

        prepared.suppress = onnx_nms.suppress_in_onnx
        if batch is None:
            for layer in prepared.modules():
                if isinstance(layer, CondConv2d):
                    layer.convolve = partial(any_batch_conv2d, convolve=onnx_conv.convolve_in_onnx)
        traced = torch.export.export(prepared, (images,), dynamic_shapes=dynamic_shapes)
        say('translating it into ONNX')
        program = torch.onnx.export(
            traced,
            input_names=['images'],
            output_names=detector.output_names,
            dynamic_shapes=dynamic_shapes,  # names the axis
            custom_translation_table={
                **onnx_conv.translations(),
                **onnx_nms.translations(),
                **onnx_pool.translations(),
            },
            dynamo=True,
            verbose=False,
        )
        if lays_out:
            from . import lay_out

            say('laying out the kernels')
            if (laid_out := lay_out.lay_out_kernels(program.model)) is None:
                say('no kernels are mixed, so it is a plain file')
            else:
                program.model = laid_out
                about['channels_per_block'] = lay_out.channels_per_block()
        say('writing the file')
        program.model.metadata_props[METADATA] = json.dumps(about)
        program.save(path, external_data=False)
    else:
        if batch is None:
            prepared.suppress = suppress_at_once
        program = torch.export.export(prepared, (images,), dynamic_shapes=dynamic_shapes)
        say('writing the file')
        torch.export.save(program, path, extra_files={f'{METADATA}.json': json.dumps(about)})


def describe(detector: ExportableDetector, classes: Sequence[str] = ()) -> dict[str, Any]:
    """What a file says of itself, for whoever runs it; see docs/export.md."""
    preprocessor = detector.model.data_preprocessor
    pixel = torch.full((3,), float(preprocessor.pad_value))
    if preprocessor._enable_normalize:
        pixel = (preprocessor.mean + preprocessor.pad_value * preprocessor.std).flatten()
    pixel = pixel.tolist()
    return dict(
        size=list(detector.size),
        num_classes=detector.model.bbox_head.num_classes,
        classes=list(classes),
        with_nms=detector.with_nms,
        test_cfg=ConfigDict(detector.model.test_cfg).to_dict(),
        level_sizes=detector.level_sizes,
        # as the file takes its channels; normalised, it is what training pads images with
        pad_pixel=pixel[::-1] if preprocessor._channel_conversion else pixel,
    )
