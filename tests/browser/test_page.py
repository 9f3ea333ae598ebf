"""The page of tools/serve.py in a browser, beside what the detectors draw without it."""

import base64
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from condconv_det.analysis.routing import RoutingRecorder
from condconv_det.deploy.detector import Detector
from condconv_det.deploy.routing_bars import plot_routing

pytestmark = pytest.mark.long
ROOT = Path(__file__).parents[2]
SCORES = (0.3, 0.85, 0.9)  # the first is the page's own
# what a picture shows, as a PNG; nothing where something lies over it
PNG_OF = """([picture]) => {
    if (!picture?.naturalWidth) return null;
    const {x, y, width, height} = picture.getBoundingClientRect();
    if (document.elementFromPoint(x + width / 2, y + height / 2) !== picture) return null;
    const canvas = document.createElement('canvas');
    [canvas.width, canvas.height] = [picture.naturalWidth, picture.naturalHeight];
    canvas.getContext('2d').drawImage(picture, 0, 0);
    return canvas.toDataURL();
}"""


def noise(seed, grid):
    pixels = np.random.default_rng(seed).integers(0, 255, (*grid, 3), dtype=np.uint8)
    return cv2.resize(pixels, (240, 180))


IMAGES = {'first.png': noise(1, (3, 4)), 'second.png': noise(2, (12, 16))}
FILES = {name: cv2.imencode('.png', pixels)[1].tobytes() for name, pixels in IMAGES.items()}
FILES['broken.png'] = b'hello'


def file(name):
    return dict(name=name, mimeType='image/png', buffer=FILES[name])


@pytest.fixture(scope='module')
def address(browser_files, trained):
    """Of the page with both detectors, served as a user does it."""
    pytest.importorskip('gradio', reason="needs gradio: pip install -e '.[app]'")
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    command = [ROOT / 'tools' / 'serve.py', *trained['routed'], '--static', *trained['static']]
    server = subprocess.Popen(
        [sys.executable, '-W', 'ignore', *map(str, command), '--device', 'cpu', f'--port={port}'],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        lines = (re.match(r'(http://127.0.0.1:\d+/?) is up', line) for line in server.stdout)
        started = next(filter(None, lines), None)
        assert started, 'the server ended'
        yield started[1]
    finally:
        server.terminate()
        server.wait(60)


@pytest.fixture(scope='module')
def expected(trained):
    """What may be seen, RGB: images with each detector's boxes, images alone, and bars."""
    detectors = dict(static=Detector(*trained['static'], device='cpu'))
    detectors['CondConv'] = Detector(*trained['routed'], device='cpu')
    recorder = RoutingRecorder(detectors['CondConv'].model)
    pictures, bars = {}, {}
    for name, pixels in IMAGES.items():
        pictures[name] = pixels[..., ::-1]
        scores = SCORES if name == 'first.png' else SCORES[:1]
        with recorder:
            samples = {label: detector.detect(pixels) for label, detector in detectors.items()}
        for label, detector in detectors.items():
            boxes = [len(detector.objects(samples[label], score)) for score in scores]
            assert boxes == sorted({*boxes}, reverse=True)
            for score in scores:
                drawn = detector.draw(pixels, samples[label], score)
                pictures[label, name, score] = drawn[..., ::-1]
        recorder.end_batch(1)
        canvas = FigureCanvasAgg(plot_routing(recorder.pop()))
        canvas.draw()
        bars[name] = np.asarray(canvas.buffer_rgba())[..., :3]
    return pictures, bars


class Page:
    def __init__(self, page, expected):
        self.page = page
        self.pictures, self.bars = expected
        self.input = page.locator('input[type=file]')
        labelled = page.get_by_text('Drop an image', exact=True)
        self.uploaded = page.locator('.block').filter(has=labelled).locator('img')
        self.score = page.get_by_label('number input for Lowest score of a box')
        self.slider = page.get_by_label('range slider for Lowest score of a box')

    def choose(self, name):
        self.input.set_input_files(file(name))

    def drop(self, name):
        self.page.get_by_label('Drop an image file here').drop(dict(files=file(name)))

    def seen(self, part, expected):
        """Key of that expected picture which the one in a part of the page resembles most."""
        png = part.locator('img').evaluate_all(PNG_OF)
        if png is None:
            return None
        content = np.frombuffer(base64.b64decode(png.partition(',')[2]), np.uint8)
        pixels = cv2.imdecode(content, cv2.IMREAD_COLOR)[..., ::-1].astype(np.float32)
        # what webp loses is less than what the boxes make
        return min(expected, key=lambda key: np.abs(pixels - expected[key]).mean())

    def seen_under(self, label):
        labelled = self.page.get_by_text(label, exact=True)
        return self.seen(self.page.locator('.block').filter(has=labelled), self.pictures)

    def comes_to_show(self, name, score):
        self._comes_to([('static', name, score), ('CondConv', name, score), name])

    def comes_to_show_nothing(self):
        self._comes_to([None, None, None])

    def _comes_to(self, wanted):
        def seen():
            bars = self.seen(self.page.get_by_test_id('matplotlib'), self.bars)
            return [self.seen_under('static'), self.seen_under('CondConv'), bars]

        until = time.monotonic() + 300  # on a busy machine, where many boxes take long to draw
        while (found := seen()) != wanted and time.monotonic() < until:
            self.page.wait_for_timeout(100)
        assert found == wanted


@pytest.fixture
def visited(visit, address):
    return visit(address)


@pytest.fixture
def page(visited, expected):
    return Page(visited.page, expected)


def test_a_dropped_image_is_shown_with_the_boxes_of_both_detectors_and_its_bars(page):
    page.drop('first.png')
    page.comes_to_show('first.png', 0.3)


def test_a_score_that_is_typed_or_set_by_a_key_redraws_the_boxes(page):
    page.choose('first.png')
    page.comes_to_show('first.png', 0.3)
    page.score.fill('0.85')
    page.comes_to_show('first.png', 0.85)
    page.slider.press('ArrowRight')
    page.comes_to_show('first.png', 0.9)


def test_a_broken_file_is_named_and_the_next_image_is_shown(page):
    page.choose('first.png')
    page.comes_to_show('first.png', 0.3)
    page.choose('broken.png')
    reason = page.page.get_by_role('alert')
    reason.get_by_text('image broken.png cannot be read: its 5 bytes are none of').wait_for()
    page.comes_to_show_nothing()
    assert page.page.get_by_text('Error').count() == 0
    assert page.uploaded.is_hidden()  # not the icon of a broken picture
    page.choose('second.png')
    page.comes_to_show('second.png', 0.3)
    assert reason.count() == 0
    assert page.uploaded.is_visible()


def test_titles_and_buttons_stand_above_the_pictures(page):
    page.choose('first.png')
    page.comes_to_show('first.png', 0.3)
    for label in ('Drop an image', 'static', 'CondConv'):
        labelled = page.page.get_by_text(label, exact=True)
        panel = page.page.locator('.block').filter(has=labelled)
        top = panel.locator('img').bounding_box()['y']
        for part in (labelled, *panel.get_by_role('button', name='Fullscreen').all()):
            box = part.bounding_box()
            assert box['height'] > 0 and box['y'] + box['height'] <= top


def test_a_removed_image_takes_boxes_and_bars_along(page):
    page.choose('first.png')
    page.comes_to_show('first.png', 0.3)
    page.page.get_by_label('Remove Image').click()
    page.comes_to_show_nothing()


def test_a_visit_asks_no_other_machine_and_meets_no_error(page, visited):
    page.choose('first.png')
    page.comes_to_show('first.png', 0.3)
    page.score.fill('0.9')
    page.comes_to_show('first.png', 0.9)
    page.choose('broken.png')
    page.page.get_by_text('image broken.png cannot be read').wait_for()
    assert len(visited.asked) > 10
    assert visited.asked_elsewhere() == []
    assert visited.errors == []
