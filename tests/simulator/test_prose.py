"""The default answers: labelled, about the question, and Markdown that renders."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from llmnb.simulator.prose import LABEL, SHORT_LABEL, Question, write_answer
from llmnb.simulator.topics import TOPICS

RENDER = MarkdownIt("commonmark").enable("table")


def answer(prompt: str, **more: object) -> str:
    """An answer with a fixed seed."""
    return write_answer(Question(prompt, **more), "seed")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("topic", TOPICS, ids=[topic.title for topic in TOPICS])
def test_known_topics_render_with_code_table_and_math(topic) -> None:
    """Each topic gives a heading, a list, a table of even rows, code and a formula."""
    text = answer(f"Please explain to me in some detail {max(topic.words, key=len)}, and why it matters")
    html = RENDER.render(text)
    assert f"<h2>{topic.title.replace(chr(39), chr(39))}</h2>" in html.replace("&#39;", "'")
    assert all(tag in html for tag in ("<ul>", "<table>", '<code class="language-python">'))
    assert text.count("$$") == 2
    assert len({len(row) for row in topic.table}) == 1


@pytest.mark.parametrize("topic", TOPICS, ids=[topic.title for topic in TOPICS])
def test_the_code_of_topics_is_valid_python(topic) -> None:
    """What is shown as code compiles."""
    compile(topic.code, topic.title, "exec")


@pytest.mark.parametrize("asked", ["code and math", "a formula", "a function"])
def test_code_and_math_come_when_they_are_asked_for(asked: str) -> None:
    """Also on a topic the simulator knows nothing of."""
    text = answer(f"Explain gardens with {asked}")
    assert '<code class="language-python">' in RENDER.render(text)
    assert text.count("$$") == 2


def test_unknown_topics_are_taken_by_their_words() -> None:
    """The question's own words head and fill the answer; longer questions get longer answers."""
    short = answer("Plan a garden")
    long = answer("Plan a garden with tomatoes, basil and a fence that keeps deer out, in SQL and with a budget")
    assert "## Plan garden" in short
    assert "tomatoes" in long
    assert "```sql" in long
    assert len(long) > len(short)


def test_the_follow_up_names_what_came_before() -> None:
    """A conversation is acknowledged, and so is a name that was never told."""
    assert "Earlier you asked about *Explain WAL*" in answer(
        "And how does gradient descent go", earlier=("Explain WAL",)
    )
    assert "have not told me your name" in answer("What is my name?")


@given(st.text(max_size=400), st.text(max_size=60))
def test_any_question_is_answered_and_labelled(prompt: str, system: str) -> None:
    """Whatever is asked, there is an answer, it is labelled, and it is the same the next time."""
    text = answer(prompt, system=system)
    assert LABEL in text or SHORT_LABEL in text
    assert text == answer(prompt, system=system)


def test_what_is_said_about_one_word_is_about_one() -> None:
    """Under any seed, and a question that ended in a full stop is quoted without it."""
    for seed in "abcdef":
        text = write_answer(Question("Please explain plinths", earlier=("Name a hash function.",)), seed)
        assert "1 terms" not in text
        assert "**plinths** and **plinths**" not in text
        assert "*Name a hash function*; this goes on" in text
