"""Which calls are counted offline when they are sent, so that what is billed can be held against it later.

The first calls of a model in a process are, then few: counting takes about as long as sending a text's bytes to the
socket does, and a few hundred pairs are all that a calibration uses.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

from llmnb.tokens import vocabulary
from llmnb.tokens.blocks import Counter

FIRST = 24
THEN_ONE_OF = 64
MOST_CHARS = 200_000
"""A longer prompt is not counted: that would take milliseconds."""
MOST_FOR_VOCABULARY = 20_000
"""Up to this many characters tiktoken counts, where it is in memory already."""

_seen: dict[str, int] = {}


def is_sampled(model: str) -> bool:
    """Whether this call of the model is to be counted: to be asked once a call."""
    turn = _seen.get(model, 0) + 1
    _seen[model] = turn
    return turn <= FIRST or not turn % THEN_ONE_OF


def counted_offline(body: Mapping[str, Any], chars: int) -> tuple[int, str] | None:
    """The offline count of a request's input and the way it was counted, or None when it cannot be told.

    `chars` is about how much text the body holds.
    """
    if chars > MOST_CHARS or _holds_files(body):
        return None
    model = str(body.get("model") or "")
    words = vocabulary.loaded() if chars <= MOST_FOR_VOCABULARY else None
    counted = (Counter(model) if words is None else Counter(model, words)).request(body)
    if not counted.complete:
        return None
    return round(counted.tokens), CHARACTERS if words is None else vocabulary.CL100K_BASE.name


CHARACTERS = "characters"
"""The name of the way to count that needs no vocabulary."""


def start_over() -> None:
    """Forgets which calls were seen, as in a fresh process; for tests."""
    _seen.clear()


def _holds_files(body: Mapping[str, Any]) -> bool:
    """Whether there is a PDF in it, whose pages take long to count and whose text nobody knows."""
    messages = body.get("messages")
    for message in cast("Iterable[Any]", messages) if isinstance(messages, (list, tuple)) else ():
        content = cast("Mapping[str, Any]", message).get("content") if isinstance(message, Mapping) else None
        for block in cast("Iterable[Any]", content) if isinstance(content, (list, tuple)) else ():
            if isinstance(block, Mapping) and cast("Mapping[str, Any]", block).get("type") == "document":
                return True
    return False
