"""Runs and comparisons whose kernel ends in the middle: their front ends alone, in a page with a made-up kernel."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from llmnb.display import columns_widget, run_progress, run_widget
from llmnb.display.scene import Scene
from llmnb.events import Done, Text
from llmnb.jobs.run import Status
from llmnb.records import Usage

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = [pytest.mark.browser, pytest.mark.timeout(120)]

AGAIN = "run this cell again: what is finished is kept"
# the widget with these traits in a notebook of one cell, whose kernel tells of its status by `window.kernel_is`
SHOW = """async (traits) => {
  const slots = new Set(), handlers = {};
  const view = { "application/vnd.jupyter.widget-view+json": { model_id: traits.answer_id ?? traits.run_key } };
  window.outputs = [{ data: { "text/plain": "" } }, { data: view }];
  const outputs = { length: 2, get: (n) => window.outputs[n], set: (n, made) => (window.outputs[n] = made) };
  const kernel = { statusChanged: { connect: (slot) => slots.add(slot), disconnect: (slot) => slots.delete(slot) } };
  const model = {
    get: (name) => traits[name], off() {}, send() {},
    on: (event, handler) => (handlers[event] ??= []).push(handler),
    widget_manager: { kernel, context: { model: { cells: [{ outputs }] } } },
  };
  const { default: made } = await import(`/widget.js?${performance.now()}`);
  const widget = typeof made === "function" ? made() : made;
  const unhear = widget.initialize({ model });
  const leave = widget.render({ model, el: document.getElementById("place") });
  window.kernel_is = (status) => slots.forEach((slot) => slot(kernel, status));
  window.receive = (message) => handlers["msg:custom"].forEach((handler) => handler(message));
  window.close_model = () => { leave(); unhear(); return slots.size; };
}"""


def show(page: Page, script: str, **traits: object) -> None:
    """The widget whose script this is, with these traits."""
    page.route("**/widget.js*", lambda route: route.fulfill(body=script, content_type="text/javascript"))
    page.evaluate(SHOW, traits)


def ended(page: Page, status: str) -> dict[str, Any]:
    """What is in the notebook in the widget's place once its kernel has this status, and in the page."""
    page.evaluate("() => window.kernel_is('busy')")
    assert set(page.evaluate("() => window.outputs[1]")) == {"data"}
    page.evaluate("(status) => window.kernel_is(status)", status)
    assert page.locator("#place button:visible, #place .llmnb-pulse:visible").count() == 0
    assert AGAIN in page.inner_text("#place")
    kept = page.evaluate("() => window.outputs[1]")
    assert kept["output_type"] == "display_data"
    assert set(kept["data"]) == {"text/html", "text/plain"}
    page.evaluate("(html) => { document.getElementById('place').innerHTML = html; }", kept["data"]["text/html"])
    return kept["data"]


@pytest.fixture
def place(bare: Page) -> Page:
    """A page with an empty place for a widget."""
    bare.evaluate("() => document.getElementById('place').replaceChildren()")
    return bare


@pytest.mark.parametrize("status", ["autorestarting", "dead"])
def test_a_run(place: Page, status: str) -> None:
    """It ends without bar and Stop; what is finished stays, with what to do, and no guess at what is left."""
    now = Status(rows=30, done=12, failed=1, seconds=4.0, cost_nanousd=2_000_000, held=3, held_for="the limit")
    text = run_progress.said(now)
    if_lost = run_progress.html_if_lost(now, lambda over, end: run_progress.said(over, "", "r1", end=end))
    table = '<div class="llmnb-many"><div tabindex="0">so far</div></div>'
    html = run_progress.html_of(now, text) + table
    css = ".llmnb-run { color: red }"
    show(place, run_widget.script(), run_key="run-1", html=html, if_lost=if_lost, _css=css)
    assert place.locator("#place .llmnb-bar, #place .llmnb-stop").count() == 2
    data = ended(place, status)
    plain = f"12 of 30 rows · 1 failed · $0.0020 · 3.0 rows/s · 4 s · kernel ended · run r1 · {AGAIN}"
    assert data["text/plain"] == plain
    assert place.locator("#place .llmnb-bar, #place button").count() == 0
    assert place.inner_text("#place").split("\n")[-1] == "so far"
    colour = place.evaluate("() => getComputedStyle(document.querySelector('#place .llmnb-run')).color")
    assert colour == "rgb(255, 0, 0)"


def test_a_comparison(place: Page, scene: Scene) -> None:
    """Of an answer that is complete all stays, of one that is not what had come; each is said to be what it is."""
    columns = [{"answer_id": name, "label": name, "model_label": f"model-{name}"} for name in ("a", "b", "c")]
    show(place, columns_widget.script(), answer_id="all", columns=columns, can_stop=True, over=False, _css="")
    scene.answer.apply(Text("one **two** <b>"))
    place.evaluate("(message) => window.receive(message)", {"column": "a", "message": _plain(scene.keyframe())})
    scene.answer.apply(Done("claude", Usage(output_tokens=3), None, "end_turn"))
    scene.answer.end(None)
    place.evaluate("(message) => window.receive(message)", {"column": "b", "message": _plain(scene.keyframe())})
    data = ended(place, "restarting")
    line = f"1 of 3 answers are there · kernel ended · {AGAIN}"
    assert data["text/plain"].startswith("a\n\none two <b>\n\nkernel ended · model-a\n\nb\n\none two <b>\n\nclaude")
    assert data["text/plain"].endswith(f"kernel ended · model-c\n\n{line}")
    assert place.locator("#place .llmnb-column strong").all_inner_texts() == ["two", "two"]
    warned = place.locator("#place .llmnb-column .llmnb-warning", has_text="kernel ended")
    assert warned.count() == 2
    assert place.inner_text("#place .llmnb-compare > .llmnb-footer") == line


def test_what_is_over_is_left_alone(place: Page) -> None:
    """A kernel that ends after them changes nothing of what a run and a comparison have become."""
    show(place, run_widget.script(), run_key="run-1", html="<div></div>", if_lost="<div></div>")
    assert place.evaluate("() => window.close_model()") == 0
    show(place, columns_widget.script(), answer_id="all", columns=[], can_stop=True, over=True)
    place.evaluate("() => window.kernel_is('dead')")
    assert set(place.evaluate("() => window.outputs[1]")) == {"data"}


def _plain(message: object) -> object:
    return json.loads(json.dumps(message))
