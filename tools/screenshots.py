"""Takes the pictures of the README: JupyterLab light, dark and moving, the dashboard. Run it anywhere, without a key.

    python tools/screenshots.py [FOLDER]

The answers are scripted ones of the simulator, the dashboard's calls the demo's invented ones. It needs
`pip install 'llmnb[dev]'` and a Chromium (or its path in LLMNB_TEST_CHROMIUM).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image
    from playwright.sync_api import Browser, Page

BEGIN = 'import llmnb\n\nllm = llmnb.LLM("claude-sonnet-5-5", project="thesis")'
CELLS = (
    BEGIN,
    'reply = llm("Compare optimistic and pessimistic locking, and show the optimistic one in SQL.")',
    'llm("And when does optimistic locking hurt?")',
)
SEARCH = (
    BEGIN,
    'web = {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}\n'
    'llm("How large may a WAL file grow?", extra_body=web, cache="all")',
    'llm("How large may a WAL file grow?", extra_body=web, cache="all")',
)
PICTURES = (  # each from a notebook of its own, so that each has a kernel of its own
    ("JupyterLab Light", "locking.ipynb", "notebook.png", CELLS),
    # another model: what the first picture asked would come from the cache
    ("JupyterLab Dark", "writers.ipynb", "notebook-dark.png", (BEGIN.replace("sonnet", "opus"), *CELLS[1:])),
    ("JupyterLab Light", "growth.ipynb", "search.png", SEARCH),
)
FIRST = """\
Both keep two writers from overwriting each other; they differ in **when** the conflict is noticed.

| | optimistic | pessimistic |
|---|---|---|
| conflict noticed | at commit | before reading |
| cost without conflicts | one extra column | a lock for every row |
| waits for others | never | as long as they hold it |
| fits | few conflicts, many readers | hot rows, short transactions |

With a version column the check is part of the update:

```sql
UPDATE accounts
   SET balance = :balance, version = version + 1
 WHERE id = :id AND version = :version;   -- 0 rows: somebody was faster
```

When it changed no row, read again and retry. At conflict rate $p$ that takes $1/(1-p)$ attempts on average.
"""
THOUGHT = "Both keep two writers apart. What differs is when the conflict is noticed, so a table fits; then the SQL."
SECOND = """\
When conflicts are **common**: every lost race repeats the whole transaction, and under load the retries themselves
cause more conflicts. Three signs of it:

1. the retry count grows faster than the number of writers,
2. one hot row, such as a counter or a queue's head, is in nearly every transaction,
3. the work between reading and writing is long, or cannot be repeated because it sends mail or charges a card.
"""
PAGE = {"title": "Write-Ahead Logging", "url": "https://sqlite.org/wal.html"}
CITED = {"type": "web_search_result_location", **PAGE, "encrypted_index": "E", "cited_text": "A checkpoint is run"}
SEARCHED = (
    {"type": "thinking", "thinking": "The default limit is in the documentation: look it up.", "signature": "S"},
    {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "sqlite wal size limit"}},
    {
        "type": "web_search_tool_result",
        "tool_use_id": "srvtoolu_1",
        "content": [{"type": "web_search_result", **PAGE, "encrypted_content": "E", "page_age": None}],
    },
    {
        "type": "text",
        "text": "There is no hard limit. SQLite starts a checkpoint once the WAL holds **1,000 pages**, about 4 MB, "
        "but a long-running reader keeps it from being reset, and then it grows on.",
        "citations": [CITED],
    },
)
FILM = (
    "JupyterLab Light",
    "live.ipynb",
    "notebook.webp",
    (BEGIN.replace("sonnet", "haiku"), 'llm("In a word: what makes two writers wait?")', CELLS[1]),
)
FILM_HEIGHT, FILM_FPS, FILM_STILL_MS = 860, 10, 4_000
WIDTH, HEIGHT, SCALE = 1040, 860, 1.5
SEARCH_HEIGHT, DASHBOARD_HEIGHT = 960, 1052
COLOURS = 256
FILM_COLOURS = 48
MAX_BYTES, MAX_FILM_BYTES = 250_000, 600_000


def main(folder: Path) -> None:
    """Write the pictures into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="llmnb-pictures-", ignore_cleanup_errors=True) as scratch:
        home = Path(scratch)
        _forget_the_user(home)
        with _chromium() as browser:
            _notebooks(browser, home, folder)
            _dashboard(browser, home, folder / "dashboard.png")


def _forget_the_user(home: Path) -> None:
    """No setting or key of the person's is used, and nothing of theirs is shown."""
    for name in list(os.environ):
        if name.startswith(("LLMNB_", "ANTHROPIC_", "JUPYTER", "JPY_")) and name != "LLMNB_TEST_CHROMIUM":
            del os.environ[name]
    os.environ.update(LLMNB_HOME=str(home / "llmnb"), NO_PROXY="127.0.0.1", no_proxy="127.0.0.1")
    (home / "pyproject.toml").touch()  # settings are looked for upwards, up to here
    (home / "notebooks").mkdir()
    os.chdir(home / "notebooks")


@contextmanager
def _chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    path = os.environ.get("LLMNB_TEST_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        flags = ["--no-sandbox", "--no-proxy-server", "--hide-scrollbars"]
        browser = playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        browser.close()


# JupyterLab -----------------------------------------------------------------------------------------------------------


def _notebooks(browser: Browser, home: Path, folder: Path) -> None:
    from llmnb.demo.lab import Lab
    from llmnb.simulator.answer import Answer
    from llmnb.testing import serve_simulator

    with serve_simulator(environ=True) as simulator:
        lab = Lab(home / "notebooks", home / "jupyter")
        try:
            lab.wait()
            for theme, notebook, name, cells in PICTURES:
                if cells is SEARCH:
                    simulator.script(Answer(blocks=SEARCHED, tokens_per_second=80))
                else:
                    simulator.script(Answer(FIRST, tokens_per_second=400), Answer(SECOND, tokens_per_second=18))
                _prepare(home, theme, notebook, cells)
                with _page(browser, SEARCH_HEIGHT if cells is SEARCH else HEIGHT) as page:
                    _run_cells(page, lab.url(notebook), cells)
                    (_wait_for_both if cells is SEARCH else _wait_for_the_second)(page)
                    _save(page, folder / name)
            theme, notebook, name, cells = FILM
            simulator.script(Answer("A **lock**."), Answer(FIRST, thinking=THOUGHT, tokens_per_second=60))
            _prepare(home, theme, notebook, cells)
            with _page(browser, FILM_HEIGHT, scale=1) as page:
                _run_cells(page, lab.url(notebook), cells)
                _film(page, folder / name)
        finally:
            lab.stop()


def _prepare(home: Path, theme: str, notebook: str, cells: tuple[str, ...]) -> None:
    """The notebook is there, and nothing of the last picture's: what it asked is not in the cache."""
    shutil.rmtree(home / "llmnb", ignore_errors=True)
    _write_settings(home / "jupyter" / "config", theme)
    (home / "notebooks" / notebook).write_text(json.dumps(_notebook(cells)))


def _notebook(sources: tuple[str, ...]) -> dict[str, Any]:
    def cell(number: int, source: str) -> dict[str, Any]:
        empty: dict[str, Any] = {"metadata": {}, "outputs": [], "execution_count": None}
        return {"cell_type": "code", "id": f"cell-{number}", "source": source, **empty}

    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [cell(number, source) for number, source in enumerate(sources)]
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells}


def _write_settings(config: Path, theme: str) -> None:
    wanted = {
        "apputils-extension/themes": {"theme": theme},
        "apputils-extension/notification": {"checkForUpdates": False, "fetchNews": "false"},
        "notebook-extension/tracker": {"windowingMode": "none"},
    }
    for name, content in wanted.items():
        file = config / "lab" / "user-settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(content))


def _run_cells(page: Page, url: str, cells: tuple[str, ...]) -> None:
    """Open a notebook and run all its cells; does not wait for their end."""
    page.goto(url.replace("/lab/", "/doc/") + "&reset")
    page.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=25_000)
    page.wait_for_selector("text=| Idle", timeout=25_000)
    page.wait_for_timeout(1_000)  # idle is said a little before the kernel takes cells
    page.click(".jp-CodeCell >> nth=0")
    for _ in cells:
        page.keyboard.press("Shift+Enter")


def _wait_for_both(page: Page) -> None:
    """Both answers are there, the search's card is open."""
    page.wait_for_function(
        "() => document.querySelectorAll('.llmnb-answer .llmnb-footer').length === 2", timeout=25_000
    )
    page.evaluate("() => { document.querySelector('.llmnb-answer .llmnb-tool').open = true; }")
    page.evaluate("() => document.querySelector('.jp-WindowedPanel-outer').scrollTo(0, 0)")
    page.mouse.move(0, 0)
    page.wait_for_timeout(500)


def _wait_for_the_second(page: Page) -> None:
    """The first answer is there, and the second one is coming."""
    page.wait_for_selector(".llmnb-answer .llmnb-footer", timeout=25_000)
    page.wait_for_selector(".llmnb-answer .MathJax", timeout=25_000)
    page.wait_for_selector(".llmnb-live li >> nth=1", timeout=25_000)
    page.evaluate("() => document.querySelector('.jp-WindowedPanel-outer').scrollTo(0, 0)")
    page.mouse.move(0, 0)
    page.wait_for_timeout(300)


# The dashboard --------------------------------------------------------------------------------------------------------


def _dashboard(browser: Browser, home: Path, file: Path) -> None:
    from llmnb import set_budget, settings
    from llmnb.commands.dashboard_launcher import launch
    from llmnb.demo import history

    books = home / "books.db"
    os.environ["LLMNB_STORE_URL"] = f"sqlite:///{books}"
    history.write(settings.load(), datetime.now().astimezone())
    set_budget(usd=12, per="month")
    set_budget(usd=8, per="month", project="thesis")
    with launch(ledger=books) as dashboard, _page(browser, DASHBOARD_HEIGHT, width=1280) as page:
        page.goto(dashboard.url)
        page.locator("[data-testid=stMetricValue]").first.wait_for(timeout=25_000)
        page.locator("[data-testid=stVegaLiteChart] :is(canvas, svg)").nth(1).wait_for(timeout=25_000)
        page.wait_for_timeout(1_500)  # charts are drawn after they are there
        _save(page, file)


# Pictures -------------------------------------------------------------------------------------------------------------


@contextmanager
def _page(browser: Browser, height: int, width: int = WIDTH, scale: float = SCALE) -> Iterator[Page]:
    size: Any = {"width": width, "height": height}
    context = browser.new_context(viewport=size, device_scale_factor=scale, reduced_motion="reduce")
    yield context.new_page()
    context.close()


def _save(page: Page, file: Path) -> None:
    """The page as a PNG with few colours: a third of the size, and nobody sees it."""
    from PIL import Image

    _few_colours(Image.open(BytesIO(page.screenshot())), COLOURS).save(file, optimize=True)
    _check(file, MAX_BYTES)


def _film(page: Page, file: Path) -> None:
    """An answer as it comes, as an animated WebP: what Chromium draws, at most `FILM_FPS` times a second."""
    from PIL import Image

    shots: list[tuple[float, bytes]] = []
    session = page.context.new_cdp_session(page)

    def keep(event: dict[str, Any]) -> None:
        session.send("Page.screencastFrameAck", {"sessionId": event["sessionId"]})
        at_s = float(event["metadata"]["timestamp"])
        if not shots or at_s - shots[-1][0] >= 1 / FILM_FPS:
            shots.append((at_s, b64decode(event["data"])))

    page.wait_for_selector(".llmnb-answer .llmnb-footer", timeout=60_000)  # of the first one: Python has loaded all
    page.evaluate("() => document.querySelector('.jp-WindowedPanel-outer').scrollTo(0, 0)")
    page.mouse.move(0, 0)
    session.on("Page.screencastFrame", keep)
    session.send("Page.startScreencast", {"format": "png"})
    page.locator(".llmnb-answer .llmnb-footer").nth(1).wait_for(timeout=60_000)
    page.wait_for_timeout(1_000)  # math is set, the prompt has its number
    session.send("Page.stopScreencast")
    shots.append((shots[-1][0] + 1 / FILM_FPS, page.screenshot()))
    durations_ms = [round((after - before) * 1000) for (before, _), (after, _) in pairwise(shots)]
    frames = [_few_colours(Image.open(BytesIO(png))).convert("RGB") for _, png in shots]
    still = {"duration": [*durations_ms, FILM_STILL_MS], "loop": 0}
    frames[0].save(file, save_all=True, append_images=frames[1:], lossless=True, method=6, **still)
    _check(file, MAX_FILM_BYTES)


def _few_colours(picture: Image.Image, colours: int = FILM_COLOURS) -> Image.Image:
    from PIL import Image

    return picture.convert("RGB").quantize(colours, dither=Image.Dither.NONE)


def _check(file: Path, most: int) -> None:
    size = file.stat().st_size
    print(f"{file.name}: {size / 1000:,.0f} kB")
    if size > most:
        raise SystemExit(f"{file} is larger than {most / 1000:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parents[1] / "docs").absolute())
