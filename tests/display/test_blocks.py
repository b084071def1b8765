"""Markdown that grows: what is frozen must be what a full render gives, however the text is cut."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from llmnb.display import markdown, open_blocks
from llmnb.display.blocks import MarkdownStream
from llmnb.display.markdown_writer import rewrite

SAMPLE = """# Title

A paragraph with **bold**, `code`, $x^2$ and [a link](https://a.example), costs $5 and $10,
and \\(a + b\\) on a second line
#tag is no heading
- but this is a list

- one
- two

  more of two

| a | b |
|---|--:|
| 1 | 2 |
```python
def f(x):
    '''text'''

    return x + 1
```
Setext
======
$$
\\int_0^1 x\\,dx
$$

> quote
> goes on

    indented code

~~~
```
~~~

[ref]: https://b.example
See [ref]. Ünïcödé 🎉 ende.
"""


def streamed(text: str, cuts: list[int]) -> str:
    """All that was frozen when `text` came in pieces of these lengths."""
    stream, frozen, start = MarkdownStream(), list[str](), 0
    for cut in [*cuts, len(text)]:
        stream.append(text[start : start + cut])
        frozen += stream.update().frozen
        start += cut
    end = stream.finish()
    frozen += end.frozen
    if whole := stream.whole():
        assert whole == (markdown.render(text), rewrite(text))
    else:
        assert "]:" in text
    return "".join(end.corrected.get(number, html) for number, html in enumerate(frozen))


@given(st.lists(st.integers(1, 40), max_size=80))
@example([1] * len(SAMPLE))
def test_frozen_blocks_equal_a_full_render(cuts: list[int]) -> None:
    """However the deltas are cut, the frozen blocks are byte for byte the HTML of the whole text."""
    assert streamed(SAMPLE, cuts) == markdown.render(SAMPLE)


_LINES = st.sampled_from(
    [
        "",
        "text",
        "#",
        "# head",
        "#tag",
        "- item",
        "  more",
        "1. one",
        "> quote",
        "```",
        "```py",
        "code()",
        "---",
        "===",
        "| a |",
        "|---|",
        "$$",
        "x^2",
        "    deep",
        "~~~",
        "- - -",
        "**b**",
        "`c",
        "a & b < c",
        "[x] and [y][x]",
        "[x]: https://a.example",
    ]
)


@given(st.lists(_LINES, max_size=14), st.lists(st.integers(1, 6), max_size=40))
@example(["[x] and [y][x]", "#", "[x]: https://a.example", "text", ""], [])
def test_odd_documents_are_frozen_rightly(lines: list[str], cuts: list[int]) -> None:
    """Any order of Markdown's constructs gives the same blocks as a render of the whole."""
    text = "\n".join(lines)
    assert streamed(text, cuts) == markdown.render(text)


@given(st.lists(_LINES, max_size=14), st.lists(st.integers(1, 6), max_size=40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_items_set_apart_change_nothing(monkeypatch: pytest.MonkeyPatch, lines: list[str], cuts: list[int]) -> None:
    """The same when every list and table is drawn item by item, but for the marks on their pieces."""
    monkeypatch.setattr(open_blocks, "LONG_CHARS", 0)
    text = "\n".join(lines)
    assert streamed(text, cuts).replace(' class="llmnb-piece"', "") == markdown.render(text)


_WORDS = st.sampled_from(
    ["a", " b", "c ", ", ", "x - y", " it's", "1", ". ", "- ", "two  ", "\n", "\n\n", "**", "_", ")"]
)


@given(st.lists(st.one_of(_WORDS, _LINES), max_size=14), st.lists(st.integers(1, 9), max_size=40))
@example(["1", ". ", "a", " b"], [1, 1, 1, 1, 1, 1])
@example(["**b**", "a"], [5])
@example(["_a_", "b"], [3])
@example(["| a | b |\n|---|---|\n| c", " d"], [25])
@example(["[x](https://a.example", " b", ")"], [22])
def test_what_grows_is_shown_as_it_is(pieces: list[str], cuts: list[int]) -> None:
    """Words put to what was shown before give what a render of the block that grows gives."""
    text, stream, start = "".join(pieces), MarkdownStream(), 0
    for cut in [*cuts, len(text)]:
        stream.append(text[start : start + cut])
        start += cut
        tail = stream.update().tail
        if not stream.tail_source.startswith(("```", "~~~")):  # open code is shown in pieces
            assert tail == markdown.render(stream.tail_source, {"references": dict(stream._definitions())})


LISTS = {
    "bullets": "".join(f"- item **{n}**\n" for n in range(150)),
    "loose": "".join(f"{n}. item\n\n   more of `{n}`\n\n" for n in range(3, 100)),
    "loose at its end": "".join(f"* item {n}\n" for n in range(150)) + "\n* last\n",
    "nested": "".join(f"- item\n  - sub {n}\n\n    ```\n    code\n    ```\n" for n in range(60)),
    "table": "| a | b |\n|--:|---|\n" + "".join(f"| {n} | `x` |\n" for n in range(150)),
}


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("piece", [37, 300])
def test_a_long_list_grows_as_it_will_stay(name: str, piece: int) -> None:
    """Every state of a long list or table is what a render of the text so far gives."""
    text, stream, frozen = LISTS[name] + "\nThe end.\n", MarkdownStream(), ""
    for start in range(0, len(text), piece):
        stream.append(text[start : start + piece])
        update = stream.update()
        frozen += "".join(update.frozen)
        so_far = (frozen + update.tail).replace(' class="llmnb-piece"', "")
        assert so_far == markdown.render(text[: start + piece])
    assert (frozen + "".join(stream.finish().frozen)).replace(' class="llmnb-piece"', "") == markdown.render(text)


@pytest.mark.parametrize("name", ["bullets", "table"])
def test_an_open_list_stays_cheap(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A long list or table is not parsed from its start for every line."""
    parsed_chars = 0
    original = MarkdownIt.parse

    def counting(self: MarkdownIt, src: str, env: object = None) -> object:
        nonlocal parsed_chars
        parsed_chars += len(src)
        return original(self, src, env)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(MarkdownIt, "parse", counting)
    stream, lines = MarkdownStream(), (LISTS[name] * 10).splitlines(keepends=True)
    for line in lines:
        stream.append(line)
        stream.update()
    assert parsed_chars < 200 * open_blocks.LONG_CHARS


def test_a_half_written_line_freezes_nothing() -> None:
    """`#` on the last line may become `#tag`, which goes on the paragraph above."""
    stream = MarkdownStream()
    stream.append("paragraph\n#")
    assert stream.update().frozen == []
    stream.append("tag\n\nnext\n")
    assert stream.update().frozen == ["<p>paragraph\n#tag</p>\n"]


def test_a_definition_still_being_written_does_not_stay() -> None:
    """The tail is rendered with a copy of the link definitions: the first prefix of a URL must not win."""
    stream = MarkdownStream()
    for piece in ("[x]: https://a", ".example/long", "\n\n[x]\n\nend"):
        stream.append(piece)
        stream.update()
    assert "https://a.example/long" in "".join(stream.finish().frozen)


@pytest.mark.parametrize("piece", [7, 1000])
def test_open_code_is_coloured_and_its_fence_never_shows(piece: int) -> None:
    """A fenced block looks like code before its end has come, and the closing line on its way is not shown as code."""
    text = "```python\n" + "def f(x):\n    return x\n" * 40 + "```"
    stream = MarkdownStream()
    for start in range(0, len(text), piece):
        stream.append(text[start : start + piece])
        tail = stream.update().tail
        assert "llmnb-code" in tail or start == 0
        assert "```" not in tail or start == 0
    assert stream.update().tail.count('<span class="k">def</span>') == 40
    assert stream.finish().frozen == [markdown.render(text)]


def test_open_code_stays_cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long open code block is not coloured from its start for every frame."""
    coloured_chars = 0
    original = markdown.coloured

    def counting(code: str, language: str) -> str:
        nonlocal coloured_chars
        coloured_chars += len(code)
        return original(code, language)

    monkeypatch.setattr(markdown, "coloured", counting)
    stream = MarkdownStream()
    stream.append("```python\n")
    for number in range(600):
        stream.append(f"value_{number} = {number}  # comment\n")
        stream.update()
    assert coloured_chars < 20 * 600 * 28


ALIGNED = "The log likelihood is\n\n$$\n\\begin{aligned}\n%s\\end{aligned}\n$$\n\nwhere it is"


@pytest.mark.parametrize("piece", [1_000_000, 7])
def test_long_display_math_is_no_work(piece: int) -> None:
    """Lines of display math with a blank line after them cost what their characters cost, not two to their number."""
    lines = (r"\quad &= \sum_{i=1}^{n} y_i \log \sigma(\theta^\top x_i) \\" + "\n") * 12
    text = ALIGNED % lines
    assert streamed(text, list(range(piece, len(text), piece))) == markdown.render(text)


def test_open_code_is_whole_after_a_pause() -> None:
    """A frame without colours says that one more makes it better; then nothing is left to do."""
    stream = MarkdownStream()
    stream.append("```python\n")
    stream.update()
    rough: list[bool] = []
    for line in ("def f(x):", "\n    return x", "\n\ndef g():", "\n    pass  # why"):
        stream.append(line)
        stream.update()
        rough.append(stream.is_rough)
        if stream.is_rough:
            tail = stream.update().tail
            assert not stream.is_rough
            assert markdown.coloured(stream.tail_source.removeprefix("```python\n"), "python") in tail
            assert stream.update().tail == tail
    assert True in rough


def test_closed_code_is_not_drawn_again() -> None:
    """With its closing line a block has all its colours."""
    stream = MarkdownStream()
    for text in ("```python\nif", " x:\n", "    pass\n", "```\n"):
        stream.append(text)
        stream.update()
        before = stream.is_rough
    assert not before


CHARS = 20_000


@pytest.mark.parametrize(
    ("start", "sign"),
    [
        ("", "$$ a\n"),
        ("", "\\("),
        ("", "`"),
        ("", "~"),
        ("", "["),
        ("", "<"),
        ("", "|"),
        ("", "\n"),
        ("```python\n", "`"),
        ("```python\n", " \n"),
    ],
)
def test_one_sign_again_and_again_is_no_work(start: str, sign: str) -> None:
    """A model that is caught in a loop does not freeze the kernel.

    Twice the signs are about twice the work, and not four times: measured where it is long enough for that.
    """
    spent = [_spent_s(start + sign * (chars // len(sign)) + "x") for chars in (CHARS // 2, CHARS)]
    assert spent[1] < max(1.0, 3 * spent[0])


def _spent_s(text: str) -> float:
    begin = time.thread_time()
    stream = MarkdownStream()
    stream.append(text)
    stream.update()
    stream.finish()
    return time.thread_time() - begin
