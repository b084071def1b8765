"""The offline estimate of a text's tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmnb.tokens import count_text
from llmnb.tokens.text import heuristic_tokens

# texts and what cl100k_base makes of them, counted with the vocabulary itself
COUNTED = [
    ("The quick brown fox jumps over the lazy dog, and nobody minds it at all.", 17),
    ("def total(rows):\n    return sum(row.price * row.count for row in rows if row.price is not None)\n", 23),
    ('{"name": "Ann", "age": 30, "tags": ["reader", "writer"], "address": {"city": "Oslo", "zip": "0150"}}', 38),
    ("0.1234,88213,alpha,0.9971,4412,North\n0.5512,102,beta,0.0001,77,North\n", 37),
    ("Der schnelle braune Fuchs springt über den faulen Hund, und niemanden stört es.", 23),
    (
        "昨日の会議で決まった内容を、来週の月曜日までに全員へメールで共有してください。詳しい資料は添付のファイルを見てください。",
        61,
    ),
]


@pytest.mark.parametrize(("text", "tokens"), COUNTED)
def test_is_near_what_a_vocabulary_counts(text: str, tokens: int) -> None:
    """Within a quarter of the true count, in prose, code, JSON, numbers and other scripts."""
    assert heuristic_tokens(text) == pytest.approx(tokens, rel=0.25)


def test_newer_models_cut_text_finer() -> None:
    """From 4.7 on the same text is about 30 % more tokens; a name without a version counts as a new model."""
    text = "Explain write-ahead logging in SQLite. " * 50
    old, new = count_text(text, "claude-sonnet-4-6"), count_text(text, "claude-sonnet-5-5")
    assert new == pytest.approx(1.3 * old, rel=0.01)
    assert count_text(text, "somebody-elses-model") == new


def test_nothing_is_no_token() -> None:
    """An empty text counts nothing."""
    assert count_text("", "claude-sonnet-5-5") == 0


@given(st.text())
def test_any_text_has_a_count(text: str) -> None:
    """Every text, also with lone surrogates, has a count from 0 up to a few tokens a character."""
    assert 0 <= heuristic_tokens(text) <= 1 + 6 * len(text)


@given(st.text(min_size=1), st.integers(2, 50))
def test_more_text_is_more_tokens(text: str, times: int) -> None:
    """A text that is repeated is never fewer tokens."""
    assert heuristic_tokens(text * times) >= heuristic_tokens(text)
