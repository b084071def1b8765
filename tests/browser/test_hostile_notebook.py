"""Hostile text in every place of a notebook: live, kept, saved and opened again, converted; nothing runs or loads."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llmnb.display import static

from .trouble import watch

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from .lab import Lab

pytestmark = [pytest.mark.browser, pytest.mark.timeout(240)]

PRODUCER = (Path(__file__).parent / "producer.py").read_text("utf-8")
SETUP = """
import json, os, time
from IPython.display import display as show_in_cell
import anthropic, llmnb, pandas
from llmnb.events import Citation, Retry
from llmnb.reply import Reply

os.environ["ANTHROPIC_API_KEY"] = "sk-ant-none"
CORPUS = json.loads(Path("corpus.json").read_text())

def pieces(size):
    return [CORPUS[first:first + size] for first in range(0, len(CORPUS), size)]

def events(bad):
    "What a stranger can write to while an answer comes."
    return (Thinking(bad), Retry(1, 2, bad), ToolCall(bad, bad, {bad: bad}),
            ToolResult(bad, bad, bad, is_error=True), Text(bad), Citation(bad, bad, bad, bad))

def views(name, gate="/"):
    "Views of one display at once, each with many strings in all places, until the file `gate` is there."
    views = [display.choose(name) for _ in pieces(20)]
    for view, corpus in zip(views, pieces(20)):
        view.open(corpus[0], lambda: None)
        for bad in corpus:
            for event in events(bad):
                view.show(event)
    while not Path(gate).exists():
        time.sleep(0.02)
    for view, corpus in zip(views, pieces(20)):
        view.show(Done(corpus[1], Usage(), None, stop_reason=corpus[2]))
        view.close(RuntimeError(corpus[3]))

def ends():
    "Each string as a model's name, a reason to stop, and an error."
    for corpus in pieces(20):
        made = [display.bundle("", done=Done(bad, Usage(), None, stop_reason=bad), error=RuntimeError(bad))
                for bad in corpus]
        show_in_cell({"text/html": "".join(bundle["text/html"] for bundle in made)}, raw=True)

def markdown(first):
    "What a viewer without HTML shows, and a notebook run without a browser keeps."
    for bad in pieces(45)[first]:
        tools = [(ToolCall("1", bad, {bad: bad}), ToolResult("1", bad, bad))]
        made = display.bundle(bad, thinking=bad, tools=tools, citations=[Citation(bad, bad, bad, bad)],
                              done=Done(bad, Usage(), None), error=RuntimeError(bad))
        show_in_cell({"text/markdown": made["text/markdown"], "text/plain": made["text/plain"]}, raw=True)

def chats():
    "Conversations of 20 turns with hostile questions, file names, models, tools and answers, as a file brings them."
    for corpus in pieces(20):
        messages = []
        for bad in corpus:
            source = {"type": "text", "media_type": "text/plain", "data": bad}
            file = {"type": "document", "title": bad, "source": source}
            messages.append({"role": "user", "content": [file, {"type": "text", "text": bad}]})
            tool = {"type": "tool_use", "id": "1", "name": bad, "input": {bad: bad}}
            thinking = {"type": "thinking", "thinking": bad, "signature": bad}
            messages.append({"role": "assistant", "content": [thinking, tool, {"type": "text", "text": bad}]})
        saved = {"format": "llmnb.chat", "version": 1, "name": bad, "model": "claude-sonnet-5-5", "system": bad,
            "options": {}, "messages": messages, "models": corpus, "usage": {}, "cost_nanousd": None,
            "unpriced_calls": len(corpus)}
        Path("chat.json").write_text(json.dumps(saved))
        yield llmnb.Chat.load("chat.json")

def replies():
    "Answers as a program holds them."
    for bad in CORPUS:
        blocks = [anthropic.types.ThinkingBlock(type="thinking", thinking=bad, signature=bad),
                  anthropic.types.TextBlock(type="text", text=bad)]
        yield Reply(anthropic.types.Message.model_construct(id=bad, type="message", role="assistant", model=bad,
            stop_reason=bad, content=blocks), Usage())
"""
QUIET = (
    "views('html')",
    "ends()",
    "show_in_cell(*list(replies())[:11])",
    "show_in_cell(*chats())",
    "for chat in chats():\n    show_in_cell({'text/markdown': chat._repr_mimebundle_()['text/markdown']}, raw=True)",
    "show_in_cell(*[chat.ui() for chat in chats()])",
    "pandas.set_option('display.max_rows', None, 'display.max_colwidth', None)\n"
    "pandas.DataFrame({'text': CORPUS, 'reply': list(replies())})",
    "[list(replies()), *(reply.costs() for reply in replies())]",
    "show_in_cell(*[reply.costs() for reply in replies()][:11])",
    "raise llmnb.LlmnbError(chr(10).join(CORPUS))",
)


def corpus() -> list[str]:
    """The strings of tests/display/test_hostile.py."""
    path = Path(__file__).parents[1] / "display" / "test_hostile.py"
    spec = importlib.util.spec_from_file_location("hostile", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return [text.encode("utf-8", "replace").decode() for text in module.CORPUS]


@pytest.fixture
def canary() -> Iterator[tuple[str, list[str]]]:
    """A server that hostile answers point to: its address, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(204)
            self.end_headers()

        do_POST = do_HEAD = do_OPTIONS = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()


FOREIGN = """(copy) => {
  const tags = "script, img, iframe, object, embed, form, link, base, meta, video, audio, dialog, template, svg";
  const good = /^(https?:|mailto:|#)/i;
  // JupyterLab makes links of addresses in text, which show where they lead, and pictures of Mermaid in Markdown
  const isViewersOwn = (element) => element.closest("[data-jp-mermaid-version]")
    || (element.matches(".jp-RenderedText a, .jp-RenderedMarkdown a[href^=ftp]")
      && decodeURI(element.href).startsWith(element.textContent.slice(0, 12)));
  const badAttribute = (element, name, value) =>
    (name.startsWith("on") && value !== copy)
    || name === "src"
    || (name === "style" && /url\\(|fixed|absolute/.test(value))
    || (name === "href" && !good.test(value));
  const bad = (element) => element.matches(tags)
    || [...element.attributes].some(({ name, value }) => badAttribute(element, name, value));
  return [...document.querySelectorAll(".jp-OutputArea-output *")]
    .filter((element) => bad(element) && !isViewersOwn(element))
    .filter((element) => !element.closest("mjx-container, [class*=MathJax]"))
    .map((element) => element.outerHTML.slice(0, 300));
}"""
COUNT = "([name, count]) => document.querySelectorAll(name).length >= count"


def look(page: Page) -> None:
    """Open every fold, move the pointer over the page: what waits for that goes off; and nothing foreign is there."""
    page.evaluate("() => document.querySelectorAll('.llmnb details').forEach((fold) => { fold.open = true; })")
    for y in range(100, 800, 70):
        page.mouse.move(400, y)
    page.wait_for_timeout(300)
    assert page.evaluate(FOREIGN, static.COPY) == []


@pytest.mark.parametrize("step", [2, pytest.param(1, marks=pytest.mark.soak)])
def test_hostile_text_in_every_place(
    lab: Lab, trouble: list[str], page: Page, canary: tuple[str, list[str]], tmp_path: Path, step: int
) -> None:
    """Wherever a stranger's text can stand, in each state of a notebook: nothing runs, the canary is not asked.

    Every second text does; each of them goes through all that Python renders in tests/display/test_hostile.py.
    """
    shown, (address, asked) = lab.page, canary
    texts = [text.replace("canary.example", address) for text in corpus()[::step]]
    answers = [".llmnb-answer", len(texts) + 11 + 2 * math.ceil(len(texts) / 20)]  # as ends, of replies, of views
    quiet = [*QUIET, *(f"markdown({piece})" for piece in range(math.ceil(len(texts) / 45)))]
    (lab.folder / "corpus.json").write_text(json.dumps(texts))
    lab.write("hostile.ipynb", PRODUCER, SETUP, "views('widget', 'seen')", *quiet)
    lab.open_notebook("hostile.ipynb")
    for cell in range(3):
        lab.run_cell(cell)
    shown.wait_for_function(COUNT, arg=[".llmnb-live .llmnb-tool", len(texts)], timeout=60_000)
    look(shown)
    (lab.folder / "seen").touch()
    for cell in range(2, 3 + len(quiet)):
        lab.run_cell(cell) if cell > 2 else None
        lab.wait_idle(cell, timeout=60_000)
    shown.wait_for_function(COUNT, arg=answers, timeout=60_000)
    shown.wait_for_function(COUNT, arg=[".llmnb-chat article", len(texts)], timeout=60_000)
    look(shown)
    shown.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")

    command = [sys.executable, "-m", "nbconvert", "--to=html", f"--output={tmp_path / 'page.html'}"]
    conversion = subprocess.Popen([*command, str(lab.folder / "hostile.ipynb")], stderr=subprocess.PIPE)

    lab.stop_kernels()
    lab.open_notebook("hostile.ipynb")
    shown.wait_for_function(COUNT, arg=answers, timeout=60_000)
    look(shown)
    assert shown.evaluate("() => window.jupyterapp.shell.currentWidget.content.widgets[2].model.trusted")
    assert [what for what in trouble if not what.startswith("console")] == []  # it tells of the kernel that is gone

    said = conversion.communicate(timeout=60)[1]
    assert conversion.returncode == 0, said
    page.route("https://**", lambda route: route.abort())  # the converter's own libraries
    with watch(page) as seen:
        page.goto((tmp_path / "page.html").as_uri())
        page.wait_for_function(COUNT, arg=answers, timeout=60_000)
        look(page)
    assert [what for what in seen if not what.startswith(("error", "console"))] == []  # it misses its libraries
    assert asked == []
    page.evaluate("(url) => fetch(url, { mode: 'no-cors' }).catch(() => null)", f"http://{address}/probe")
    assert asked == ["/probe"]  # it does listen
    page.evaluate("() => document.querySelector('.jp-OutputArea-output').insertAdjacentHTML('beforeend', '<img>')")
    assert page.evaluate(FOREIGN, static.COPY) == ["<img>"]  # and the search would have found something
