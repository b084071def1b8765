"""Reads the Messages wire: what a response body says about tokens, model and how it ended.

Works on bytes and plain dicts, knows nothing of the SDK, and never raises on what a server may send.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import jiter  # the SDK's own parser; a quarter of what the json module takes, for every answer

from llmnb.records import Usage, made

_CHUNKS_OF_AN_END = 8

BYTES_PER_TOKEN = 3.9
"""UTF-8 bytes of answer text per output token, used only where the API reported nothing: 4,477 bytes over 1,151 tokens
in the ten recorded text answers of more than ten tokens that the tests are held against."""

_BYTES_PER_TEN_TOKENS = round(BYTES_PER_TOKEN * 10)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Iteration:
    """Tokens that one API call billed on their own, beside the answer's: a compaction, an advisor, a declined model."""

    kind: str
    model: str
    usage: Usage


@dataclass(slots=True)
class Outcome:
    """What a response body says.

    `complete` is True when the message came to its end (`message_stop`, or a whole JSON message). `usage` is None when
    the body says nothing about tokens; `prompts` are its parts where the answer took several prompts, each of which has
    a price tier of its own. `started` is True once `message_start` was seen, `declined` for a refusal before anything
    was written.
    """

    complete: bool = False
    started: bool = False
    message_id: str | None = None
    model: str | None = None
    stop_reason: str | None = None
    usage: Usage | None = None
    prompts: tuple[Usage, ...] = ()
    iterations: tuple[Iteration, ...] = ()
    error_type: str | None = None
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None
    cache_miss_reason: str | None = None
    declined: bool = False


NOTHING = Outcome()
"""Shared: an outcome is made anew, never changed."""


def estimated_tokens(byte_count: int) -> int:
    """Tokens in that many bytes of UTF-8 text, estimated and rounded up; 0 for 0."""
    return -(-10 * byte_count // _BYTES_PER_TEN_TOKENS)


# Whole messages -------------------------------------------------------------------------------------------------------


def read_json(body: bytes, model_requested: str) -> Outcome:
    """The outcome of a response that is one JSON document: a message or an error envelope."""
    return read_document(parsed(body), model_requested)


def read_document(document: object, model_requested: str) -> Outcome:
    """The same of a document that was parsed already."""
    data = _dict(document)
    if data.get("type") == "error":
        return Outcome(error_type=error_type(data))
    if "usage" not in data:
        return NOTHING
    return _message(data, model_requested)


def read_message(message: Json, model_requested: str) -> Outcome:
    """The outcome of a whole message, with its content or without."""
    return _message(message, model_requested)


def without_content(body: bytes) -> bytes | None:
    """A whole message as the API writes one, without what the model wrote; None when it is written in another way.

    Nothing is parsed. Before the content no other object or list may begin, between the two fields after it none may
    end, so that what is left is JSON only if the content was cut out, and the rest are the message's own fields.
    """
    # searched for, and not matched: this is done while somebody waits for the answer, by code that is warm already
    begin = body.find(b'"content":')
    after = body.rfind(b'"stop_reason":', begin)
    usage = body.find(b'"usage":', after)
    if begin < 0 or after < 0 or usage < 0 or body.find(b'"content":', usage) >= 0:
        return None
    head, between = body[:begin], body[after:usage]
    if b'"model":' not in head or b'"stop_sequence":null,' not in between or b'"refusal"' in between:
        return None  # of a refusal it counts whether anything was written
    around, told = head + between, head + body[after:]
    if head[0] != _BRACE or len(around.translate(None, b"{}[]")) != len(around) - 1 or b"\n" in told:
        return None
    return told


_BRACE = ord("{")


def error_type(envelope: Json) -> str | None:
    """The API's name of the error in an error envelope, such as `overloaded_error`."""
    name = _dict(envelope.get("error")).get("type")
    return name if isinstance(name, str) else None


def error_of(envelope: object) -> str | None:
    """The same of an envelope that may be none."""
    return error_type(_dict(envelope))


def _message(data: Json, model_requested: str, *, complete: bool = True) -> Outcome:
    usage = _dict(data.get("usage"))
    model = _text(data.get("model"))
    top, prompts, beside = read_usage(usage), (), ()
    if "iterations" in usage:
        own, beside = _split_iterations(usage, model or model_requested, model_requested)
        prompts = _with_rest(own, top)
    return Outcome(
        complete=complete,
        started=True,
        message_id=_text(data.get("id")),
        model=model,
        stop_reason=(stop_reason := _text(data.get("stop_reason"))),
        declined=stop_reason == "refusal" and data.get("content") == [],
        usage=sum(prompts[1:], prompts[0]) if prompts else top,
        prompts=prompts if len(prompts) > 1 else (),
        iterations=beside,
        service_tier=_text(usage.get("service_tier")),
        speed=_text(usage.get("speed")),
        inference_geo=_text(usage.get("inference_geo")),
        cache_miss_reason=_miss_reason(data) if "diagnostics" in data else None,
    )


def _with_rest(own: list[Usage], top: Usage) -> tuple[Usage, ...]:
    """The prompts with what iterations do not carry: server tools and the share of thinking."""
    if not own:
        return ()
    rest = {name: getattr(top, name) for name in ("thinking_tokens", "web_search_requests", "web_fetch_requests")}
    return replace(own[0], **rest), *own[1:]


def _miss_reason(data: Json) -> str | None:
    return _text(_dict(_dict(data.get("diagnostics")).get("cache_miss_reason")).get("type"))


# Streams --------------------------------------------------------------------------------------------------------------


def read_stream(body: bytes, model_requested: str) -> Outcome:
    """The outcome of an SSE body, whole or cut off anywhere.

    Only the lines that carry counts are parsed, found from both ends: a stream of thousands of deltas costs two JSON
    documents. Totals come from the last `message_delta`, the 5m/1h split of cache writes from `message_start`. Without
    a `message_delta` the output is estimated from the text that came.
    """
    start = _first_event(body, b"message_start")
    if start is None:
        return replace(_not_a_stream(body, model_requested), error_type=_stream_error(body))
    message = _dict(start.get("message"))
    delta = _last_event(body, b"message_delta")
    if delta is None:
        outcome = _cut_off(message, body, model_requested)
    else:
        outcome = _message(_merged(message, delta), model_requested, complete=False)
        if outcome.declined and b'"content_block_start"' in body:
            outcome = replace(outcome, declined=False)
    if _last_event(body, b"message_stop") is not None:
        return replace(outcome, complete=True)
    return replace(outcome, error_type=_stream_error(body))


def read_ends(chunks: Sequence[bytes], model_requested: str) -> Outcome | None:
    """What `read_stream` says of the whole body, read off its first and last chunks; None where those do not tell it.

    To put a long body together, only to look at both of its ends, takes more than looking.
    """
    if len(chunks) < 4 * _CHUNKS_OF_AN_END:
        return None
    ends = b"".join([*chunks[:_CHUNKS_OF_AN_END], b"\n", *chunks[-_CHUNKS_OF_AN_END:]])
    outcome = read_stream(ends, model_requested)
    # of a refusal it counts whether anything was written in between
    is_told = outcome.complete and outcome.stop_reason not in (None, "refusal")
    return outcome if is_told else None


def read_start(body: bytes, model_requested: str) -> Outcome | None:
    """What `message_start` tells, with no output yet; None until a whole one is in the body."""
    start = _first_event(body, b"message_start")
    return None if start is None else _cut_off(_dict(start.get("message")), b"", model_requested)


def has_content(chunk: bytes) -> bool:
    """Whether the bytes hold the beginning of a content delta, which is when a reader sees the first token."""
    return b'"content_block_delta"' in chunk


def _not_a_stream(body: bytes, model_requested: str) -> Outcome:
    # some servers answer stream=true with one JSON document
    return read_json(body, model_requested) if body.lstrip()[:1] == b"{" else NOTHING


def _stream_error(body: bytes) -> str | None:
    event = _last_event(body, b"error")
    return None if event is None else error_type(event) or "error"


def _merged(message: Json, delta: Json) -> Json:
    """The message with the totals that its last `message_delta` repeats or corrects."""
    usage = dict(_dict(message.get("usage")))
    usage.update({key: value for key, value in _dict(delta.get("usage")).items() if value is not None})
    return {**message, **_dict(delta.get("delta")), "usage": usage}


def _cut_off(message: Json, body: bytes, model_requested: str) -> Outcome:
    outcome = _message(message, model_requested, complete=False)
    # output_tokens of message_start is noise (1 to 88 before anything was written)
    output = estimated_tokens(content_bytes(body))
    usage = replace(outcome.usage or Usage(), output_tokens=output, thinking_tokens=None, estimated=True)
    return replace(outcome, usage=usage, stop_reason=None)


def content_bytes(body: bytes) -> int:
    """UTF-8 bytes of everything the model wrote in a stream body: text, thinking, tool input."""
    return sum(_delta_bytes(_dict(event.get("delta"))) for event in _events(body) if "delta" in event)


def _delta_bytes(delta: Json) -> int:
    pieces = (delta.get(key) for key in ("text", "thinking", "partial_json", "content"))
    return sum(len(piece.encode("utf-8", "surrogatepass")) for piece in pieces if isinstance(piece, str))


# Finding events in bytes ----------------------------------------------------------------------------------------------
# A quoted name can also be the whole of some text ("message_delta" as an answer), so a hit counts only when the line it
# stands in parses as an event of that type. Inside longer strings JSON escapes the quotes, so there are no other hits.


def _first_event(body: bytes, name: bytes) -> Json | None:
    quoted, position = b'"' + name + b'"', 0
    while (position := body.find(quoted, position)) >= 0:
        event = _event_at(body, position)
        if event is not None and event.get("type") == name.decode():
            return event
        position += len(quoted)
    return None


def _last_event(body: bytes, name: bytes) -> Json | None:
    quoted, position = b'"' + name + b'"', len(body)
    while (position := body.rfind(quoted, 0, position)) >= 0:
        event = _event_at(body, position)
        if event is not None and event.get("type") == name.decode():
            return event
    return None


def _event_at(body: bytes, position: int) -> Json | None:
    # a line may end with either: the second is looked for in what the first leaves, not in all of a long body
    begin = body.rfind(b"\n", 0, position) + 1
    begin = max(begin, body.rfind(b"\r", begin, position) + 1)
    end = body.find(b"\n", position)
    end = len(body) if end < 0 else end
    sooner = body.find(b"\r", position, end)
    return _data_line(body[begin : end if sooner < 0 else sooner])


def _data_line(line: bytes) -> Json | None:
    if not line.startswith(b"data:"):
        return None
    return parsed(line[5:]) or None


def _events(body: bytes) -> Iterator[Json]:
    for line in body.splitlines():
        event = _data_line(line)
        if event is not None:
            yield event


# Usage ----------------------------------------------------------------------------------------------------------------


def read_usage(usage: Json) -> Usage:
    """The disjoint token classes of a `usage` object of the API."""
    known: dict[str, Any] = {
        "input_tokens": _count(usage.get("input_tokens")),
        "cache_read_tokens": _count(usage.get("cache_read_input_tokens")),
        "output_tokens": _count(usage.get("output_tokens")),
    }
    if usage.get("cache_creation_input_tokens", True):  # there and 0: nothing was written
        _add_writes(known, usage)
    if tools := _dict(usage.get("server_tool_use")):
        known["web_search_requests"] = _count(tools.get("web_search_requests"))
        known["web_fetch_requests"] = _count(tools.get("web_fetch_requests"))
    thinking = _dict(usage.get("output_tokens_details")).get("thinking_tokens")
    if isinstance(thinking, int):
        known["thinking_tokens"] = thinking
    if usage.get("estimated") is True:  # said by llmnb itself, of a server that counts nothing
        known["estimated"] = True
    return made(Usage, known)


def _add_writes(known: dict[str, Any], usage: Json) -> None:
    split = _dict(usage.get("cache_creation"))
    write_5m, write_1h = _count(split.get("ephemeral_5m_input_tokens")), _count(split.get("ephemeral_1h_input_tokens"))
    total = _count(usage.get("cache_creation_input_tokens", write_5m + write_1h))
    if write_5m + write_1h > total:  # a later total below the first split: the split no longer holds
        write_5m = write_1h = 0
    unsplit = total - write_5m - write_1h
    known["cache_write_5m_tokens"], known["cache_write_1h_tokens"] = write_5m, write_1h
    known["cache_write_unsplit_tokens"], known["estimated"] = unsplit, unsplit > 0


def _split_iterations(usage: Json, served: str, requested: str) -> tuple[list[Usage], tuple[Iteration, ...]]:
    """The prompts of the answer itself, and the iterations that are billed beside it.

    With `iterations`, the API bills their sum: compactions and advisors are never in the top-level counts, and the
    top-level input of a tool loop may be that of its first iteration only (advisor and compaction pages of the API's
    documentation). A model that declined before it wrote anything is reported but not billed.
    """
    entries = [entry for entry in _list(usage["iterations"]) if entry]
    fell_back = any(entry.get("type") == "fallback_message" for entry in entries)
    own: list[Usage] = []
    beside: list[Iteration] = []
    for entry in entries:
        kind, tokens = _text(entry.get("type")) or "message", read_usage(entry)
        declined = fell_back and kind == "message"
        model = _text(entry.get("model")) or (requested if declined else served)
        if kind in ("message", "fallback_message") and model == served:
            own.append(tokens)
        elif not (declined and tokens.output_tokens == 0):
            beside.append(Iteration(kind, model, tokens))
    return own, tuple(beside)


# Careful reading ------------------------------------------------------------------------------------------------------


def parsed(data: bytes) -> Json:
    """The JSON object in these bytes; an empty one where they hold none."""
    try:
        return _dict(jiter.from_json(data))
    except ValueError:  # it is stricter than the json module, about half a surrogate pair for one
        return _object_of_any_kind(data)


def _object_of_any_kind(data: bytes) -> Json:
    try:
        return _dict(json.loads(data))
    except (ValueError, RecursionError):
        return {}


def _dict(value: object) -> Json:
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]


def _list(value: object) -> list[Json]:
    return [_dict(item) for item in cast(list[object], value)] if isinstance(value, list) else []


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: object) -> int:
    return value if isinstance(value, int) and value > 0 else 0
