"""Which recorded request is most like one that is not there, and how the two differ, field by field."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, cast

from llmnb.cassette.interaction import Interaction, Request

_AROUND = 24
"""Characters shown on each side of the place where two texts part."""
_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that differs: its place, such as `messages[0].content`, and what was recorded and asked there.

    `only` is "recorded" or "asked" when the other side has no such field.
    """

    field: str
    recorded: Any = None
    asked: Any = None
    only: str | None = None

    def __str__(self) -> str:
        if self.only is not None:
            return f"{self.field}: only {self.only}, {_short(self.recorded if self.only == 'recorded' else self.asked)}"
        if isinstance(self.recorded, str) and isinstance(self.asked, str):
            return f"{self.field}: {_text_difference(self.recorded, self.asked)}"
        return f"{self.field}: recorded {_short(self.recorded)}, asked {_short(self.asked)}"

    @property
    def weight(self) -> float:
        """How much of the field differs, from nearly 0 to 1 for a field and more for a part with many."""
        if self.only is not None:
            return _size(self.recorded if self.only == "recorded" else self.asked)
        if isinstance(self.recorded, str) and isinstance(self.asked, str):
            before, after = _in_common(self.recorded, self.asked)
            return 0.1 + 0.9 * (1 - (before + after) / max(len(self.recorded), len(self.asked), 1))
        return 1.0


def nearest_to(asked: Request, recorded: Iterable[Interaction]) -> tuple[Interaction, tuple[Difference, ...]] | None:
    """The recorded interaction whose request is most like `asked`, and the differences; None when nothing is."""
    all_of_it = list(recorded)
    same_kind = [one for one in all_of_it if (one.request.method, one.request.path) == (asked.method, asked.path)]
    best: tuple[float, Interaction, tuple[Difference, ...]] | None = None
    for one in same_kind or all_of_it:
        found = tuple(differences(one.request, asked))
        distance = sum(difference.weight for difference in found)
        if best is None or distance < best[0]:
            best = distance, one, found
    return None if best is None else best[1:]


def differences(recorded: Request, asked: Request) -> Iterator[Difference]:
    """Where two requests differ, as far as it matters for finding a recorded one."""
    if recorded.method != asked.method:
        yield Difference("method", recorded.method, asked.method)
    if recorded.url != asked.url:
        yield Difference("url", recorded.url, asked.url)
    yield from _compared("headers", recorded.headers, asked.headers)
    yield from _compared("", recorded.telling_body(), asked.telling_body())


def _compared(place: str, recorded: Any, asked: Any) -> Iterator[Difference]:
    if recorded == asked:
        return
    if isinstance(recorded, dict) and isinstance(asked, dict):
        yield from _compared_fields(place, cast("dict[str, Any]", recorded), cast("dict[str, Any]", asked))
    elif isinstance(recorded, list) and isinstance(asked, list):
        yield from _compared_items(place, cast("list[Any]", recorded), cast("list[Any]", asked))
    else:
        yield Difference(place or "body", recorded, asked)


def _compared_fields(place: str, recorded: dict[str, Any], asked: dict[str, Any]) -> Iterator[Difference]:
    for name in sorted({*recorded, *asked}):
        inner = f"{place}.{name}" if place else name
        if name not in asked:
            yield Difference(inner, recorded=recorded[name], only="recorded")
        elif name not in recorded:
            yield Difference(inner, asked=asked[name], only="asked")
        else:
            yield from _compared(inner, recorded[name], asked[name])


def _compared_items(place: str, recorded: list[Any], asked: list[Any]) -> Iterator[Difference]:
    """Items are paired so that one that was put in or left out does not make all after it differ."""
    names = [[json.dumps(item, sort_keys=True, default=repr) for item in side] for side in (recorded, asked)]
    for kind, first, last, start, end in SequenceMatcher(None, *names, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        pairs = min(last - first, end - start)
        for step in range(pairs):
            yield from _compared(f"{place}[{start + step}]", recorded[first + step], asked[start + step])
        for index in range(first + pairs, last):
            yield Difference(f"{place}[{index}]", recorded=recorded[index], only="recorded")
        for index in range(start + pairs, end):
            yield Difference(f"{place}[{index}]", asked=asked[index], only="asked")


def _text_difference(recorded: str, asked: str) -> str:
    if max(len(recorded), len(asked)) <= _SHOWN_CHARS:
        return f"recorded {recorded!r}, asked {asked!r}"
    before, after = _in_common(recorded, asked)
    told = f"recorded {_excerpt(recorded, before, after)}, asked {_excerpt(asked, before, after)}"
    return f"from character {before + 1} on, {told}"


def _excerpt(text: str, before: int, after: int) -> str:
    start, end = max(before - _AROUND, 0), min(len(text) - after + _AROUND, len(text))
    end = min(end, start + 4 * _AROUND)
    return f"{'…' if start else ''}{text[start:end]!r}{'…' if end < len(text) else ''}"


def _in_common(one: str, other: str) -> tuple[int, int]:
    """How many characters two texts share at the beginning, and of the rest at the end."""
    shorter = min(len(one), len(other))
    before = next((index for index in range(shorter) if one[index] != other[index]), shorter)
    rest = shorter - before
    after = next((index for index in range(rest) if one[-1 - index] != other[-1 - index]), rest)
    return before, after


def _size(value: Any) -> float:
    """How many fields a part has, at least one."""
    if isinstance(value, dict):
        return max(1.0, sum(map(_size, cast("dict[str, Any]", value).values())))
    if isinstance(value, list):
        return max(1.0, sum(map(_size, cast("Sequence[Any]", value))))
    return 1.0


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…"
