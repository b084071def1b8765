"""The tokeniser: deterministic, lossless, and in the range of real ones."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmnb.simulator import tokenizer

PROSE = """SQLite is a C-language library that implements a small, fast, self-contained, high-reliability database
engine. With write-ahead logging, readers do not block the writer and the writer does not block readers. """


@given(st.text())
def test_pieces_join_up_to_the_text(text: str) -> None:
    """No character is lost, whatever the text, and the count is the number of pieces."""
    assert "".join(tokenizer.pieces(text)) == text
    assert tokenizer.count_text(text) == len(tokenizer.pieces(text))


def test_english_takes_between_three_and_a_half_and_four_and_a_half_characters_a_token() -> None:
    """Prose costs about what it costs with a real tokeniser."""
    assert 3.5 < len(PROSE) / tokenizer.count_text(PROSE) < 4.5


def test_other_scripts_and_emoji_cost_more() -> None:
    """A character outside ASCII is a token of its own."""
    assert tokenizer.count_text("日本語のテキスト") == 8
    assert tokenizer.count_text("🎉🎉") == 2


def picture(size: tuple[int, int], kind: str) -> str:
    """A picture as base64."""
    image = pytest.importorskip("PIL.Image")
    buffer = io.BytesIO()
    image.new("RGB", size).save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
def test_images_cost_by_their_size(kind: str) -> None:
    """Width times height over 750, up to a limit; unknown sizes cost the limit."""
    block: dict[str, Any] = {"type": "image", "source": {"type": "base64", "data": picture((300, 250), kind)}}
    assert tokenizer.count_block(block) == 100
    block["source"]["data"] = picture((3000, 3000), kind)
    assert tokenizer.count_block(block) == tokenizer.MAX_IMAGE_TOKENS
    assert tokenizer.image_tokens({"type": "url", "url": "x"}) == tokenizer.MAX_IMAGE_TOKENS
    assert tokenizer.image_tokens({"type": "base64", "data": "!!!"}) == tokenizer.MAX_IMAGE_TOKENS


def test_pdfs_cost_by_their_pages() -> None:
    """Two pages cost twice one page."""
    data = b"%PDF-1.4 << /Type /Pages >> << /Type /Page >> << /Type/Page >>"
    source = {"type": "base64", "media_type": "application/pdf", "data": base64.b64encode(data).decode()}
    assert tokenizer.pdf_pages(data) == 2
    assert tokenizer.count_block({"type": "document", "source": source}) == 2 * tokenizer.PDF_PAGE_TOKENS


def test_every_kind_of_block_counts_for_something() -> None:
    """Tools, results, thinking, text documents and kinds not known yet."""
    blocks: list[dict[str, Any]] = [
        {"type": "tool_use", "id": "x", "name": "look", "input": {"a": 1}},
        {"type": "tool_result", "tool_use_id": "x", "content": [{"type": "text", "text": "seen"}]},
        {"type": "thinking", "thinking": "hm", "signature": "s"},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "document", "source": {"type": "text", "data": "words"}},
        {"type": "document", "source": {"type": "content", "content": "words"}},
        {"type": "document", "source": {"type": "url", "url": "x"}},
        {"type": "future", "payload": "words"},
    ]
    assert all(tokenizer.count_block(block) > 0 for block in blocks)
    marked = blocks[-1] | {"cache_control": {"type": "ephemeral"}}
    assert tokenizer.count_block(marked) == tokenizer.count_block(blocks[-1])
