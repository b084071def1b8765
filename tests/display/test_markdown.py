"""Markdown to safe HTML, and to Markdown that may be kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from llmnb.display import markdown, tex
from llmnb.display.markdown_writer import escaped, rewrite


def test_a_price_is_no_math() -> None:
    """Dollar amounts stay text, and their signs stand apart so that no page-wide typesetter pairs them."""
    html = markdown.render("It costs $5 and not $10.")
    assert html == "<p>It costs <span>$</span>5 and not <span>$</span>10.</p>\n"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("$x^2$", '<span class="llmnb-math">\\(x^2\\)</span>'),
        ("\\(x < y\\)", '<span class="llmnb-math">\\(x &lt; y\\)</span>'),
        ("\\[a\\]", '<span class="llmnb-math llmnb-display">\\[a\\]</span>'),
        ("$$\na\n$$", '<span class="llmnb-math llmnb-display">\\[a\\]</span>'),
    ],
)
def test_math_in_all_delimiters(source: str, expected: str) -> None:
    """Each way models write math ends as one kind of element."""
    assert expected in markdown.render(source)


def test_math_at_the_start_of_a_text_that_ends_in_a_digit() -> None:
    """What stands at the end of a paragraph has no say in whether it starts with math."""
    assert markdown.render("$x$ is 5").startswith('<p><span class="llmnb-math">')


@pytest.mark.parametrize(
    "source", ["\\href{javascript:alert(1)}{x}", "\\def\\x{y}", "\\style{color:red}{x}", "\\) \\href"]
)
def test_tex_that_reaches_out_is_code(source: str) -> None:
    """TeX with links, styles, definitions or a delimiter of its own is not given to a typesetter."""
    assert tex.harmless(source) is None
    assert "llmnb-math" not in markdown.render(f"${source}$")


def test_row_spacing_is_no_delimiter() -> None:
    """`\\\\[2pt]` ends a row; it does not open display math."""
    assert tex.harmless("a \\\\[2pt] b") == "a \\\\[2pt] b"


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://a.example", True),
        ("mailto:a@b.example", True),
        ("#part", True),
        ("HTTP://a.example", True),
        ("javascript:alert(1)", False),
        ("data:text/html,x", False),
        ("file:///etc/passwd", False),
        ("x.html", False),
        ("//host/x", False),
        ("vbscript:x", False),
        ("blob:https://a", False),
        (" javascript:x", False),
    ],
)
def test_which_links_are_links(url: str, allowed: bool) -> None:
    """Only http, https, mailto and places on the page can be followed."""
    assert markdown.link_allowed(url) is allowed
    assert ("<a " in markdown.render(f"[text](<{url}>)")) is allowed


def test_an_image_is_a_link() -> None:
    """An image is never fetched; its description links to it."""
    html = markdown.render("![a plot](https://a.example/x.png)")
    assert "<img" not in html
    assert 'href="https://a.example/x.png"' in html
    assert ">a plot</a>" in html


def test_code_is_coloured_when_its_language_is_known() -> None:
    """Known languages get pygments' classes, unknown ones plain escaped text; both have a copy button."""
    assert '<span class="k">def</span>' in markdown.render("```python\ndef f(): ...\n```")
    unknown = markdown.render('```no"such<language\n<b>\n```')
    assert "&lt;b&gt;" in unknown
    assert markdown.COPY_BUTTON in unknown
    assert ">no</span>" in unknown


def test_packages_are_asked_once_and_late_for_languages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not for names that are still being written, and one time for all that are unknown."""
    asked: list[int] = []
    monkeypatch.setattr("pygments.plugin.find_plugin_lexers", lambda: asked.append(1) or iter(()))
    markdown._plugins.cache_clear()  # pyright: ignore[reportPrivateUsage]
    for end in range(3, 10):
        markdown.render("```python\n"[:end])
    assert not asked
    for name in ("nolang1", "nolang2"):
        assert "x &lt; y" in markdown.render(f"```{name}\nx < y\n```")
    assert asked == [1]
    markdown._plugins.cache_clear()  # pyright: ignore[reportPrivateUsage]


def test_very_long_code_has_no_colours() -> None:
    """Beyond a limit code is plain: thousands of elements would block the page."""
    assert '<span class="k">' not in markdown.render("```python\n" + "def f(): ...\n" * 5000 + "```")


KEPT = [
    ("# Head *it*", "# Head *it*"),
    ("- one\n- two\n  - three", "- one\n- two\n  - three"),
    ("3. c\n4. d", "3. c\n4. d"),
    ("- a\n\n  b\n\n- c", "- a\n\n  b\n\n- c"),
    ("> quote\n>\n> more", "> quote\n>\n> more"),
    ("`a < b` and **bold**", "`a < b` and **bold**"),
    ("```py\nx = `1`\n```", "```py\nx = `1`\n```"),
    ("````\n```\n````", "````\n```\n````"),
    ("| a | b |\n|--|:-:|\n| 1 | `x` |", "| a | b |\n| --- | :-: |\n| 1 | `x` |"),
    ("$x^2$ costs $5", "$x^2$ costs \\$5"),
    ("snake_case stays", "snake_case stays"),
    ("<b>bold</b> & co &lt;", "&lt;b>bold&lt;/b> & co &lt;"),
    ("![alt](https://a.example/i.png)", "[alt](https://a.example/i.png)"),
    ("[x](https://a.example/?a=1&b=(2))", "[x](https://a.example/?a=1&amp;b=%282%29)"),
    ("a\\\nb", "a\\\nb"),
    ("---", "* * *"),
    ("1\\. no list", "1\\. no list"),
]


@pytest.mark.parametrize(("source", "expected"), KEPT)
def test_kept_markdown(source: str, expected: str) -> None:
    """Markdown is written anew in one plain form, escaped where it must be and nowhere else."""
    assert rewrite(source) == expected


@pytest.mark.parametrize("source", [source for source, _ in KEPT])
def test_kept_markdown_means_the_same(source: str) -> None:
    """What is kept renders as the answer does, and keeping it twice changes nothing."""
    assert markdown.render(rewrite(source)).split() == markdown.render(source).split() or "(" in source
    assert rewrite(rewrite(source)) == rewrite(source)


@given(st.text(alphabet="ab 12<>&*_`~[]()!#-+=|$\\\n.:/", max_size=60))
def test_escaped_text_is_text(text: str) -> None:
    """Escaped text has no construct left: a CommonMark parser that lets HTML through gives the words back."""
    line = " ".join(text.split())
    html = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).render(escaped(line))
    assert html == (f"<p>{markdown.escape(line)}</p>\n" if line else "")
