"""The dashboard in a real Chromium: it starts, fills itself, keeps its filters in the URL, and fits a phone."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

import pytest

import llmnb
from llmnb import settings
from llmnb.commands.dashboard_launcher import Dashboard, launch
from llmnb.demo import history
from llmnb.ledger import open_ledger
from llmnb.records import Call

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


def write(ledger: Path, uid: str, project: str, cost_nanousd: int, model: str = "claude-sonnet-5-5") -> None:
    """Put a call that ends now on the books."""
    ts = time.time_ns() // 1_000 - 60_000_000
    usage = {"input_tokens": 1_000, "cache_read_tokens": 5_000, "output_tokens": 200, "cost_nanousd": cost_nanousd}
    open_ledger(ledger).write(
        Call(
            uid=uid, ts=ts, model_requested=model, model=model, project=project, status="ok", latency_ms=900.0, **usage
        )
    )


@pytest.fixture
def dashboard(tmp_path: Path) -> Iterator[Dashboard]:
    """A dashboard on a ledger that does not exist yet."""
    with launch(ledger=tmp_path / "books.db") as running:
        yield running


def metric(page: Page, label: str) -> str:
    """The big number under a label."""
    card = page.locator("[data-testid=stMetric]").filter(has_text=label)
    return card.locator("[data-testid=stMetricValue]").inner_text().strip()


def wait_for_spend(page: Page, spend: str) -> None:
    """Wait until the page shows this spend."""
    page.locator("[data-testid=stMetricValue]").filter(has_text=re.compile(f"^\\s*{re.escape(spend)}\\s*$")).wait_for()


def query(page: Page) -> dict[str, list[str]]:
    """What the URL says."""
    return parse_qs(urlsplit(page.url).query)


def test_dashboard(page: Page, dashboard: Dashboard, tmp_path: Path) -> None:
    """From an empty ledger to a filtered view in a URL that another visitor can open, without a reload by hand."""
    ledger, trouble = tmp_path / "books.db", list[str]()
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.goto(dashboard.url)
    page.get_by_text("No calls yet").wait_for()

    write(ledger, "a", "thesis", 12_300_000_000)
    wait_for_spend(page, "$12.30")  # by itself
    page.locator("[data-testid=stVegaLiteChart] :is(canvas, svg)").nth(1).wait_for()
    write(ledger, "b", "triage", 4_200_000, "claude-haiku-5-5")
    page.locator("[data-testid=stMetricValue]").filter(has_text=re.compile(r"^\s*2\s*$")).wait_for()  # calls, by itself

    page.locator("[data-testid=stMultiSelect]").first.click()
    page.get_by_role("option", name="triage").click()
    page.keyboard.press("Escape")
    wait_for_spend(page, "$0.0042")
    page.get_by_role("radio", name="7d").click()
    page.get_by_text("The last 7 days vs the 7 days before").wait_for()
    assert query(page) == {"period": ["7d"], "project": ["triage"]}

    page.goto(page.url)  # the link, opened anew
    wait_for_spend(page, "$0.0042")
    assert metric(page, "Calls") == "1"

    page.goto(f"{dashboard.url}/?project=new")
    page.get_by_text("No calls match").wait_for()
    write(ledger, "c", "new", 31)
    wait_for_spend(page, "$0.000000031")  # by itself

    page.goto(f"{dashboard.url}/?project=gone&period=7d")
    page.get_by_role("button", name="Reset filters").click()
    page.get_by_text("The last 30 days").wait_for()
    wait_for_spend(page, "$12.30")
    assert query(page) == {}

    page.set_viewport_size({"width": 390, "height": 844})
    wait_for_spend(page, "$12.30")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    cards = [box for card in page.locator("[data-testid=stMetric]").all() if (box := card.bounding_box())]
    assert cards[0]["y"] == cards[1]["y"] < cards[2]["y"] == cards[3]["y"], "two and two"
    assert trouble == []


PAGES = {
    "Overview": "Recent calls",
    "Models": "The same tokens on another model",
    "Caching": "Writes that were never read",
    "Projects & notebooks": "Dearest cells",
    "Calls": "Choose one to open it",
    "Errors & limits": "How calls ended, other than well",
    "Budgets": "The dashed line is spending it evenly",
    "Prices & data": "Load demo data",
}
"""What each page says once it is drawn to its end."""
SIZES = {
    "wide": (1280, 900, [*PAGES]),
    "tablet": (834, 1112, ["Overview", "Prices & data", "Calls"]),  # there a part of the pages is in a menu
    "phone": (390, 844, [*PAGES]),
}


def test_every_page_at_three_sizes(page: Page, llmnb_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clicking through all pages, wide, on a tablet in the dark and on a phone: no error, nothing too wide."""
    history.write(settings.load(), datetime.now().astimezone())
    llmnb.set_budget(usd=20, per="month")
    llmnb.set_budget(usd=1, per="rolling 24h", project="thesis")
    monkeypatch.setenv("LLMNB_DASHBOARD_PASSWORD", "correct horse battery")
    trouble = list[str]()
    with launch() as running:
        page.emulate_media(color_scheme="dark", reduced_motion="reduce")
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("console", lambda line: trouble.append(line.text) if line.type == "error" else None)
        page.goto(running.url)
        page.get_by_label("Password", exact=True).fill("correct horse battery")
        page.get_by_role("button", name="Log in").click()
        page.locator("[data-testid=stMetricValue]").first.wait_for()
        page.reload()  # the browser's ticket opens the door again
        page.locator("[data-testid=stMetricValue]").first.wait_for()
        for size, (width, height, titles) in SIZES.items():
            page.set_viewport_size({"width": width, "height": height})
            for title in titles:
                _go_to(page, title, narrow=width < 700)
                page.get_by_role("heading", name=title, exact=True).wait_for()
                page.get_by_text(PAGES[title]).first.wait_for()
                assert page.evaluate("document.documentElement.scrollWidth") <= width, (title, size)
                assert page.locator("[data-testid=stException]").count() == 0, (title, size)
    assert trouble == []


def _go_to(page: Page, title: str, *, narrow: bool) -> None:
    """Click a page's name in the navigation, which a phone has behind a button, and a tablet in part."""
    link = page.get_by_role("link", name=title, exact=True).first
    if narrow:
        page.get_by_test_id("stExpandSidebarButton").click()
    elif not link.is_visible():
        page.get_by_text(re.compile(r"^\d+ more$")).click()
        link = page.get_by_role("menuitem", name=title, exact=True)
    link.click()
    if narrow:
        page.get_by_test_id("stSidebarCollapseButton").click()
