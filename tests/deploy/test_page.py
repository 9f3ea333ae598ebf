import json
import socket
import sys
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from urllib.parse import quote, urlparse

import cv2
import numpy as np
import pytest
from PIL import Image

from condconv_det.analysis.routing import RoutingRecorder
from condconv_det.deploy.detector import Detector
from condconv_det.deploy.page import MAX_BYTES, MAX_PIXELS, serve

FILE = {'_type': 'gradio.FileData'}


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def png(pixels):
    return cv2.imencode('.png', pixels)[1].tobytes()


@pytest.fixture(scope='module')
def detectors(small_detector, small_cfg, save_trained, tmp_path_factory):
    """Each finds a few boxes at most, and has few routers: drawing takes longer than detecting."""
    found = {}
    for name, kind in dict(static='SSD, static', routed='SSD, routed neck').items():
        cfg = small_cfg(kind)
        cfg.model.test_cfg.max_per_img = 8
        files = save_trained(small_detector(kind), cfg, tmp_path_factory.mktemp(name))
        found[name] = Detector(*files, device='cpu')
    return found


class Browser:
    """A browser's part of the conversation with a page."""

    def __init__(self, address):
        import httpx

        self.address = address
        self.http = httpx.Client(base_url=address, trust_env=False, timeout=60)

    def upload(self, content, name='image.png'):
        return self.http.post('/gradio_api/upload', files=[('files', (name, content))])

    def show(self, upload, score_thr=0.3):
        """The page's event with any payload; what it answered."""
        session = dict(session_hash='session')
        event = dict(data=[upload, score_thr], fn_index=0, **session)
        self.http.post('/gradio_api/queue/join', json=event).raise_for_status()
        with self.http.stream('GET', '/gradio_api/queue/data', params=session) as answers:
            for line in answers.iter_lines():
                if 'process_completed' in line:
                    return json.loads(line.removeprefix('data: '))

    def refused(self, upload):
        """The reason that the page gives for showing nothing of an image."""
        done = self.show(upload)
        assert done['success'], done
        *shown, reason = done['output']['data']
        assert shown == [None] * 3 and reason['visible']
        return reason['value'].removeprefix('<p role="alert">').removesuffix('</p>')

    def shows_nothing(self, upload):
        """Whether an image is refused, by the page or by gradio."""
        return not any(self.show(upload)['output'].get('data', [])[:3])

    def labels(self):
        """Of the page's parts, those that can be seen."""
        parts = [part['props'] for part in self.http.get('/config').json()['components']]
        return [part['label'] for part in parts if part.get('label') and part.get('visible', True)]


@pytest.fixture(scope='module')
def page(detectors):
    """With both detectors."""
    pytest.importorskip('gradio', reason="needs gradio: pip install -e '.[app]'")
    with serve(detectors['routed'], detectors['static'], port=free_port()) as address:
        yield Browser(address)


def test_shows_both_detectors_boxes_and_the_routing(page, detectors):
    noise = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    pixels = cv2.resize(noise, (240, 180))
    (path,) = page.upload(png(pixels)).json()
    done = page.show(dict(path=path, meta=FILE), 0.5)
    assert done['success']
    *pictures, routing, reason = done['output']['data']
    assert reason['visible'] is False
    shown = [
        Image.open(BytesIO(page.http.get(urlparse(picture['url']).path).content)).convert('RGB')
        for picture in pictures
    ]
    drawn = [
        detectors[kind].draw(pixels, detectors[kind].detect(pixels), 0.5)[..., ::-1]
        for kind in ('static', 'routed')
    ]
    # what webp loses is less than what the boxes make
    difference = [[np.abs(np.float32(a) - b).mean() for b in [*drawn, pixels]] for a in shown]
    assert np.argmin(difference, axis=1).tolist() == [0, 1]
    assert routing['type'] == 'matplotlib'


def test_the_bars_are_of_this_image_and_every_router(page, detectors, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        'condconv_det.deploy.page.plot_routing', lambda weights: drawn.append(weights)
    )
    images = [np.full((50, 50, 3), colour, np.uint8) for colour in (0, 200)]
    for pixels in images:
        (path,) = page.upload(png(pixels)).json()
        assert page.show(dict(path=path, meta=FILE))['success']
    for weights, pixels in zip(drawn, images, strict=True):
        assert len(weights) == 2 + 2  # the last block's, and the extra level's
        recorder = RoutingRecorder(detectors['routed'].model)
        with recorder:
            detectors['routed'].detect(pixels)
        recorder.end_batch(1)
        for layer, expected in recorder.pop().items():
            np.testing.assert_array_equal(weights[layer], expected)
    assert any((drawn[0][layer] != drawn[1][layer]).any() for layer in drawn[0])


def test_a_static_detector_is_shown_without_bars(detectors):
    pytest.importorskip('gradio', reason="needs gradio: pip install -e '.[app]'")
    with serve(detectors['static'], port=free_port()) as address:
        page = Browser(address)
        (path,) = page.upload(png(np.zeros((50, 50, 3), np.uint8))).json()
        picture, bars, _ = page.show(dict(path=path, meta=FILE))['output']['data']
        assert picture['url'] and bars is None
        assert page.labels()[-1] == 'static'


def test_each_picture_says_which_detector_it_is_of(page):
    assert page.labels()[-2:] == ['static', 'CondConv']


def test_no_image_shows_nothing(page):
    *nothing, reason = page.show(None)['output']['data']
    assert nothing == [None] * 3 and reason['visible'] is False


def test_a_score_is_answered_however_it_is_set(page):
    (event,) = page.http.get('/config').json()['dependencies']
    assert 'change' in [name for _, name in event['targets']]
    assert event['trigger_mode'] == 'always_last'


def test_another_score_draws_without_detecting_again(page, detectors, monkeypatch):
    calls = []
    detect = Detector.detect
    monkeypatch.setattr(
        Detector, 'detect', lambda self, image: calls.append(self) or detect(self, image)
    )
    pixels = np.random.default_rng(1).integers(0, 255, (50, 60, 3), dtype=np.uint8)
    (path,) = page.upload(png(pixels)).json()
    answers = [page.show(dict(path=path, meta=FILE), score) for score in (0, 1, 0)]
    assert len(calls) == 2  # the static detector's and the routed one's
    many, none, again = (
        [part.get('url', part.get('plot')) for part in answer['output']['data'][:-1]]
        for answer in answers
    )
    assert many == again and many[:2] != none[:2] and many[2] == none[2]


def test_an_emptied_score_leaves_the_pictures_alone(page):
    (path,) = page.upload(png(np.zeros((40, 60, 3), np.uint8))).json()
    done = page.show(dict(path=path, meta=FILE), None)
    assert done['success']
    *same, reason = done['output']['data']
    assert same == [{'__type__': 'update'}] * 3 and 'value' not in reason


def test_listens_on_loopback_alone(page):
    assert urlparse(page.address).hostname == '127.0.0.1'
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(('127.0.0.2', urlparse(page.address).port))


@pytest.mark.parametrize('more', [dict(meta=FILE), {}, dict(meta=FILE, is_stream=True)])
def test_a_path_on_the_server_is_not_read(page, tmp_path, more):
    (tmp_path / 'secret.png').write_bytes(png(np.zeros((9, 9, 3), np.uint8)))
    assert page.shows_nothing(dict(path=str(tmp_path / 'secret.png'), **more))
    assert page.http.get(f'/gradio_api/file={tmp_path}/secret.png').status_code == 403


UP = '../' * 12
ENCODED_UP = '%2e%2e%2f' * 12


@pytest.mark.parametrize(
    'address',
    [
        '/gradio_api/file={file}',
        '/gradio_api/file={quoted}',
        '/gradio_api/file=file://{file}',
        '/gradio_api/file/{file}',
        '/gradio_api/file={uploaded}/../../../../../..{file}',
        '/gradio_api/file={uploaded}/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e{file}',
        '/gradio_api/proxy=file://{file}',
        '/gradio_api/proxy={file}',
        '/gradio_api/custom_component/0/server/component/{up}{file}',
        '/gradio_api/stream/session/0/0/{encoded_up}{quoted}',
        '/file={file}',
        '/static/{up}{file}',
        '/static/{encoded_up}{quoted}',
        '/assets/{up}{file}',
        '/assets/{encoded_up}{quoted}',
        '/svelte/{encoded_up}{quoted}',
        '/{up}{file}',
        '{file}',
    ],
)
def test_no_address_gives_a_file_of_the_server(page, tmp_path, address):
    file = tmp_path / 'secret.txt'
    file.write_text('secret of the server')
    (uploaded,) = page.upload(png(np.zeros((9, 9, 3), np.uint8))).json()
    address = address.format(
        file=file,
        quoted=quote(str(file), safe=''),
        uploaded=Path(uploaded).parent,
        up=UP,
        encoded_up=ENCODED_UP,
    )
    connection = HTTPConnection(urlparse(page.address).netloc)  # sends an address as it is
    connection.request('GET', address)
    assert b'secret of the server' not in connection.getresponse().read()
    connection.close()


def test_an_upload_lands_in_its_folder_whatever_its_name(page, tmp_path):
    planted = tmp_path / 'planted.png'
    (elsewhere,) = page.upload(png(np.zeros((9, 9, 3), np.uint8)), f'{UP}{planted}').json()
    (plain,) = page.upload(png(np.ones((9, 9, 3), np.uint8)), 'plain.png').json()
    assert not planted.exists()
    assert Path(elsewhere).resolve().parents[1] == Path(plain).resolve().parents[1]
    up = f'{Path(plain).parent}/{UP}{planted}'
    planted.write_bytes(png(np.zeros((9, 9, 3), np.uint8)))
    assert page.shows_nothing(dict(path=up, meta=FILE))


def test_an_address_is_not_fetched(page, monkeypatch):
    fetched = []

    async def fetch(url, **_):
        fetched.append(url)
        raise OSError(url)

    monkeypatch.setattr('gradio.processing_utils.async_ssrf_protected_download', fetch)
    reason = page.refused(dict(path='https://example.com/image.png', meta=FILE))
    assert reason == 'only an image that was uploaded to this page is read' and not fetched


def test_too_many_pixels_and_broken_images_are_refused_by_name(page):
    header = b'P6 20000 %d 255 ' % (MAX_PIXELS // 20_000 + 1)
    for content, says in ((header, '20000x1251 pixels are too many'), (b'hello', '5 bytes')):
        (path,) = page.upload(content).json()
        reason = page.refused(dict(path=path, meta=FILE, orig_name='<b>mine</b>.png'))
        assert reason.startswith('image &lt;b&gt;mine&lt;/b&gt;.png cannot be read: ')
        assert says in reason


def test_large_uploads_and_requests_are_cut_off(page):
    assert page.upload(b'0' * (MAX_BYTES + 1)).status_code == 413
    event = dict(data=['0' * 2 * MAX_BYTES], fn_index=0, session_hash='session')
    assert page.http.post('/gradio_api/queue/join', json=event).status_code == 413


def test_a_port_that_is_taken_is_named(page, detectors):
    port = urlparse(page.address).port
    with (
        pytest.raises(OSError, match=f'cannot listen on 127.0.0.1:{port}: the port is taken'),
        serve(detectors['routed'], port=port),
    ):
        pass


def test_missing_gradio_is_named(detectors, monkeypatch):
    monkeypatch.setitem(sys.modules, 'gradio', None)
    with (
        pytest.raises(ImportError, match=r"pip install -e '\.\[app\]'"),
        serve(detectors['routed']),
    ):
        pass
