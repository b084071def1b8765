"""Looks into the response cache, and clears it: what `llmnb cache` prints, for Python.

Unlike a call, which goes on without a cache that is broken, what is asked for here fails when it cannot be had.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any, cast

from llmnb.cache.responses import ResponseCache, request_name, responses
from llmnb.cache.stored import PEEK_BYTES, StoredAnswer, Unreadable
from llmnb.cache.threads import thread_name
from llmnb.durations import Duration, seconds
from llmnb.errors import InvalidRequest, LlmnbError, StoreError
from llmnb.settings import Settings

_PAGE = 500
_QUESTION_CHARS = 80
ADVICE = "`llmnb doctor` checks it."
"""How the message of a cache that cannot be used ends."""


@dataclass(frozen=True, slots=True)
class Stats:
    """How much is kept and where. `bytes` is what the place takes; `limit_bytes` is None where a server decides."""

    where: str
    answers: int
    bytes: int
    limit_bytes: int | None


@dataclass(frozen=True, slots=True)
class Entry:
    """One answer that is kept; `key` names its question. `created` is when it came, `expires` until when it is used.

    Tokens are those it was billed for when it came; `input_tokens` are all that the model read. `question` is the
    beginning of the last text that was asked, on one line, and `sample` its number, see `LLM`.
    """

    key: str
    model: str
    created: datetime
    stop_reason: str
    input_tokens: int
    output_tokens: int
    streamed: bool
    expires: datetime | None = None
    message_id: str = ""
    question: str = ""
    sample: int = 0


@dataclass(frozen=True, slots=True)
class Shown:
    """One answer with its question; `request` is None when that is not kept any more."""

    entry: Entry
    message: dict[str, Any]
    request: dict[str, Any] | None


def stats(*, settings: Settings | None = None) -> Stats:
    """How much the response cache of the settings holds.

    Raises:
        StoreError: the cache cannot be read.
    """
    with opened(settings) as cache:
        size = cache.backend.size()
        answers = sum(1 for name in cache.backend.names() if "/" not in name)
        return Stats(cache.backend.where, answers, size.bytes, size.limit_bytes)


def entries(
    *, model: str | None = None, older: Duration | None = None, settings: Settings | None = None
) -> list[Entry]:
    """What is kept, newest first: of a model, or older than a duration such as "30d".

    Raises:
        StoreError: the cache cannot be read.
    """
    with opened(settings) as cache:
        found = sorted(_matching(cache, model, older), key=lambda entry: entry.created, reverse=True)
        return [_with_question(entry, _request_of(cache, entry.key)) for entry in found]


def show(key: str, *, settings: Settings | None = None) -> Shown:
    """One answer with its question, by its key or an unambiguous beginning of it.

    Raises:
        InvalidRequest: no key, or more than one, begins so.
        StoreError: the cache cannot be read.
    """
    with opened(settings) as cache:
        name = _named(cache, key)
        data = cache.backend.get(name)
        if data is None:
            raise InvalidRequest(f"the answer {key!r} has expired")
        answer = StoredAnswer.decoded(data)
        request = _request(cache, answer)
        return Shown(_with_question(_entry(answer), request), answer.whole_message(), request)


def clear(
    key: str | None = None,
    *,
    model: str | None = None,
    older: Duration | None = None,
    settings: Settings | None = None,
) -> int:
    """Forgets answers: all, the one of a key (or an unambiguous beginning of it), those of a model or age.

    Args:
        key: the key of one answer.
        model: only answers of this model.
        older: only answers older than that: seconds, or "30d", "12h".
        settings: settings to use instead of those in force here and now.

    Returns:
        How many were forgotten.

    Raises:
        InvalidRequest: no key, or more than one, begins so.
        StoreError: the cache cannot be written.
    """
    with opened(settings) as cache:
        if key is not None:
            only = _named(cache, key)
            found = [entry for entry in _matching(cache, model, older) if entry.key == only]
        elif model is None and older is None:
            names = list(cache.backend.names())
            cache.backend.delete(names)
            return sum("/" not in name for name in names)
        else:
            found = list(_matching(cache, model, older))
        for first in range(0, len(found), _PAGE):
            page = found[first : first + _PAGE]
            cache.backend.delete(name for entry in page for name in _names_of(entry))
        return len(found)


@contextmanager
def opened(settings: Settings | None = None) -> Generator[ResponseCache]:
    """The response cache with everything written that waited; what its place raises becomes a `StoreError`."""
    cache = responses(settings)
    cache.settle()
    try:
        yield cache
    except (LlmnbError, ValueError, TypeError):
        raise
    except Exception as error:  # of SQLite, of the Redis client, of the file system
        raise StoreError(
            f"the response cache {cache.place} cannot be used: {str(error).rstrip('.')}. {ADVICE}"
        ) from error


def _named(cache: ResponseCache, key: str) -> str:
    names = [name for name in cache.backend.names() if name.startswith(key) and "/" not in name]
    if len(names) != 1:
        raise InvalidRequest(f"{len(names) or 'no'} keys in the response cache begin with {key!r}: `llmnb cache list`")
    return names[0]


def _names_of(entry: Entry) -> list[str]:
    """All names under which something of an answer is kept."""
    return [entry.key, request_name(entry.key), thread_name(entry.message_id)]


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
        input_tokens=0 if usage is None else usage.total_input_tokens,
        output_tokens=0 if usage is None else usage.output_tokens,
        streamed=answer.form == "sse",
        expires=None if answer.expires_us is None else _time(answer.expires_us),
        message_id=str(answer.message.get("id")),
    )


def _request_of(cache: ResponseCache, key: str) -> dict[str, Any] | None:
    try:
        data = cache.backend.get(key)
        return None if data is None else _request(cache, StoredAnswer.decoded(data))
    except (Unreadable, ValueError):  # see `_answers`
        return None


def _request(cache: ResponseCache, answer: StoredAnswer) -> dict[str, Any] | None:
    request = answer.request or cache.backend.get(request_name(answer.key))
    return None if request is None else json.loads(request)


def _with_question(entry: Entry, request: dict[str, Any] | None) -> Entry:
    if request is None:
        return entry
    asked = [message for message in request["body"].get("messages") or () if message.get("role") == "user"]
    texts = (text for message in reversed(asked) for text in reversed(_texts(message.get("content"))))
    return replace(entry, question=_one_line(next(texts, "")), sample=request["around"]["sample"])


def _texts(content: Any) -> list[str]:
    if isinstance(content, str):
        return [content]
    blocks = cast("list[dict[str, Any]]", content or [])
    return [str(block["text"]) for block in blocks if block.get("text")]


def _one_line(text: str) -> str:
    line = " ".join(text[: _QUESTION_CHARS * 4].split())
    return line if len(line) <= _QUESTION_CHARS else f"{line[: _QUESTION_CHARS - 1]}…"


def _time(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1e6, timezone.utc).astimezone()  # noqa: UP017
