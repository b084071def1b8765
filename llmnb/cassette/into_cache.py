"""The answers of a cassette in the response cache: the way back of `export`, and a way to pay a recording only once."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import parse_qsl, urlsplit

from llmnb import keys
from llmnb.cache.backends import Pickled
from llmnb.cache.browse import opened
from llmnb.cache.responses import Arrived, ResponseCache, items
from llmnb.cache.stored import StoredAnswer, Unreadable
from llmnb.cache.threads import Threads
from llmnb.cassette.interaction import Interaction, Request, Response
from llmnb.cassette.redaction import REDACTED
from llmnb.cassette.tape import read
from llmnb.errors import InvalidRequest

if TYPE_CHECKING:
    from llmnb.cache.backends import Item
    from llmnb.settings import Settings

_BATCH = 200
_KEY = re.compile(r"[0-9a-f]{40}")
_DIGEST = re.compile(r'"data":"sha256 [0-9a-f]{64}, \d+ characters"')

Fate = Literal["added", "replaced", "already_there", "kept"]


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of the answers of cassettes.

    Attributes:
        added: were put into the cache where there was none.
        replaced: took the place of another answer to the same question.
        already_there: were in the cache, the very same.
        kept: gave way to another answer that is in the cache: it is newer, or which is newer cannot be told.
        repeated: came before another answer to the same question in the cassettes, which was taken.
        refused: cannot be put into the cache, each by where it stands, with the reason.
        damaged: lines of the cassettes that cannot be read, likewise.
    """

    added: int = 0
    replaced: int = 0
    already_there: int = 0
    kept: int = 0
    repeated: int = 0
    refused: dict[str, str] = field(default_factory=dict[str, str])
    damaged: dict[str, str] = field(default_factory=dict[str, str])

    def __str__(self) -> str:
        counts = {name: getattr(self, name) for name in _WORDS} | {
            "refused": len(self.refused),
            "damaged": len(self.damaged),
        }
        told = [f"{count:,} {_WORDS.get(name, name)}" for name, count in counts.items() if count or name == "added"]
        return ", ".join(told)


_WORDS = {
    "added": "put into the response cache",
    "replaced": "put in place of another answer",
    "already_there": "there already",
    "kept": "left out for the answer that is there (--replace takes them)",
    "repeated": "asked again later in the cassettes",
}


class _Refused(Exception):  # noqa: N818 - it says what happened
    """An interaction that cannot be in the response cache."""


@dataclass(frozen=True, slots=True)
class _Found:
    """An answer for the cache; `is_dated` when the cassette says when it came."""

    arrived: Arrived
    answer: StoredAnswer
    is_dated: bool


def import_(
    *paths: str | os.PathLike[str], replace: bool = False, dry_run: bool = False, settings: Settings | None = None
) -> Imported:
    """Puts the answers of cassettes into the response cache: what was asked there costs nothing here.

    Taken are whole answers of models to requests of which the key is known: an export of the cache tells it, of a
    recording it is computed. An answer that is in the cache gives way to one that came later, but stays where the
    cassette does not say when its own came, as recordings do not. An answer that expires does so when it would have.

    Args:
        *paths: cassettes, written by `export` or `llmnb.record`.
        replace: take the cassette's answer wherever there are two.
        dry_run: only say what would be done.
        settings: settings to use instead of those in force here and now.

    Raises:
        InvalidRequest: no cassette was named.
        CassetteError: there is no such cassette, or it is none; nothing was imported.
        StoreError: the cache cannot be read or written.
    """
    if not paths:
        raise InvalidRequest("name at least one cassette to import, such as 'thesis.cassette.jsonl'")
    found: dict[str, _Found] = {}
    now_us = time.time_ns() // 1000
    refused: dict[str, str] = {}
    damaged: dict[str, str] = {}
    repeated = 0
    for path in map(Path, paths):
        tape = read(path)
        damaged |= {f"{path}, line {line}": why for line, why in tape.damaged.items()}
        dated_us, threads = _written_us(path), Threads(lambda name: None)
        for interaction in tape.interactions:
            try:
                one = _answer(interaction, dated_us, now_us, threads)
            except _Refused as why:
                refused[f"{path}, line {interaction.line}"] = str(why)
                continue
            known = found.get(one.arrived.key)
            repeated += known is not None
            found[one.arrived.key] = one if known is None else max(one, known, key=_created_us)
    with opened(settings) as cache:
        fates = _put(cache, list(found.values()), replace=replace, dry_run=dry_run)
    counts = {name: fates.count(name) for name in ("added", "replaced", "already_there", "kept")}
    return Imported(**counts, repeated=repeated, refused=refused, damaged=damaged)


def _created_us(found: _Found) -> int:
    """For the later of two; of equals `max` gives the first, which is the one that was recorded last."""
    return found.answer.created_us


def _written_us(path: Path) -> int:
    """When the cassette was last written: no answer in it is younger."""
    return int(path.stat().st_mtime * 1e6)


# One interaction ------------------------------------------------------------------------------------------------------


def _answer(interaction: Interaction, written_us: int, now_us: int, threads: Threads) -> _Found:
    """What the cache would keep of an interaction.

    Raises:
        _Refused: nothing.
    """
    request, response = interaction.request, interaction.outcome
    if request.method.upper() != "POST" or not request.path.rstrip("/").endswith("/v1/messages"):
        raise _Refused(f"it asks no model to write ({request.method} {request.path})")
    asked: Any = request.body
    if not isinstance(asked, dict):
        raise _Refused("its request is no JSON object")
    if not isinstance(response, Response) or response.cut is not None or response.status != 200:
        raise _Refused("it has no whole answer")
    content = response.content
    if REDACTED.encode() in content:
        raise _Refused("a part of its answer was redacted")
    body = {name: value for name, value in cast("dict[str, Any]", asked).items() if name != "stream"}
    if body.get("max_tokens") == 0:
        raise _Refused("it only filled the prompt cache (max_tokens=0)")
    turn = threads.turn(body) if "thread" in body else None
    created_us = _time_us(interaction.created)
    kept = _kept_request(request, body)
    arrived = Arrived(
        key=_key(interaction, body, turn),
        model_requested=str(body.get("model")),
        provider=request.provider,
        request=lambda: kept,
        body=lambda: content,
        created_us=written_us if created_us is None else created_us,
        headers=response.headers.items,
        turn=turn,
    )
    if (expires_us := _time_us(interaction.expires)) is not None:
        arrived.ttl_s = (expires_us - arrived.created_us) / 1e6
        if expires_us <= now_us:
            raise _Refused(f"it has expired ({interaction.expires})")
    if arrived.answer is None:
        raise _Refused("its answer is not whole, an error, or a refusal")
    if turn is not None:
        threads.answered(turn, arrived.answer)
    return _Found(arrived, arrived.answer, is_dated=created_us is not None)


def _key(interaction: Interaction, body: dict[str, Any], turn: keys.Turn | None) -> str:
    """The key of a question: that of the cache it was exported from, else made from what the cassette tells of it."""
    if interaction.key is not None:
        if _KEY.fullmatch(interaction.key) is None:
            raise _Refused(f"its key is none: {interaction.key!r}")
        return interaction.key
    request = interaction.request
    told = json.dumps([body, request.url, request.headers, request.base_url], separators=(",", ":"))
    if REDACTED in told:
        raise _Refused("a part of its question was redacted, so that its key cannot be known")
    if _DIGEST.search(told):
        raise _Refused("its images or documents are told by their digests only, so that its key cannot be known")
    if "thread" in body and turn is None:
        raise _Refused("it continues a thread that was begun elsewhere, so that its key cannot be known")
    return keys.key_of(_around(request), keys.canonical_body(body) if turn is None else turn.canonical)


def _around(request: Request) -> bytes:
    return keys.around(
        provider=request.provider,
        base_url=request.base_url,
        path=request.path,
        query=dict(parse_qsl(urlsplit(request.url).query, keep_blank_values=True)),
        headers=request.headers,
    )


def _kept_request(request: Request, body: dict[str, Any]) -> bytes:
    return b'{"around":' + _around(request) + b',"body":' + keys.canonical_body(body) + b"}"


def _time_us(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1e6)
    except ValueError:
        return None


# The cache ------------------------------------------------------------------------------------------------------------


def _put(cache: ResponseCache, found: Sequence[_Found], *, replace: bool, dry_run: bool) -> list[Fate]:
    fates: list[Fate] = []
    batch: list[Item] = []
    for one in found:
        fate = _fate(_there(cache, one.arrived.key), one, replace=replace)
        fates.append(fate)
        if fate in ("added", "replaced") and not dry_run:
            batch += [_from_now(item, one.arrived, cache.now_us()) for item in items(one.arrived)]
        if len(batch) >= _BATCH:
            cache.backend.put(batch)
            batch = []
    if batch:
        cache.backend.put(batch)
    return fates


def _from_now(item: Item, arrived: Arrived, now_us: int) -> Item:
    """The item, to be kept until the answer expires: it came some time ago."""
    if arrived.ttl_s is None:
        return item
    return dataclasses.replace(item, ttl_s=max(0.0, arrived.ttl_s - (now_us - arrived.created_us) / 1e6))


def _there(cache: ResponseCache, key: str) -> StoredAnswer | None:
    """The answer that is in the cache; a damaged one is none."""
    try:
        data = cache.backend.get(key)
        return None if data is None else StoredAnswer.decoded(data)
    except (Unreadable, Pickled):
        return None


def _fate(there: StoredAnswer | None, one: _Found, *, replace: bool) -> Fate:
    if there is None:
        return "added"
    if _is_same(there, one.answer):
        return "already_there"
    return "replaced" if replace or (one.is_dated and one.answer.created_us > there.created_us) else "kept"


def _is_same(one: StoredAnswer, other: StoredAnswer) -> bool:
    if one.form == other.form:
        return one.body == other.body
    return one.message.get("id") is not None and one.message.get("id") == other.message.get("id")
