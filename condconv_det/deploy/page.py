"""A web page that shows what a detector finds in an image, and which experts the image calls."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import cv2
from matplotlib.figure import Figure
from mmdet.structures import DetDataSample
from numpy import ndarray

from condconv_det.analysis.routing import RoutingRecorder
from condconv_det.compat.data_errors import ImageError

from .detector import Detector
from .images import decode_image
from .routing_bars import plot_routing

MAX_BYTES = 20_000_000
MAX_PIXELS = 25_000_000
# a panel's title and buttons stand above its picture, where they'd lie over the boxes' labels
STYLE = '.picture .image-container { padding-top: 30px }'
# in place of a file that is no picture, a browser shows the icon of a broken one
SCRIPT = """() => {
    for (const [event, visibility] of [['error', 'hidden'], ['load', 'visible']])
        document.addEventListener(event, ({target}) => {
            if (target.tagName === 'IMG') target.style.visibility = visibility;
        }, true);
}"""


@contextmanager
def serve(
    detector: Detector, static: Detector | None = None, host: str = '127.0.0.1', port: int = 7860
) -> Iterator[str]:
    """Serves the page while the context lasts.

    It fetches nothing and reads no files but those uploaded to it, which lie in a folder of their
    own for as long.

    Args:
        detector: if it has routed layers, their weights are shown.
        static: its detections are shown beside the detector's.
        host: address to listen on; '0.0.0.0' for every network.
        port: to listen on.

    Yields:
        The page's address.

    Raises:
        ImportError: gradio is not installed.
        OSError: the port is taken, or the host is not this machine.
    """
    gradio = _import_gradio()
    with TemporaryDirectory(prefix='condconv_det-') as folder, _gradio_folder(folder):
        page = _build(gradio, detector, static, Path(folder).resolve())
        try:
            _launch(page, host, port)
            yield page.local_url
        finally:
            page.close(verbose=False)


def _launch(page: Any, host: str, port: int) -> None:
    from starlette.middleware import Middleware

    try:
        page.launch(
            server_name=host,
            server_port=port,
            max_file_size=MAX_BYTES,
            # that limit is one file's; this one is that of any request
            app_kwargs=dict(middleware=[Middleware(_LimitedBody, max_bytes=2 * MAX_BYTES)]),
            prevent_thread_lock=True,
            share=False,
            ssr_mode=False,
            footer_links=[],
            css=STYLE,
            js=SCRIPT,
            quiet=True,
        )
    except OSError as error:
        raise OSError(
            f'cannot listen on {host}:{port}: the port is taken, or no address of this machine'
        ) from error


@contextmanager
def _gradio_folder(folder: str) -> Iterator[None]:
    """Has gradio keep uploads in a folder; it asks the environment at each of them."""
    before = os.environ.get('GRADIO_TEMP_DIR')
    os.environ['GRADIO_TEMP_DIR'] = folder
    try:
        yield
    finally:
        del os.environ['GRADIO_TEMP_DIR']
        if before is not None:
            os.environ['GRADIO_TEMP_DIR'] = before


def _build(gradio: ModuleType, detector: Detector, static: Detector | None, uploads: Path) -> Any:
    detectors = [each for each in (static, detector) if each is not None]
    recorder = RoutingRecorder(detector.model) if detector.is_routed else None

    @lru_cache(maxsize=1)  # another score draws the same image's boxes
    def detect(path: str, name: str) -> tuple[ndarray, list[DetDataSample], Figure | None]:
        image = decode_image(_uploaded(path, uploads), name, MAX_PIXELS)
        with recorder or nullcontext():
            samples = [each.detect(image) for each in detectors]
        if recorder is None:
            return image, samples, None
        recorder.end_batch(1)
        return image, samples, plot_routing(recorder.pop())

    def show(upload: dict | None, score_thr: float | None) -> list[Any]:
        nothing, no_reason = [None] * (len(detectors) + 1), gradio.update(value='', visible=False)
        if upload is None:
            return [*nothing, no_reason]
        if score_thr is None:  # the field is empty while another number is typed
            return [gradio.skip()] * len(outputs)
        try:
            pixels, samples, bars = detect(upload['path'], upload.get('orig_name') or 'upload')
        # which gradio, if they were raised, would write on every panel, or not name
        except (ImageError, OSError, cv2.error) as error:
            reason = f'<p role="alert">{escape(str(error))}</p>'
            return [*nothing, gradio.update(value=reason, visible=True)]
        pictures = [
            each.draw(pixels, sample, score_thr)[..., ::-1]
            for each, sample in zip(detectors, samples)
        ]
        return [*pictures, bars, no_reason]

    async def as_it_is(path: str) -> str:
        return path

    with gradio.Blocks(
        title='CondConv detector', analytics_enabled=False, delete_cache=(600, 3600)
    ) as page:
        with gradio.Row():
            with gradio.Column(scale=1):
                image = gradio.Image(
                    label='Drop an image', sources=['upload', 'clipboard'], elem_classes='picture'
                )
                reason = gradio.HTML(visible=False)
                score_thr = gradio.Slider(0, 1, 0.3, step=0.05, label='Lowest score of a box')
            pictures = [
                gradio.Image(
                    label='CondConv' if each.is_routed else 'static',
                    format='png',  # gradio's own, WebP, ends at 16383 pixels
                    interactive=False,
                    buttons=['download', 'fullscreen'],
                    elem_classes='picture',
                )
                for each in detectors
            ]
        bars = gradio.Plot(show_label=False, visible=detector.is_routed)
        outputs = [*pictures, bars, reason]
        # gradio's own would fetch a path that is a URL
        image.async_move_resource_to_block_cache = as_it_is
        gradio.on(
            [image.upload, image.clear, score_thr.change],
            show,
            [image, score_thr],
            outputs,
            preprocess=False,  # it would decode an image of any size
            trigger_mode='always_last',  # while the slider moves: one call at a time, then the last
            concurrency_limit=1,  # a detector draws on one canvas
            api_visibility='private',
        )
    return page


def _uploaded(path: str, uploads: Path) -> bytes:
    """What an uploaded file holds; a browser could name any other."""
    file = Path(path).resolve()
    if not (file.is_relative_to(uploads) and file.is_file()):
        raise ImageError('only an image that was uploaded to this page is read')
    return file.read_bytes()


class _LimitedBody:
    """ASGI middleware that cuts off a request larger than max_bytes."""

    def __init__(self, app: Any, max_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        received = 0

        async def limited() -> dict:
            from starlette.exceptions import HTTPException

            nonlocal received
            message = await receive()
            received += len(message.get('body', b''))
            if received > self.max_bytes:
                raise HTTPException(413, f'a request may have {self.max_bytes} bytes')
            return message

        await self.app(scope, limited, send)


def _import_gradio() -> ModuleType:
    try:
        import gradio
    except ImportError as error:
        raise ImportError(
            "the page needs gradio: install it with `pip install -e '.[app]'`"
        ) from error
    return gradio
