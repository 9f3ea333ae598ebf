"""A web page that shows what a detector finds in an image, and which experts the image calls."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

from matplotlib.figure import Figure
from numpy import ndarray

from condconv_det.compat.data_errors import ImageError

from .detector import Detector
from .images import decode_image
from .routing_bars import plot_routing

MAX_BYTES = 20_000_000
MAX_PIXELS = 25_000_000


@contextmanager
def serve(
    detector: Detector, static: Detector | None = None, host: str = '127.0.0.1', port: int = 7860
) -> Iterator[str]:
    """Serves the page while the context lasts.

    It fetches nothing and reads no files but those uploaded to it, which lie in a folder of their
    own for as long.

    Args:
        detector: has routed layers.
        static: its detections are shown beside the detector's.
        host: address to listen on; '0.0.0.0' for every network.
        port: to listen on.

    Yields:
        The page's address.

    Raises:
        ValueError: the detector has no routed layers.
        ImportError: gradio is not installed.
        OSError: the port is taken.
    """
    if not detector.is_routed:
        raise ValueError(
            'the detector has no routed layers, so there is no routing to show: expected one with '
            'CondConv; a static one goes beside it'
        )
    gradio = _import_gradio()
    from starlette.middleware import Middleware

    with TemporaryDirectory(prefix='condconv_det-') as folder:
        os.environ['GRADIO_TEMP_DIR'] = folder  # where gradio keeps uploads
        page = _build(gradio, detector, static, Path(folder).resolve())
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
                quiet=True,
            )
            yield page.local_url
        finally:
            page.close(verbose=False)


def _build(gradio: ModuleType, detector: Detector, static: Detector | None, uploads: Path) -> Any:
    def show(upload: dict | None, score_thr: float) -> list[ndarray | Figure | None]:
        if upload is None:
            return [None] * len(outputs)
        try:
            image = decode_image(
                _uploaded(upload['path'], uploads), upload.get('orig_name') or 'upload', MAX_PIXELS
            )
        except ImageError as error:
            raise gradio.Error(str(error), print_exception=False) from error
        sample, routing = detector.detect(image)
        pictures = [detector.draw(image, sample, score_thr)]
        if static is not None:
            sample, _ = static.detect(image)
            pictures.insert(0, static.draw(image, sample, score_thr))
        return [*(picture[..., ::-1] for picture in pictures), plot_routing(routing)]

    async def as_it_is(path: str) -> str:
        return path

    with gradio.Blocks(
        title='CondConv detector', analytics_enabled=False, delete_cache=(600, 3600)
    ) as page:
        with gradio.Row():
            with gradio.Column(scale=1):
                image = gradio.Image(label='Drop an image', sources=['upload', 'clipboard'])
                score_thr = gradio.Slider(0, 1, 0.3, step=0.05, label='Lowest score of a box')
            labels = ['CondConv'] if static is None else ['static', 'CondConv']
            outputs = [
                gradio.Image(label=label, interactive=False, buttons=['download', 'fullscreen'])
                for label in labels
            ]
        outputs.append(gradio.Plot(show_label=False))
        # gradio's own would fetch a path that is a URL
        image.async_move_resource_to_block_cache = as_it_is
        gradio.on(
            [image.upload, image.clear, score_thr.release],
            show,
            [image, score_thr],
            outputs,
            preprocess=False,  # it would decode an image of any size
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
