"""What a reader sees of a saved notebook where nothing of ours runs: on GitHub and its like, and after papermill."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import bleach
import nbformat
import papermill
import pytest
from bs4 import BeautifulSoup
from nbconvert.filters import markdown2html

from llmnb.display import static
from llmnb.display.answer import Answer
from llmnb.events import Citation, Done, Text, Thinking, ToolCall, ToolResult
from llmnb.records import Usage
from llmnb.testing import serve_simulator

TEXT = """## Title

Some **bold** text, `code` and <b>a tag</b>, [a link](https://a.example/) and $x^2$.

```python
def f(x):
    return x < 1
```

| a | b |
|---|---|
| 1 | 2 |

- one
- two
"""
SHOWN = [
    "Thought (2 words)", "so far", "weather done 0.83 s", "Oslo", "rain", "Title",
    "Some bold text, code and <b>a tag</b>,",
    "def f(x):", "return x < 1", "a", "b", "1", "2", "one", "two", "Almanac",
    "claude-sonnet-5-5", "9 in", "99 out", "$0.0010",
]  # fmt: skip

# https://github.com/gjtorikian/html-pipeline, SanitizationFilter: what GitHub lets through; no class, style or script
ELEMENTS = [
    "h1", "h2", "h3", "h4", "h5", "h6", "br", "b", "i", "strong", "em", "a", "pre", "code", "img", "tt", "div", "ins",
    "del", "sup", "sub", "p", "ol", "ul", "table", "thead", "tbody", "tfoot", "blockquote", "dl", "dt", "dd", "kbd",
    "q", "samp", "var", "hr", "li", "tr", "td", "th", "s", "strike", "summary", "details", "caption", "figure", "abbr",
    "mark", "small", "span", "time", "wbr",
]  # fmt: skip
ATTRIBUTES = {"a": ["href"], "*": ["title", "open", "start", "align", "hidden", "aria-hidden", "aria-label"]}


@pytest.fixture
def answer() -> Answer:
    """An answer with a bit of everything, at its end."""
    made = Answer("claude-sonnet-5-5")
    for event in (
        Thinking("so far"),
        ToolCall("1", "weather", {"city": "Oslo"}),
        ToolResult("1", "weather", "rain", duration_ms=830),
        Text(TEXT),
        Citation("Almanac", "https://a.example/almanac"),
        Done("claude-sonnet-5-5", Usage(input_tokens=9, output_tokens=99), Decimal("0.001")),
    ):
        made.apply(event)
    made.end()
    return made


def as_github(html: str) -> BeautifulSoup:
    """HTML as GitHub shows it: style sheets and scripts gone, then each element and attribute that it does not know."""
    soup = BeautifulSoup(html, "html.parser")
    for gone in soup.find_all(["style", "script"]):
        gone.decompose()
    return BeautifulSoup(bleach.clean(str(soup), ELEMENTS, ATTRIBUTES, strip=True), "html.parser")


def assert_shown(words: list[str], text: str) -> None:
    """All of the words stand in the text, one after the other."""
    text = re.sub(r"\s+", " ", text)
    start = 0
    for word in words:
        start = text.find(word, start)
        assert start >= 0, f"{word!r} is missing, or not in its place: {text}"
        start += len(word)


def test_html_without_style_and_script(answer: Answer) -> None:
    """Of a page that is stripped of all style and script the whole answer is there, in its order, and no more."""
    page = as_github(static.page(answer))
    assert_shown(SHOWN, page.get_text())
    assert [row.get_text(" ", strip=True) for row in page.find_all("tr")] == ["a b", "1 2"]
    assert page.find("pre", string=re.compile("^def")) or "def f(x):\n    return x < 1" in page.find_all("pre")[-1].text
    assert [link["href"] for link in page.find_all("a")] == ["https://a.example/", "https://a.example/almanac"]
    assert "{" not in page.get_text().replace('{\n  "city": "Oslo"\n}', "")  # no rule of a style sheet as text


def test_markdown(answer: Answer) -> None:
    """A viewer that takes the Markdown shows the text, the table, the code and the footer."""
    page = as_github(markdown2html(static.kept_markdown(answer)))
    assert_shown([*SHOWN[5:15], *SHOWN[16:]], page.get_text())
    assert [row.get_text(" ", strip=True) for row in page.find_all("tr")] == ["a b", "1 2"]


def test_plain_text(answer: Answer) -> None:
    """A viewer that takes only text shows the answer as the model wrote it, its sources and its footer."""
    assert_shown([TEXT.split("\n")[2], "| 1 | 2 |", *SHOWN[15:]], static.plain(answer))


CELLS = ["question = ''", "import llmnb\nllm = llmnb.LLM('claude-sonnet-5-5')", "llm(question)", "llm(question)"]


def test_papermill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, llmnb_home: Path) -> None:
    """A notebook that papermill ran with a parameter holds each answer, as Markdown and text; the second is cached."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    notebook.cells[0].metadata["tags"] = ["parameters"]
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, tmp_path / "in.ipynb")
    with serve_simulator(environ=True) as simulator:
        simulator.rule(lambda request: f"**Yes**, {request.prompt}")
        papermill.execute_notebook(
            tmp_path / "in.ipynb",
            tmp_path / "out.ipynb",
            {"question": "why?"},
            kernel_name="python3",
            progress_bar=False,
        )
    outputs = [cell.outputs for cell in nbformat.read(tmp_path / "out.ipynb", 4).cells]
    (live,), (cached,) = outputs[-2:]
    for output in (live, cached):
        assert set(output.data) == {"text/markdown", "text/plain"}
        assert output.data["text/markdown"].startswith("**Yes**, why?\n\n*claude-sonnet-5-5")
    assert "cached, saved" in cached.data["text/plain"]
    assert "cached" not in live.data["text/plain"]
