"""Finds the recorded answer to a request: equal requests are answered in the order in which they were recorded."""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from llmnb.cassette.interaction import Interaction, Request
from llmnb.cassette.redaction import REDACTED


@dataclass(frozen=True, slots=True)
class Place:
    """The notebook cell that asks, by its id, and its execution count; both None elsewhere."""

    cell: str | None = None
    run: int | None = None


NOWHERE = Place()


class Library:
    """All interactions of a cassette, by what was asked.

    Of several answers to equal requests the next one is given; after the last, with `repeat`, the last again. Some come
    before others: those of the same provider and address before those of others; those that were not replaced before
    those that were, by a later run of the same notebook cell or because they had failed; and where the cell that asks
    is known, those it was given when the cassette was recorded, from the first one on at each run of the cell. With
    `only_whole`, answers that failed or were cut off are not given at all.
    """

    def __init__(self, interactions: Iterable[Interaction], *, repeat: bool = True, only_whole: bool = False) -> None:
        self.interactions = tuple(sorted(interactions, key=lambda one: one.number))
        self._repeat = repeat
        self._only_whole = only_whole
        self._lock = threading.RLock()
        self._by_name: dict[bytes, list[Interaction]] = defaultdict(list)
        self._next: dict[tuple[object, ...], int] = {}
        self._given: set[int] = set()
        for interaction in self.interactions:
            self._by_name[interaction.request.name()].append(interaction)
        self._replaced = frozenset(_replaced(self.interactions, self._by_name.values()))
        self._redacted = [
            (name, alike[0].request) for name, alike in self._by_name.items() if REDACTED in repr(alike[0].request.body)
        ]

    def find(self, request: Request, place: Place = NOWHERE) -> Interaction | None:
        """The next interaction for this request, or None."""
        with self._lock:
            name = self._named_like(request)
            if name is None:
                return None
            candidates, way = self._candidates(name, request, place)
            if not candidates:
                return None
            index = self._next.get(way, 0)
            if index >= len(candidates):
                if not self._repeat:
                    return None
                index = len(candidates) - 1
            self._next[way] = index + 1
            found = candidates[index]
            self._given.add(id(found))
            return found

    def times(self, request: Request) -> int:
        """How many answers to this request were recorded."""
        name = self._named_like(request)
        return 0 if name is None else len(self._by_name[name])

    @property
    def unused(self) -> tuple[Interaction, ...]:
        """What was recorded and not given so far, without what was replaced."""
        return tuple(
            one for one in self.interactions if id(one) not in self._given and id(one) not in self._replaced
        )  # fmt: skip

    def _named_like(self, request: Request) -> bytes | None:
        name = request.name()
        if name in self._by_name:
            return name
        # the secret that was replaced in the recorded one may not be known here, where there is no key
        return next((other for other, recorded in self._redacted if _alike(recorded, request)), None)

    def _candidates(
        self, name: bytes, request: Request, place: Place
    ) -> tuple[Sequence[Interaction], tuple[object, ...]]:
        candidates = [one for one in self._by_name[name] if one.outcome.is_whole or not self._only_whole]
        address = (request.provider, request.base_url)
        candidates = [
            one for one in candidates if (one.request.provider, one.request.base_url) == address
        ] or candidates
        candidates = [one for one in candidates if id(one) not in self._replaced] or candidates
        here = [one for one in candidates if place.cell is not None and one.cell == place.cell]
        return (here, (name, address, place.cell, place.run)) if here else (candidates, (name, address))


def _replaced(interactions: Sequence[Interaction], alike: Iterable[list[Interaction]]) -> set[int]:
    """The ids of those that something recorded later stands for."""
    gone: set[int] = set()
    latest = {one.cell: one.run for one in interactions if one.cell is not None and one.run is not None}
    gone.update(id(one) for one in interactions if one.cell in latest and one.run != latest[one.cell])
    for same in alike:
        last = max((index for index, one in enumerate(same) if one.instead), default=0)
        gone.update(id(one) for one in same[:last])
    return gone


def _alike(recorded: Request, asked: Request) -> bool:
    """Whether a request could be the recorded one, with anything where that was redacted."""
    if (recorded.method, recorded.url, recorded.headers) != (asked.method, asked.url, asked.headers):
        return False
    return _fits(recorded.telling_body(), asked.telling_body())


def _fits(recorded: Any, asked: Any) -> bool:
    if isinstance(recorded, str) and REDACTED in recorded:
        pattern = ".*".join(map(re.escape, recorded.split(REDACTED)))
        return recorded == REDACTED or (isinstance(asked, str) and re.fullmatch(pattern, asked, re.DOTALL) is not None)
    if isinstance(recorded, dict) and isinstance(asked, dict):
        mine, other = cast("dict[str, Any]", recorded), cast("dict[str, Any]", asked)
        return mine.keys() == other.keys() and all(_fits(value, other[name]) for name, value in mine.items())
    if isinstance(recorded, list) and isinstance(asked, list):
        pairs = cast("list[Any]", recorded), cast("list[Any]", asked)
        return len(pairs[0]) == len(pairs[1]) and all(map(_fits, *pairs))
    return bool(recorded == asked)
