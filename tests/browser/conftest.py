"""A real browser, without a window, and what a page asks for and complains of in it."""

import os
import shutil
from urllib.parse import urlparse

import pytest

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')
OPTIONS = [
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-gpu',
    '--disable-quic',
    '--disable-sync',
    '--no-first-run',
]


class Visit:
    """A page in a tab of its own."""

    def __init__(self, page):
        self.page = page
        self.asked = []
        self.errors = []
        page.on('request', lambda request: self.asked.append(request.url))
        page.on('websocket', lambda socket: self.asked.append(socket.url))
        page.on('console', self._keep_errors)
        page.on('pageerror', lambda error: self.errors.append(str(error)))

    def _keep_errors(self, message):
        if message.type == 'error':
            self.errors.append(f'{message.text} {message.location["url"]}')

    def asked_elsewhere(self):
        """Addresses on the network of another machine."""
        parts = {address: urlparse(address) for address in self.asked}
        return [
            address
            for address, part in parts.items()
            if part.scheme not in ('data', 'blob', 'file')
            and part.hostname not in ('127.0.0.1', 'localhost')
        ]


@pytest.fixture(scope='session')
def browser_files():
    """playwright's module and the browser's program."""
    api = pytest.importorskip(
        'playwright.sync_api', reason='needs playwright: pip install playwright'
    )
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip('needs Chromium: apt-get install chromium')
    return api, program


# not for the session: in a thread where playwright is at work, nothing else can run an event loop
@pytest.fixture(scope='module')
def browser(browser_files):
    api, program = browser_files
    as_root = ['--no-sandbox'] if os.geteuid() == 0 else []
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=program, headless=True, args=[*OPTIONS, *as_root]
        )
        yield chromium
        chromium.close()


@pytest.fixture
def visit(browser):
    """Opens a page: visit(address), with options of the browser's window."""
    windows = []

    def visit(address, **window):
        windows.append(browser.new_context(**window))
        visited = Visit(windows[-1].new_page())
        visited.page.goto(address)
        return visited

    yield visit
    for window in windows:
        window.close()
