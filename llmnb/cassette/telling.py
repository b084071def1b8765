"""Tells requests and responses as a cassette holds them: without secrets, and without what no answer depends on."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, urlencode, urlsplit

from llmnb.cassette import tape
from llmnb.cassette.body import Event, Json
from llmnb.cassette.interaction import Cut, Interaction, Request, Response
from llmnb.cassette.redaction import ANSWERED, Redact, Redaction, compact_json
from llmnb.keys import telling_headers

if TYPE_CHECKING:
    from anthropic import APIRequest

_LONGEST_MEDIUM = 200
"""Base64 of more characters is told by its digest: a picture tells a reader nothing in this form."""

_FRAMING = frozenset({"connection", "content-encoding", "content-length", "keep-alive", "transfer-encoding"})
"""Response headers of a connection and of how a body travelled on it, not of what was answered."""


# Requests -------------------------------------------------------------------------------------------------------------


def write(path: str | os.PathLike[str], interactions: Iterable[Interaction], *, redact: Redact = ()) -> Path:
    """Writes a cassette in one step, in place of what is there, and gives its absolute path.

    What `record` keeps out of a file is kept out of this one: secrets, the fields named in `redact`, the content of
    images. Interactions are numbered as they are given.
    """
    redaction = Redaction(redact)
    return tape.write(Path(path), (told(interaction, redaction) for interaction in interactions))


def told(interaction: Interaction, redaction: Redaction) -> Interaction:
    """An interaction as a cassette tells it."""
    redaction.learn_named(interaction.request.body)
    outcome = interaction.outcome
    return replace(
        interaction,
        request=without_secrets(interaction.request, redaction),
        outcome=told_response(outcome, redaction)
        if isinstance(outcome, Response)
        else replace(outcome, message=redaction.text(outcome.message)),
    )


def told_request(request: APIRequest, redaction: Redaction, *, provider: str, base_url: str) -> Request:
    """A request of the SDK's as a cassette tells it; the redaction learns the secrets in it."""
    headers = {name: value for name, value in request.headers.items() if isinstance(value, str)}
    redaction.learn_headers(headers)
    redaction.learn_named(request.json)
    body: Any = request.json
    sent = list(_sent_files(request.options))
    if sent:
        body = {"fields": body, "files": sent}
    told = Request(
        method=request.method.upper(),
        url=address_of(request.url, request.query_params, base_url),
        body=body,
        # a header of the user's own may hold anything, and no answer of the API depends on it
        headers={name: value for name, value in telling_headers(headers).items() if name.startswith("anthropic-")},
        provider=provider,
        base_url=base_url.rstrip("/"),
    )
    return without_secrets(told, redaction)


def without_secrets(request: Request, redaction: Redaction) -> Request:
    """The request without what is known to be secret by now, and with digests in place of media."""
    return replace(
        request,
        url=redaction.url(request.url),
        body=redaction.json(_with_digests(request.body)),
        headers=redaction.headers(request.headers.items()),
        base_url=redaction.url(request.base_url),
    )


def address_of(url: str, params: Mapping[str, Any], base_url: str) -> str:
    """Path and query below the base URL, with the parameters in alphabetical order."""
    inside = url.removeprefix(base_url.rstrip("/"))
    parts = urlsplit(inside)
    pairs = [*parse_qsl(parts.query, keep_blank_values=True), *_flat(params)]
    query = urlencode(sorted(pairs), safe="[]")
    return f"{parts.path}?{query}" if query else parts.path


def _flat(params: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in params.items():
        place = f"{prefix}[{name}]" if prefix else name
        if isinstance(value, Mapping):
            yield from _flat(cast("Mapping[str, Any]", value), place)
        elif isinstance(value, (list, tuple)):
            yield from ((f"{place}[]", _parameter(item)) for item in cast("Sequence[Any]", value))
        elif value is None or isinstance(value, (str, int, float)):  # else it is one of the SDK's marks for "not given"
            yield place, _parameter(value)


def _parameter(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else "" if value is None else str(value)


def _with_digests(value: Any) -> Any:
    if isinstance(value, dict):
        block = cast("Json", value)
        data = block.get("data")
        if block.get("type") == "base64" and isinstance(data, str) and len(data) > _LONGEST_MEDIUM:
            return {**block, "data": f"sha256 {hashlib.sha256(data.encode()).hexdigest()}, {len(data)} characters"}
        return {name: _with_digests(inner) for name, inner in block.items()}
    if isinstance(value, (list, tuple)):
        return [_with_digests(inner) for inner in cast("Sequence[Any]", value)]
    return value


def _sent_files(options: Any) -> Iterator[Json]:
    files: Any = options.files or ()
    pairs: Iterable[tuple[Any, Any]] = files.items() if hasattr(files, "items") else files
    for field, file in pairs:
        parts: tuple[Any, ...] = cast("tuple[Any, ...]", file) if isinstance(file, tuple) else (None, file)
        name, content, kind = (*parts, None)[:3]
        yield {"field": str(field), "name": None if name is None else str(name), "type": kind, **_digest(content)}
    if options.content is not None:
        yield {"field": "", "name": None, "type": None, **_digest(options.content)}


def _digest(content: Any) -> Json:
    if isinstance(content, str):
        content = content.encode()
    if isinstance(content, io.IOBase) and content.seekable():
        file = cast("Any", content)
        place = file.tell()
        try:
            return _digest(file.read())
        finally:
            file.seek(place)
    if isinstance(content, (bytes, bytearray)):
        return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    return {"sha256": None, "bytes": None}


# Responses ------------------------------------------------------------------------------------------------------------


def told_response(response: Response, redaction: Redaction) -> Response:
    """A response as a cassette tells it. Where nothing in it is secret, the body is the same to the byte."""
    kept = ((name, value) for name, value in response.headers.items() if name.lower() not in _FRAMING)
    events = None if response.events is None else tuple(_events(response.events, redaction))
    cut = response.cut and Cut(response.cut.how, response.cut.error, redaction.text(response.cut.message))
    body = redaction.body(response.body)
    return replace(response, headers=redaction.headers(kept), body=body, events=events, cut=cut)


def _events(events: Sequence[Event], redaction: Redaction) -> Iterator[Event]:
    payloads = [_payload(event.data) for event in events]
    changed = _without_scattered_secrets(payloads, redaction)
    for index, (event, payload) in enumerate(zip(events, payloads, strict=True)):
        if payload is None:
            yield Event(event.at_ms, redaction.body(event.data))
            continue
        told = redaction.json(payload, spare=ANSWERED)
        if index in changed or told != payload:
            lines = [b"data: " + compact_json(told) if line.startswith(b"data:") else line for line in _lines(event)]
            event = Event(event.at_ms, b"\n".join(lines))
        yield event


def _lines(event: Event) -> list[bytes]:
    return event.data.split(b"\n")


def _payload(data: bytes) -> Json | None:
    """The JSON of an event with one line of data."""
    lines = [line[5:] for line in data.split(b"\n") if line.startswith(b"data:")]
    try:
        value = json.loads(lines[0]) if len(lines) == 1 else None
    except (ValueError, RecursionError):
        return None
    return cast("Json", value) if isinstance(value, dict) else None


def _without_scattered_secrets(payloads: Iterable[Json | None], redaction: Redaction) -> set[int]:
    """Takes secrets out that a model wrote in several pieces; gives the indices of the events that it changed."""
    texts: dict[tuple[Any, ...], list[tuple[int, Json, str]]] = defaultdict(list)
    for index, payload in enumerate(payloads):
        found: Any = payload.get("delta") if payload is not None else None
        if payload is None or not isinstance(found, dict):
            continue
        delta = cast("Json", found)
        for name, text in delta.items():
            if isinstance(text, str) and name != "type":
                texts[payload.get("index"), delta.get("type"), name].append((index, delta, name))
    changed: set[int] = set()
    for places in texts.values():
        pieces = [delta[name] for _, delta, name in places]
        for (index, delta, name), piece in zip(places, redaction.pieces(pieces), strict=True):
            if delta[name] != piece:
                delta[name] = piece
                changed.add(index)
    return changed
