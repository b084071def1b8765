"""The requests of one batch: what is sent for each row, and what has to be known of the row when its answer comes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmnb import keys
from llmnb.asking.kept import around
from llmnb.cache.world import depends_on_the_world
from llmnb.jobs.asking import Row
from llmnb.records import Caching

if TYPE_CHECKING:
    from llmnb.asking.question import Question

_NOT_IN_BODY = ("extra_body", "extra_headers", "extra_query", "timeout", "user_profile_id", "workspace_id")
_HEADERS = {"user_profile_id": "anthropic-user-profile-id", "workspace_id": "anthropic-workspace-id"}


def body_of(question: Question) -> dict[str, Any]:
    """What asking would send."""
    arguments = question.plan.arguments
    more: dict[str, Any] = arguments.get("extra_body") or {}
    said = {**arguments, **more, "messages": list(question.messages)}
    return {name: value for name, value in said.items() if name not in _NOT_IN_BODY}


def headers_of(question: Question) -> dict[str, Any]:
    """The headers that asking would send besides the client's own."""
    arguments = question.plan.arguments
    named = {header: arguments[name] for name, header in _HEADERS.items() if arguments.get(name) is not None}
    return {**named, **(arguments.get("extra_headers") or {})}


@dataclass(frozen=True, slots=True)
class Entry:
    """One request: what is known of its row, and the question as the response cache keeps it, where there is one."""

    key: bytes
    number: int
    beginning: str
    cache_key: str | None = None
    asked: str = ""

    @classmethod
    def of(cls, row: Row, question: Question, body: dict[str, Any], *, cached: bool) -> Entry:
        """The entry of a row that asks this question; `cached` is whether the response cache is used."""
        caching: Caching = question.plan.ledger["caching"]
        if not cached or (caching.use != "all" and depends_on_the_world(body)):
            return cls(row.key, row.number, row.beginning)
        what, canonical = around(question, caching, headers_of(question)), keys.canonical_body(body)
        asked = b'{"around":' + what + b',"body":' + canonical + b"}"  # as the cache part writes it
        return cls(row.key, row.number, row.beginning, keys.key_of(what, canonical), asked.decode())

    def line(self) -> bytes:
        """As a line of the manifest."""
        facts = [self.key.hex(), self.number, self.beginning, self.cache_key, self.asked]
        return json.dumps(facts, separators=(",", ":")).encode() + b"\n"


class Manifest:
    """The requests of a batch on disk, found by their keys: in memory is where each stands."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at: dict[bytes, int] = {}
        offset = 0
        with path.open("rb") as file:
            for line in file:
                self._at[bytes.fromhex(line[2:34].decode())] = offset
                offset += len(line)
        self._file = path.open("rb")

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._at)

    def __len__(self) -> int:
        return len(self._at)

    def __contains__(self, key: object) -> bool:
        return key in self._at

    def entry(self, key: bytes) -> Entry:
        """The request with that key."""
        self._file.seek(self._at[key])
        told: list[Any] = json.loads(self._file.readline())
        return Entry(key, *told[1:])

    def close(self) -> None:
        """No more is read."""
        self._file.close()
