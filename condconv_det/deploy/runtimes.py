"""Files of tools/export.py in the runtimes that run ONNX."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy import ndarray

from .write import METADATA

MIN_OPENVINO = (2026, 4)  # the oldest it was tried with


@dataclass(frozen=True)
class OpenedFile:
    """An exported file, ready to run on the CPU.

    Args:
        run: from images [B, 3, H, W], float32, to the file's outputs.
        batch: B; None if it is open.
        about: what the file says of itself, see `write.describe`.
    """

    run: Callable[[ndarray], Sequence[ndarray]]
    batch: int | None
    about: dict[str, Any]


def open_onnx(file: Path, runtime: str = 'onnx', threads: int | None = None) -> OpenedFile:
    """Opens an exported file.

    Args:
        file: .onnx.
        runtime: one of `RUNTIMES`: 'onnx' for ONNX Runtime, or 'openvino'.
        threads: of one call; None leaves it to the runtime.

    Raises:
        ImportError: the runtime is not installed, or is older than what was tried.
        FileNotFoundError: there is no such file.
        ValueError: there is no such runtime, it does not take the file, or the file is not one of
            tools/export.py.
    """
    if runtime not in RUNTIMES:
        raise ValueError(f'runtime must be one of {", ".join(RUNTIMES)}, got {runtime!r}')
    name, opened = RUNTIMES[runtime]
    check_runtime(runtime)
    if not file.is_file():
        raise FileNotFoundError(f'{file} does not exist')
    if file.suffix != '.onnx':
        raise ValueError(f'{name} runs .onnx files of tools/export.py, got {file}')
    try:
        run, batch, about = opened(file, threads)
    except Exception as error:  # the runtimes' errors have no class in common
        reason = str(error).strip().splitlines()[-1]
        raise ValueError(f'{file} is not an ONNX file that {name} takes: {reason}') from error
    if about is None:
        raise ValueError(f'{file} is not a file of tools/export.py: its metadata lack {METADATA!r}')
    about = json.loads(about)
    _check_layout(file, about.get('channels_per_block'))
    return OpenedFile(run, batch if isinstance(batch, int) else None, about)


def _check_layout(file: Path, channels: int | None) -> None:
    """Raises ValueError if a file's kernels are laid out for CPUs of another kind."""
    if channels is None:
        return
    from .lay_out import channels_per_block

    here = channels_per_block()
    if channels != here:
        raise ValueError(
            f'{file} is laid out for CPUs that take {channels} channels a block, this one takes '
            f'{here}: write it here, by tools/export.py --format onnx-cpu'
        )


def check_runtime(runtime: str) -> None:
    """Raises ImportError, which says what to install, unless a runtime is there and new enough."""
    if runtime == 'onnx':
        try:
            import onnxruntime  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "--backend onnx needs onnxruntime: install it with `pip install -e '.[deploy]'`"
            ) from error
        return
    needed = '.'.join(map(str, MIN_OPENVINO))
    install = "install it with `pip install -e '.[openvino]'`"
    try:
        import openvino
    except ImportError as error:
        raise ImportError(f'--backend openvino needs openvino >= {needed}: {install}') from error
    if tuple(map(int, openvino.__version__.split('.')[:2])) < MIN_OPENVINO:
        raise ImportError(
            f'--backend openvino needs openvino >= {needed}, the oldest it was tried with; this is '
            f'{openvino.__version__}: {install}'
        )


Opened = tuple[Callable[[ndarray], Sequence[ndarray]], int | str | None, str | None]


def _in_onnx_runtime(file: Path, threads: int | None) -> Opened:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    # threads that wait for the next call by spinning slow whatever else runs, another session too
    options.add_session_config_entry('session.force_spinning_stop', '1')
    session = onnxruntime.InferenceSession(file, options, providers=['CPUExecutionProvider'])
    about = session.get_modelmeta().custom_metadata_map.get(METADATA)
    (images,) = session.get_inputs()
    return lambda images: session.run(None, {'images': images}), images.shape[0], about


def _in_openvino(file: Path, threads: int | None) -> Opened:
    import openvino

    core = openvino.Core()
    model = core.read_model(file)
    # float32 as the file has it, where a CPU could do half precision as well
    options = dict(INFERENCE_PRECISION_HINT='f32', PERFORMANCE_HINT='LATENCY')
    if threads is not None:
        options['INFERENCE_NUM_THREADS'] = threads
    compiled = core.compile_model(model, 'CPU', options)
    key = ['framework', METADATA]
    about = model.get_rt_info(key).value if model.has_rt_info(key) else None
    batch = compiled.input(0).partial_shape[0]
    return (
        lambda images: list(compiled({'images': images}).values()),
        batch.get_length() if batch.is_static else None,
        about,
    )


RUNTIMES = dict(onnx=('ONNX Runtime', _in_onnx_runtime), openvino=('OpenVINO', _in_openvino))
