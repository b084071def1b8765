"""A bound of a call that takes no counting: no token of a text is shorter than a byte.

To count the tokens of a prompt takes longer than to ask a budget. While a budget has room for several times what a call
can take, that need not be known any better.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from llmnb.budgeting.bound import INPUT_FEW, INPUT_MARGIN, Bound, rates_of
from llmnb.budgeting.past import Past
from llmnb.pricing.terms import Overrides
from llmnb.records import Usage

_UNDERSTOOD = frozenset(
    {"model", "max_tokens", "messages", "system", "metadata", "stop_sequences", "service_tier", "speed",
     "inference_geo", "stream"}
)  # fmt: skip
"""What adds no tokens of its own, or whose text is counted here."""
_AROUND = 64
"""Tokens of the frame around a message, a block or a system prompt; the API's is some ten."""
_STEP = 256
_MOST_KNOWN = 1_000

Key = tuple[int, int, int, str, "str | None", "str | None", int]


class QuickBounds:
    """Bounds of a client's calls, remembered by what they depend on."""

    def __init__(self, provider: str, prices: Overrides | None) -> None:
        self._provider, self._prices = provider, prices
        self._known: dict[Key, Bound] = {}

    def of(self, body: Mapping[str, Any], past: Past, project: str | None, ts: int) -> Bound | None:
        """The bound of a request with that body; None where it takes a closer look."""
        size, most = body_bytes(body), body.get("max_tokens")
        if size is None or type(most) is not int:
            return None
        model = str(body.get("model") or "")
        usual = past.of(model, project).output_tokens
        expected = most if usual is None else min(most, usual)
        tokens = -(-int(size * INPUT_MARGIN + INPUT_FEW) // _STEP) * _STEP
        key = (tokens, most, expected, model, body.get("speed"), body.get("inference_geo"), ts // 10**9)
        bound = self._known.get(key)
        if bound is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            self._known[key] = bound = self._made(body, tokens, expected, most, model, ts)
        return bound

    def _made(self, body: Mapping[str, Any], tokens: int, expected: int, most: int, model: str, ts: int) -> Bound:
        rates = rates_of(body, model, self._provider, ts, self._prices)
        usages = [Usage(tokens), Usage(cache_write_5m_tokens=tokens), Usage(cache_write_1h_tokens=tokens)]
        if rates is not None:
            usages.sort(key=lambda usage: rates.cost(usage).nanousd or 0)
        return Bound(usages[-1], expected, most, rates)


def body_bytes(body: Mapping[str, Any]) -> int | None:
    """How many bytes of text a request has, at most that many tokens with what is around it; None: not text alone."""
    if not body.keys() <= _UNDERSTOOD:
        return None
    size = text_bytes(body.get("system"))
    for message in cast("list[Any]", body.get("messages") or ()):
        text = text_bytes(cast("dict[str, Any]", message).get("content")) if isinstance(message, dict) else None
        if size is None or text is None:
            return None
        size += text
    return None if size is None else size + _AROUND


def text_bytes(content: Any) -> int | None:
    """UTF-8 bytes of a text, or of the blocks of one; None of what is more than text."""
    if content is None:
        return 0
    if isinstance(content, str):
        return _AROUND + (len(content) if content.isascii() else len(content.encode("utf-8", "surrogatepass")))
    if not isinstance(content, (list, tuple)):
        return None
    total = 0
    for block in cast("list[Any]", content):
        text = cast("dict[str, Any]", block).get("text") if isinstance(block, dict) else None
        if not isinstance(text, str) or cast("dict[str, Any]", block).get("type") != "text":
            return None
        total += _AROUND + len(text.encode("utf-8", "surrogatepass"))
    return total
