"""Looks into the response cache, and clears it: what `llmnb cache` prints, for Python."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from llmnb.cache.responses import ResponseCache, request_name, responses
from llmnb.cache.stored import PEEK_BYTES, StoredAnswer, Unreadable
from llmnb.durations import Duration, seconds
from llmnb.errors import InvalidRequest

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Stats:
    """How much is kept and where. `bytes` is what the place takes; `limit_bytes` is None where a server decides."""

    where: str
    answers: int
    bytes: int
    limit_bytes: int | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One answer that is kept; `key` names its question. `created` is when it came, `expires` until when it is used."""

    key: str
    model: str
    created: datetime
    stop_reason: str
    output_tokens: int
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class Shown:
    """One answer with its question; `request` is None when that is not kept any more."""

    entry: Entry
    message: dict[str, Any]
    request: dict[str, Any] | None


def stats() -> Stats:
    """How much the response cache of the settings holds."""
    cache = _settled()
    size = cache.backend.size()
    answers = sum(1 for name in cache.backend.names() if "/" not in name)
    return Stats(cache.backend.where, answers, size.bytes, size.limit_bytes)


def entries(*, model: str | None = None, older: Duration | None = None) -> list[Entry]:
    """What is kept, newest first: of a model, or older than a duration such as "30d"."""
    return sorted(_matching(_settled(), model, older), key=lambda entry: entry.created, reverse=True)


def show(key: str) -> Shown:
    """One answer with its question, by its key or an unambiguous beginning of it.

    Raises:
        InvalidRequest: no key, or more than one, begins so.
    """
    cache = _settled()
    names = [name for name in cache.backend.names() if name.startswith(key) and "/" not in name]
    data = cache.backend.get(names[0]) if len(names) == 1 else None
    if data is None:
        raise InvalidRequest(f"{len(names) or 'no'} keys in the response cache begin with {key!r}: `llmnb cache list`")
    answer = StoredAnswer.decoded(data)
    request = answer.request or cache.backend.get(request_name(answer.key))
    return Shown(_entry(answer), answer.whole_message(), None if request is None else json.loads(request))


def clear(*, model: str | None = None, older: Duration | None = None) -> int:
    """Forgets all answers, or those of a model or older than a duration; how many there were."""
    cache = _settled()
    if model is None and older is None:
        names = list(cache.backend.names())
        cache.backend.delete(names)
        return sum("/" not in name for name in names)
    keys = [entry.key for entry in _matching(cache, model, older)]
    for first in range(0, len(keys), _PAGE):
        page = keys[first : first + _PAGE]
        cache.backend.delete([*page, *map(request_name, page)])
    return len(keys)


def _settled() -> ResponseCache:
    cache = responses()
    cache.settle()
    return cache


def _matching(cache: ResponseCache, model: str | None, older: Duration | None) -> Iterator[Entry]:
    before = None if older is None else datetime.now(timezone.utc).timestamp() - seconds(older, "older")  # noqa: UP017
    for answer in _answers(cache):
        entry = _entry(answer)
        if model in (None, entry.model, answer.model_requested) and (
            before is None or entry.created.timestamp() < before
        ):
            yield entry


def _answers(cache: ResponseCache) -> Iterator[StoredAnswer]:
    names = [name for name in cache.backend.names() if "/" not in name]
    for first in range(0, len(names), _PAGE):
        page = names[first : first + _PAGE]
        for name, data in zip(page, cache.backend.peek(page, PEEK_BYTES), strict=True):
            try:
                answer = StoredAnswer.peeked(data) if data is not None else None
                if answer is None and (whole := cache.backend.get(name)) is not None:
                    answer = StoredAnswer.decoded(whole)
            except (Unreadable, ValueError):  # found out, said and removed when it is asked for
                continue
            if answer is not None:
                yield answer


def _entry(answer: StoredAnswer) -> Entry:
    usage = answer.outcome().usage
    return Entry(
        key=answer.key,
        model=str(answer.message.get("model") or answer.model_requested),
        created=_time(answer.created_us),
        stop_reason=str(answer.message.get("stop_reason")),
        output_tokens=0 if usage is None else usage.output_tokens,
        expires=None if answer.expires_us is None else _time(answer.expires_us),
    )


def _time(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1e6, timezone.utc).astimezone()  # noqa: UP017
