"""The live view in a real browser: its front end alone in a bare page, then all of it in JupyterLab."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llmnb.display import static
from llmnb.display.answer import Answer
from llmnb.display.scene import Scene
from llmnb.events import Done, Text, Thinking, ToolCall, ToolResult
from llmnb.records import Usage

if TYPE_CHECKING:
    from playwright.sync_api import Clock, Page

    from .lab import Lab

pytestmark = [pytest.mark.browser, pytest.mark.timeout(180)]


def show(page: Page, *messages: dict[str, object] | None) -> None:
    """Hand messages to the front end and wait until they are drawn."""
    for message in messages:
        page.evaluate("(message) => window.receive(message)", json.loads(json.dumps(message)))
    page.evaluate("() => window.frames_drawn()")


def body(page: Page) -> str:
    """The text in the view's body."""
    return page.inner_text(".llmnb-body")


def test_frames_bring_the_page_to_pythons_html(bare: Page, scene: Scene) -> None:
    """After any number of frames the page shows what Python rendered: text, emoji, tables, code, a fold, a card."""
    answer = scene.answer
    text = "# Hi 🎉\n\nsome **bold** words\n\n| a |\n|---|\n| 🎉 x |\n\n```python\nprint('🎉')\n```\n\n$x^2$ end"
    answer.apply(Thinking("first *this*"))
    answer.apply(ToolCall("1", "weather", {"city": "Oslo"}))
    show(bare, scene.frame())
    answer.apply(ToolResult("1", "weather", "rain", duration_ms=800))
    for start in range(0, len(text), 3):
        answer.apply(Text(text[start : start + 3]))
        if message := scene.frame():
            show(bare, message)
    answer.apply(Done("claude", Usage(output_tokens=3), None, "max_tokens"))
    show(bare, scene.frame())
    drawn = bare.evaluate(
        "() => [...document.querySelectorAll('.llmnb-group > .llmnb-block')].map((b) => b.innerHTML).join('')"
    )
    expected = bare.evaluate(
        "(html) => { const t = document.createElement('div'); t.innerHTML = html; return t.innerHTML; }",
        "".join(section.html for section in scene.sections() if "llmnb-thinking" not in section.html),
    )
    assert drawn == expected
    assert bare.inner_text(".llmnb-thinking > summary") == "Thought (2 words)"
    assert "cut off at max_tokens" in bare.inner_text(".llmnb-foot")
    bare.wait_for_function("() => window.log.at(-1)?.[1].includes('end')")
    typeset = [text for what, text in bare.evaluate("() => window.log") if what == "typeset"]
    # the typesetter is loaded early; once, when its block is final
    assert [text.count("\\(x^2\\)") for text in typeset] == [0, 1]
    assert bare.is_hidden(".llmnb-bar")
    assert bare.get_attribute(".llmnb", "aria-busy") == "false"


def test_a_gap_waits_for_the_next_keyframe(bare: Page, scene: Scene) -> None:
    """After a lost message nothing wrong is shown; a resync is asked for once; the keyframe makes it right."""
    answer = scene.answer
    answer.apply(Text("one "))
    show(bare, scene.frame())
    answer.apply(Text("two "))
    scene.frame()
    for word in ("three ", "four "):
        answer.apply(Text(word))
        show(bare, scene.frame())
    assert body(bare) == "one"
    asked = [entry for entry in bare.evaluate("() => window.log") if entry[0] == "open"]
    assert asked == [["open", "llmnb.control", {"resync": "answer-1"}]]
    show(bare, scene.keyframe())
    assert body(bare) == "one two three four"


def test_many_formulas_are_typeset_one_by_one(bare: Page, scene: Scene) -> None:
    """A block with many formulas does not hold the page up: each is given to the typesetter in a moment of its own."""
    scene.answer.apply(Text(" and ".join(f"$x_{n}$" for n in range(6))))
    scene.answer.apply(Done("claude", Usage(output_tokens=3), None))
    show(bare, scene.frame())
    bare.wait_for_function("() => window.log.length === 7")
    assert bare.evaluate("() => window.log.slice(1).map(([, text]) => text)") == [f"\\(x_{n}\\)" for n in range(6)]


def test_what_the_reader_does_survives_frames(bare: Page, scene: Scene) -> None:
    """A selection in the growing block and an opened fold stay while text comes."""
    answer = scene.answer
    answer.apply(Thinking("because"))
    answer.apply(Text("select **me** now"))
    show(bare, scene.frame())
    bare.evaluate(
        "() => { document.querySelector('.llmnb-thinking').open = true;"
        " getSelection().selectAllChildren(document.querySelector('.llmnb-body strong')); }"
    )
    answer.apply(Text(" and more"))
    show(bare, scene.frame(), scene.keyframe())
    assert body(bare).endswith("now and more")
    assert bare.evaluate("() => String(getSelection())") == "me"
    assert bare.evaluate("() => document.querySelector('.llmnb-thinking').open") is True


def test_a_page_that_hears_nothing_asks(bare: Page) -> None:
    """A front end that came late, and is sent nothing, asks for all of the answer."""
    bare.evaluate("() => { window.make().initialize({ model: window.model }); }")
    bare.wait_for_function("() => window.log.length")
    assert bare.evaluate("() => window.log") == [["open", "llmnb.control", {"resync": "answer-1"}]]


OUTPUTS = """() => {
  const view = { "application/vnd.jupyter.widget-view+json": { model_id: "answer-1" } };
  const list = [{ data: { "text/plain": "other" } }, { data: view }];
  const outputs = { length: 2, get: (n) => list[n], set: (n, output) => (list[n] = output) };
  window.model.widget_manager.context = { model: { cells: [{ type: "markdown" }, { outputs }] } };
  window.outputs = list;
}"""


def test_a_page_that_missed_the_end_asks_for_the_bundle(bare: Page, clock: Clock, scene: Scene) -> None:
    """Where the answer is over and the notebook still has the view in it, the bundle is asked for and put there."""
    bare.evaluate(OUTPUTS)
    scene.answer.apply(Text("one"))
    html = finished(scene)
    show(bare, scene.keyframe())
    clock.run_for(3000)
    assert bare.evaluate("() => window.log") == [["open", "llmnb.control", {"keep": "answer-1"}]]
    show(bare, {"bundle": {"text/html": html}})
    assert bare.evaluate("() => window.outputs") == [
        {"data": {"text/plain": "other"}},
        {"output_type": "display_data", "data": {"text/html": html}, "metadata": {}},
    ]


def test_a_page_that_was_there_asks_for_nothing(bare: Page, clock: Clock, scene: Scene) -> None:
    """Where the kernel has put the bundle into the view's place already, nothing is asked and nothing changed."""
    bare.evaluate(OUTPUTS)
    bare.evaluate("() => { window.outputs[1] = { data: { 'text/html': 'kept' } }; }")
    show(bare, scene.keyframe())
    finished(scene)
    show(bare, scene.frame(), {"bundle": {"text/html": "other"}})
    clock.run_for(3000)
    assert bare.evaluate("() => window.log") == []
    assert bare.evaluate("() => window.outputs[1].data") == {"text/html": "kept"}


HEARS = """() => {
  window.hears = new Set();
  const connect = (slot) => window.hears.add(slot), disconnect = (slot) => window.hears.delete(slot);
  window.kernel.statusChanged = { connect, disconnect };
  const made = window.make();
  window.end = made.initialize({ model: window.model });
  window.leave = made.render({ model: window.model, el: document.getElementById("place") });
  document.getElementById("place").firstChild.remove();
}"""


@pytest.mark.parametrize("status", ["autorestarting", "dead"])
def test_what_has_come_stays_when_the_kernel_ends(bare: Page, scene: Scene, status: str) -> None:
    """A kernel that dies, or is restarted, takes no answer with it: what has come is put into the notebook."""
    bare.evaluate(HEARS)
    bare.evaluate(OUTPUTS)
    for event in (Thinking("hm"), ToolCall("1", "weather", {}), Text("one **two** <b>\n\n```python\nx = 1\n```\n")):
        scene.answer.apply(event)
    show(bare, scene.keyframe())
    bare.evaluate("() => window.hears.forEach((slot) => slot(window.kernel, 'busy'))")
    assert "data" in bare.evaluate("() => window.outputs[1]")
    assert bare.is_visible(".llmnb-stop")
    bare.evaluate("(status) => window.hears.forEach((slot) => slot(window.kernel, status))", status)
    kept = bare.evaluate("() => window.outputs[1]")
    assert kept["output_type"] == "display_data"
    assert set(kept["data"]) == {"text/html", "text/plain"}
    assert "one two <b>" in kept["data"]["text/plain"]
    assert "kernel ended · claude" in kept["data"]["text/plain"]
    bare.evaluate("(html) => { document.body.innerHTML = html; }", kept["data"]["text/html"])
    assert bare.locator("strong").inner_text() == "two"
    assert bare.locator(".llmnb-answer > .llmnb-footer .llmnb-warning").inner_text() == "kernel ended"
    assert bare.locator(".llmnb-thinking .llmnb-fold").count() == 1
    assert bare.locator(".llmnb-tool .llmnb-state").inner_text() == "no result"
    assert bare.locator("button").count() == 0  # none of them would do anything


def test_a_view_says_that_its_kernel_has_ended(bare: Page, scene: Scene) -> None:
    """Where a view stays on the page, as in a chat, it runs no longer, and offers nothing that could not be done."""
    bare.evaluate(HEARS)
    scene.answer.apply(Text("one"))
    show(bare, scene.keyframe())
    bare.evaluate("() => window.hears.forEach((slot) => slot(window.kernel, 'restarting'))")
    assert bare.inner_text(".llmnb-running").startswith("claude · the kernel ended")
    assert not bare.is_visible(".llmnb-stop")
    assert not bare.is_visible(".llmnb-pulse")
    assert bare.get_attribute(".llmnb-live", "aria-busy") == "false"
    assert bare.inner_text("[role=status]") == "The kernel ended: the answer is not complete."


def test_an_answer_that_is_complete_outlives_its_kernel(bare: Page, scene: Scene) -> None:
    """When the kernel ends after the answer has, nothing is touched; a view that is gone hears of nothing."""
    bare.evaluate(HEARS)
    bare.evaluate(OUTPUTS)
    scene.answer.apply(Text("one"))
    finished(scene)
    show(bare, scene.keyframe())
    bare.evaluate("() => window.hears.forEach((slot) => slot(window.kernel, 'dead'))")
    assert "output_type" not in bare.evaluate("() => window.outputs[1]")
    bare.evaluate("() => window.end()")
    assert bare.evaluate("() => window.hears.size") == 0


def test_stop_goes_three_ways(bare: Page, scene: Scene) -> None:
    """Stop asks the widget's comm and a comm of our own; without an ack the kernel is interrupted."""
    show(bare, scene.keyframe())
    bare.evaluate("() => { window.kernel.supportsSubshells = false; }")
    bare.focus(".llmnb-stop")
    bare.keyboard.press("Enter")
    bare.wait_for_function("() => window.log.some(([what]) => what === 'interrupt')")
    assert bare.evaluate("() => window.log") == [
        ["send", {"stop": "answer-1"}],
        ["open", "llmnb.control", {"stop": "answer-1"}],
        ["interrupt"],
    ]
    assert bare.is_disabled(".llmnb-stop")


def test_an_acknowledged_stop_does_not_interrupt(bare: Page, clock: Clock) -> None:
    """An ack on the widget's comm keeps the interrupt from striking a later cell."""
    bare.evaluate("() => { window.kernel.supportsSubshells = false; }")
    bare.evaluate("() => { document.querySelector('.llmnb-stop').click(); window.receive({ ack: true }); }")
    clock.run_for(5000)
    assert ["interrupt"] not in bare.evaluate("() => window.log")


def test_long_code_is_drawn_in_pieces(bare: Page, scene: Scene) -> None:
    """While a code block grows its first lines are the same elements, and page and Python agree in the end."""
    answer = scene.answer
    answer.apply(Text("```python\n"))
    for number in range(120):
        answer.apply(Text(f"value_{number} = '🎉' * {number}\n"))
        show(bare, scene.frame())
        if number == 20:
            bare.evaluate("() => { window.first = document.querySelector('.llmnb-piece'); }")
    assert scene.is_rough
    show(bare, scene.frame())  # in a pause what came last is coloured, too
    assert bare.evaluate("() => window.first === document.querySelector('.llmnb-piece')")
    assert bare.evaluate("() => document.querySelectorAll('.llmnb-piece').length") == 7
    expected = scene.sections()[-1].html
    same = "(html) => { const t = document.createElement('div'); t.innerHTML = html; return t.innerHTML; }"
    assert bare.inner_html(".llmnb-body .llmnb-block >> nth=-1") == bare.evaluate(same, expected)


@pytest.mark.parametrize(
    ("head", "line"), [("", "- item **{n}** 🎉\n"), ("| a | b |\n|---|--:|\n", "| {n} | `x` 🎉 |\n")]
)
def test_long_lists_and_tables_are_drawn_in_pieces(bare: Page, scene: Scene, head: str, line: str) -> None:
    """While one grows its first items are the same elements, and page and Python agree after every frame."""
    same = "(html) => { const t = document.createElement('div'); t.innerHTML = html; return t.innerHTML; }"
    scene.answer.apply(Text(head + "".join(line.format(n=n) for n in range(150))))
    show(bare, scene.frame())
    bare.evaluate("() => { window.first = document.querySelector('.llmnb-piece'); }")
    for number in range(150, 160):
        scene.answer.apply(Text(line.format(n=number)[: 5 + number % 3]))
        show(bare, scene.frame())
        scene.answer.apply(Text(line.format(n=number)[5 + number % 3 :]))
        show(bare, scene.frame())
        block = ".llmnb-body .llmnb-block:not(:empty) >> nth=-1"
        assert bare.inner_html(block) == bare.evaluate(same, scene.sections()[-1].html)
    scene.answer.apply(Text("\nThe end."))
    show(bare, scene.frame())
    assert bare.evaluate("() => window.first === document.querySelector('.llmnb-piece')")
    assert bare.evaluate("() => document.querySelectorAll('.llmnb-piece').length") == 160


def test_code_is_copied(bare: Page, scene: Scene) -> None:
    """The button of a code block copies its code."""
    bare.evaluate("() => { navigator.clipboard ??= {}; window.copied = null; }")
    bare.evaluate(
        "() => Object.defineProperty(navigator, 'clipboard', { value: { writeText: (t) => (window.copied = t) } })"
    )
    scene.answer.apply(Text("```python\nx = 1\n```\n"))
    show(bare, scene.frame())
    bare.click(".llmnb-copy", force=True)
    assert bare.evaluate("() => window.copied") == "x = 1\n"


REPLACED = """(html) => {
  const output = document.querySelector(".jp-OutputArea-child");
  const next = document.createElement("div");
  next.className = "jp-OutputArea-child";
  next.innerHTML = html;
  window.first = document.querySelector(".llmnb-body p");
  output.replaceWith(next);
}"""


@pytest.fixture
def output(bare: Page) -> Page:
    """The bare page with the view as one output of a cell."""
    bare.evaluate(
        "() => { const area = document.createElement('div'), child = document.createElement('div');"
        " area.className = 'jp-OutputArea'; child.className = 'jp-OutputArea-child';"
        " document.body.append(area); area.append(child); child.append(document.getElementById('place')); }"
    )
    return bare


def finished(scene: Scene) -> str:
    """The page that stays of a whole answer."""
    scene.answer.end()
    return static.page(scene.answer)


def write(scene: Scene) -> None:
    """Two paragraphs, a tool and the end."""
    answer = scene.answer
    answer.apply(Text("one $x$\n\n"))
    answer.apply(ToolCall("1", "weather", {"city": "Oslo"}))
    answer.apply(ToolResult("1", "weather", "rain"))
    answer.apply(Text("- two\n\n```python\nx = 1\n```\n"))
    answer.apply(Done("claude", Usage(output_tokens=3), None))


def test_the_bundle_goes_on_with_what_was_drawn(output: Page, scene: Scene) -> None:
    """The static bundle in a finished view's place shows the very elements of the view, folds open as they were."""
    write(scene)
    html = finished(scene)
    show(output, scene.frame())
    output.click(".llmnb-tool > summary")
    output.evaluate(REPLACED, html)
    assert output.evaluate("() => document.querySelector('.llmnb-answer .llmnb-body p') === window.first")
    assert output.evaluate("() => document.querySelector('.llmnb-answer .llmnb-tool').open")
    assert "3 out" in output.inner_text(".llmnb-answer .llmnb-footer")
    output.evaluate(
        "() => Object.defineProperty(navigator, 'clipboard', { value: { writeText: (t) => (window.copied = t) } })"
    )
    output.click(".llmnb-answer .llmnb-copy", force=True)
    assert output.evaluate("() => window.copied") == "x = 1\n"


def test_the_last_frame_need_not_be_drawn_yet(output: Page, scene: Scene) -> None:
    """What came in the same moment as the bundle is in it."""
    scene.answer.apply(Text("one "))
    show(output, scene.frame())
    write(scene)
    html = finished(scene)
    output.evaluate(
        f"([message, html]) => {{ window.receive(message); ({REPLACED})(html); }}",
        [json.loads(json.dumps(scene.frame())), html],
    )
    assert output.evaluate("() => document.querySelector('.llmnb-answer .llmnb-body p') === window.first")
    assert output.inner_text(".llmnb-answer .llmnb-body").startswith("one one")
    assert output.inner_text(".llmnb-answer li") == "two"


@pytest.mark.parametrize("missed", ["a frame", "the end", "its place", "a block"])
def test_a_view_that_is_not_whole_is_not_kept(output: Page, scene: Scene, missed: str) -> None:
    """A view that missed a message, or stood elsewhere, or shows something else, leaves the bundle as it came."""
    scene.answer.apply(Text("zero\n\n"))
    show(output, scene.frame())
    if missed == "a frame":
        scene.answer.apply(Text("half "))
        scene.frame()
    write(scene)
    html = finished(scene)
    if missed != "the end":
        show(output, scene.frame())
    if missed == "its place":
        output.evaluate("() => document.querySelector('.jp-OutputArea').prepend(document.createElement('div'))")
    if missed == "a block":
        html = html.replace("<ul>", "<ol>", 1)
    output.evaluate(REPLACED, html)
    assert output.evaluate("() => document.querySelector('.llmnb-answer .llmnb-body p') !== window.first")
    assert output.inner_text(".llmnb-answer .llmnb-body").startswith("zero")
    assert output.inner_text(".llmnb-answer li") == "two"


def test_a_long_answer_is_laid_out_where_it_is_seen(bare: Page, scene: Scene) -> None:
    """Of a long answer what is out of sight is skipped, and everything stands where it stood."""
    part = f"## Part\n\n{'words and words ' * 30}\n\n- a\n- b\n\n```python\nx = 1\n```\n\n"
    tops = (
        "() => [...document.querySelectorAll('.llmnb-block > *')].slice(0, 160)"
        ".map((block) => Math.round(block.getBoundingClientRect().top))"
    )
    skipped = "() => document.querySelectorAll('.llmnb-group[style*=content-visibility]').length"
    scene.answer.apply(Text(part * 40))
    show(bare, scene.frame())
    before = bare.evaluate(tops)
    assert bare.evaluate(skipped) == 0
    scene.answer.apply(Text("end"))
    show(bare, scene.frame())
    assert bare.evaluate(skipped) == 18
    assert bare.evaluate(tops) == pytest.approx(before, abs=2)


def test_a_long_answer_leaves_the_page_lightly(output: Page, clock: Clock, scene: Scene) -> None:
    """At its end what is out of sight is off the page until the bundle has come, or comes back; nothing moves."""
    part = f"## Part\n\n{'words and words ' * 30}\n\n- a\n- b\n\n```python\nx = 1\n```\n\n"
    height = "() => Math.round(document.querySelector('.llmnb-body').getBoundingClientRect().height)"
    blocks = "() => document.querySelectorAll('.llmnb-body .llmnb-block > *').length"
    scene.answer.apply(Text(part * 40))
    show(output, scene.frame())
    scene.answer.apply(Text("."))
    show(output, scene.frame())
    before = output.evaluate(height)
    scene.answer.apply(Done("claude", Usage(output_tokens=3), None))
    html = finished(scene)
    show(output, scene.frame())
    assert output.evaluate(blocks) < 100
    assert output.evaluate(height) == pytest.approx(before, abs=40)
    clock.run_for(1_500)
    assert output.evaluate(blocks) == 161
    output.evaluate(REPLACED, html)
    assert output.evaluate("() => document.querySelector('.llmnb-answer .llmnb-body p') === window.first")
    assert output.evaluate(blocks) == 161


def hostile_corpus() -> list[str]:
    """The strings of tests/display/test_hostile.py."""
    import importlib.util

    path = Path(__file__).parents[1] / "display" / "test_hostile.py"
    spec = importlib.util.spec_from_file_location("hostile", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.CORPUS


def test_hostile_pages_run_and_fetch_nothing(page: Page) -> None:
    """All of the corpus as static pages in one real page: no dialog, no request, no error, no handler but ours."""
    seen: list[str] = []
    page.route("**/*", lambda route: (seen.append(route.request.url), route.abort()))
    page.on("dialog", lambda dialog: (seen.append(dialog.message), dialog.dismiss()))
    made = [
        static.bundle(text, thinking=text, done=Done(text, Usage(), None), error=RuntimeError(text))
        for text in hostile_corpus()
    ]
    page.set_content("".join(bundle["text/html"] for bundle in made))
    page.evaluate("() => document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    page.hover("body")
    page.wait_for_timeout(200)
    assert seen == []
    foreign = (
        "() => document.querySelectorAll('script, img, iframe, object, embed, svg, form, link, base, video').length"
    )
    assert page.evaluate(foreign) == 0
    assert page.evaluate("() => getComputedStyle(document.body).display") == "block"


BROKEN_OFF = """(given) => {
  const kept = given.map(([label, message]) => {
    let receive, end;
    const list = [{ data: { "application/vnd.jupyter.widget-view+json": { model_id: "answer-1" } } }];
    const outputs = { length: 1, get: (n) => list[n], set: (n, output) => (list[n] = output) };
    const statusChanged = { connect: (slot) => (end = slot), disconnect() {} };
    const model = {
      get: (name) => ({ answer_id: "answer-1", model_label: label })[name],
      on: (event, handler) => (receive = handler),
      off() {},
      send() {},
      widget_manager: { kernel: { statusChanged }, context: { model: { cells: [{ outputs }] } } },
    };
    window.make().initialize({ model });
    receive(message);
    end(null, "dead");
    return list[0].data["text/html"];
  });
  document.body.innerHTML = kept.join("");
  document.querySelectorAll("details").forEach((fold) => { fold.open = true; });
}"""


def test_hostile_answers_whose_kernel_ended_run_and_fetch_nothing(bare: Page) -> None:
    """All of the corpus in the form that the page itself makes when a kernel ends: nothing in it acts."""
    seen: list[str] = []
    bare.route("**/*", lambda route: (seen.append(route.request.url), route.abort()))
    bare.on("dialog", lambda dialog: (seen.append(dialog.message), dialog.dismiss()))
    given: list[object] = []
    for text in hostile_corpus():
        scene = Scene(Answer(text))
        for event in (Thinking(text), ToolCall("1", text, {text: text}), ToolResult("1", text, text), Text(text)):
            scene.answer.apply(event)
        given.append([text, scene.keyframe()])
    bare.evaluate(BROKEN_OFF, json.loads(json.dumps(given)))
    bare.hover("body")
    bare.evaluate("() => window.frames_drawn()")
    assert seen == []
    assert bare.locator("text=kernel ended").count() == len(given)
    acting = "script, img, iframe, object, embed, svg, form, link, base, video, button"
    assert bare.evaluate("(acting) => document.body.querySelectorAll(acting).length", acting) == 0
    handled = "() => [...document.body.querySelectorAll('*')].flatMap((el) => el.getAttributeNames())"
    assert not [name for name in bare.evaluate(handled) if name.startswith("on")]


NOTEBOOK = [
    (Path(__file__).parent / "producer.py").read_text("utf-8"),
    "ask(RICH, gate='seen')",
    """
import llmnb
from llmnb.testing import serve_simulator
simulator = serve_simulator(environ=True, tokens_per_second=5)
simulator.__enter__()
llm = llmnb.LLM("claude-sonnet-5-5")
""",
    "llm('Explain WAL in SQLite')",
    "print(*llmnb.calls()['status'])",
]


@pytest.fixture
def notebook(lab: Lab) -> Page:
    """JupyterLab with the notebook open, its first cell run."""
    lab.write("view.ipynb", *NOTEBOOK)
    lab.open_notebook("view.ipynb")
    lab.run_cell(0)
    lab.wait_idle(0)
    return lab.page


def test_in_jupyterlab(notebook: Page, lab: Lab, trouble: list[str]) -> None:
    """An answer streams, stays as a bundle, Stop ends a blocked cell, the next cell runs; the console has no error."""
    page = notebook
    lab.run_cell(1)
    page.wait_for_selector(".llmnb-live .llmnb-code .k", timeout=90_000)  # the first frame, on a busy machine
    page.wait_for_selector(".llmnb-live td")
    assert page.is_visible(".llmnb-stop")
    page.evaluate("() => { window.drawn = document.querySelector('.llmnb-live td'); }")
    (lab.folder / "seen").touch()
    page.wait_for_selector(".llmnb-answer .llmnb-footer")
    assert page.evaluate("() => window.drawn.closest('.llmnb-answer') !== null")  # it was not drawn again
    assert page.locator(".llmnb-answer style").count() == 0  # the page has the rules already
    page.wait_for_selector(".llmnb-answer .MathJax")
    lab.wait_idle(1)
    assert page.query_selector(".llmnb-live") is None
    assert set(lab.outputs(1)[0]["data"]) == {"text/html", "text/markdown", "text/plain"}
    assert page.inner_text(".llmnb-answer .llmnb-tool code") == "weather"

    lab.run_cell(2)
    lab.wait_idle(2)
    lab.run_cell(3)
    page.wait_for_selector(".llmnb-live .llmnb-block p:has-text('Simulated answer')")
    page.click(".llmnb-stop")
    lab.wait_idle(3)
    answer, traceback = lab.outputs(3)
    assert "Simulated answer" in answer["data"]["text/plain"]
    assert "stopped" in answer["data"]["text/plain"]
    assert len(traceback["traceback"]) == 1
    lab.run_cell(4)
    lab.wait_idle(4)
    assert lab.outputs(4)[0]["text"] == "cancelled\n"
    assert trouble == []
