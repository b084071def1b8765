"""A real Chromium and a real JupyterLab, both cut off from anything but this machine.

A laptop without Chromium or Playwright skips these tests and says so; where CI=true they fail instead.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from llmnb.display import style
from llmnb.display.answer import Answer
from llmnb.display.scene import Scene

from .lab import VIEWPORT, Lab, running_lab
from .trouble import watch

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Clock, Page

CHROMIUM_FLAGS = [
    "--no-sandbox",  # root in a container has no other way
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
]


def _missing(what: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what}: browser tests must run in CI")
    pytest.skip(f"{what}: browser tests need `pip install playwright` and a Chromium")


@pytest.fixture(scope="package")
def launch() -> Iterator[Callable[[], Browser]]:
    """Starts Chromium, driven by Playwright, whose loop would be in the way of the asynchronous tests elsewhere."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("Playwright is not installed")
        raise
    chromium = os.environ.get("LLMNB_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        _missing("no Chromium found (set LLMNB_TEST_CHROMIUM to its path)")
    with sync_playwright() as playwright:
        yield lambda: playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)


class Tab:
    """The only page of a browser: of two, one has no focus."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._page: Page | None = None
        self.is_bare = False

    def new_page(self) -> Page:
        """An empty page in a context of its own."""
        self.is_bare = False
        if self._page is not None:
            self._page.context.close()
        self._page = self._browser.new_context(viewport=VIEWPORT).new_page()
        return self._page

    def bare_page(self) -> Page:
        """The page for one bare test after another: a new one takes four times the CPU of another address in this."""
        page = self._page if self._page is not None and self.is_bare else self.new_page()
        self.is_bare = True
        return page


@pytest.fixture(scope="package")
def tab(launch: Callable[[], Browser]) -> Iterator[Tab]:
    """A browser with one page."""
    browser = launch()
    yield Tab(browser)
    browser.close()


@pytest.fixture
def page(tab: Tab) -> Page:
    """An empty page."""
    return tab.new_page()


# a model as anywidget hands it to a front end, and a kernel that notes what it is asked
BARE_PAGE = """<!doctype html><html><body><div id="place"></div><script type="module">
import make from "/response.js";
const handlers = [];
window.log = [];
const traits = { answer_id: "answer-1", model_label: "claude", can_stop: true, stop_hint: "" };
window.kernel = {
  supportsSubshells: true,
  createComm(target) {
    return { subshellStarted: Promise.resolve(), open: (data) => window.log.push(["open", target, data]) };
  },
  interrupt: () => window.log.push(["interrupt"]),
};
window.model = {
  get: (name) => traits[name],
  on: (event, handler) => handlers.push(handler),
  off() {},
  send: (content) => window.log.push(["send", content]),
  widget_manager: { kernel: window.kernel, rendermime: { latexTypesetter: {
    typeset: (node) => window.log.push(["typeset", node.textContent]) } } },
};
window.receive = (message) => handlers.forEach((handler) => handler(message));
window.frames_drawn = () => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
const widget = make();
widget.initialize({ model });
widget.render({ model, el: document.getElementById("place") });
window.receive({ n: -1, key: [] }); // the kernel is heard of at once: the page need not ask
window.make = make;
window.ready = true;
</script></body></html>"""


@pytest.fixture
def bare(tab: Tab) -> Iterator[Page]:
    """The front end with a fake model; any other request than the page and the script fails the test."""
    page = tab.bare_page()
    requests: list[str] = []

    def serve(route: Any) -> None:
        path = route.request.url.removeprefix("http://llmnb.test")
        if path == "/response.js":
            route.fulfill(body=style.script(), content_type="text/javascript")
        elif path == "/":
            styles = f"<style>{style.live_css()}</style>"
            route.fulfill(body=styles + BARE_PAGE, content_type="text/html; charset=utf-8")
        else:
            requests.append(path)
            route.abort()

    page.route("**/*", serve)
    page.mouse.move(0, 0)
    page.goto("http://llmnb.test/")
    page.wait_for_function("() => window.ready")
    yield page
    page.unroute_all()
    page.set_viewport_size(VIEWPORT)
    page.emulate_media(reduced_motion="null")
    assert [path for path in requests if path != "/favicon.ico"] == []


@pytest.fixture
def clock(bare: Page, tab: Tab) -> Clock:
    """The clock of the bare page, in the hands of the test."""
    tab.is_bare = False  # from now on the page has this clock
    bare.clock.install()
    return bare.clock


@pytest.fixture
def scene() -> Scene:
    """A scene with an empty answer."""
    return Scene(Answer("claude"))


@pytest.fixture(scope="package")
def running(launch: Callable[[], Browser], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab, and a browser that shows it."""
    browser = launch()
    with running_lab(tmp_path_factory.mktemp("jupyter"), browser.new_page(viewport=VIEWPORT)) as lab:
        yield lab
        browser.close()


@pytest.fixture
def lab(running: Lab) -> Iterator[Lab]:
    """JupyterLab as it was when it began."""
    yield running
    running.tidy()


@pytest.fixture
def trouble(running: Lab) -> Iterator[list[str]]:
    """What happens on JupyterLab's page that must not."""
    with watch(running.page) as seen:
        yield seen
