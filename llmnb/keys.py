"""The name of a question: equal questions have equal keys, today and tomorrow, offline, on every machine. Pure.

A key holds everything that the answer depends on: the request's body in canonical JSON, the provider, the address it
goes to, the headers that change an answer, and the number of the sample. What it leaves out is named below, and nothing
else is left out. A turn of a message thread has the conversation before it in its key, not the id that stands for it.
"""

from __future__ import annotations

import hashlib
import json
import json.encoder
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring_ascii as _quoted
from typing import Any, cast

VERSION = 1
"""Part of every key; a change of what a key is made of makes all others."""

IGNORED_FIELDS = frozenset({"cache_control", "diagnostics", "metadata", "stream"})
"""Fields of the body that do not change what a model writes: where breakpoints of the prompt cache are, what is to be
told about them, who asks, and whether the answer comes in pieces. `cache_control` is ignored wherever the API takes one
(the body, system blocks, tools, content blocks and the blocks in them), and nowhere else: an argument of a tool may
have that name, too. The other three are ignored at the top only."""

IGNORED_HEADERS = frozenset(
    {"accept", "accept-encoding", "baggage", "connection", "content-length", "content-type", "host", "idempotency-key",
     "tracestate", "via"}
)  # fmt: skip
"""Headers of the transport."""

IGNORED_HEADER_PARTS = (
    "auth", "cookie", "key", "request-id", "retry", "secret", "session", "stainless", "timeout", "token", "trace",
    "user-agent",
)  # fmt: skip
"""A header whose name has one of these in it says who asks, through what, or which request this is. All others count:
a gateway may choose the model by one."""

_MARK = '"cache_control"'


def request_key(
    body: Mapping[str, Any],
    *,
    provider: str = "anthropic",
    base_url: str = "https://api.anthropic.com",
    path: str = "/v1/messages",
    query: Mapping[str, Any] | None = None,
    headers: Mapping[str, Any] | None = None,
    sample: int = 0,
) -> str:
    """The key of a request, 40 hexadecimal digits.

    Args:
        body: the request as plain JSON, as it is before llmnb places breakpoints.
        provider: OpenTelemetry's `gen_ai.provider.name`.
        base_url: the server's address.
        path: the address under it, with its query if there is one.
        query: further query parameters.
        headers: the headers of the request that the client was given; the order of the betas in one does not matter.
        sample: which of several independent answers to the same question.

    Raises:
        TypeError: the body holds something that JSON cannot.
        ValueError: the body contains itself.
    """
    facts = around(provider=provider, base_url=base_url, path=path, query=query, headers=headers, sample=sample)
    return key_of(facts, canonical_body(body))


def around(
    *,
    provider: str,
    base_url: str,
    path: str,
    query: Mapping[str, Any] | None = None,
    headers: Mapping[str, Any] | None = None,
    sample: int = 0,
) -> bytes:
    """What counts besides the body, as canonical JSON; the arguments are those of `request_key`."""
    facts = {
        "version": VERSION,
        "provider": provider,
        "base_url": base_url.rstrip("/"),
        "path": path,
        "query": dict(query or {}),
        "headers": telling_headers(headers or {}),
        "sample": sample,
    }
    return _json(facts).encode()


def key_of(around: bytes, canonical: bytes) -> str:
    """The key of what `around` and `canonical_body` gave."""
    return Around(around).key(canonical)


class Around:
    """What counts besides the body (`text`), read once for all the requests that share it."""

    __slots__ = ("_read", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self._read = hashlib.blake2b(text, digest_size=20)

    def key(self, canonical: bytes) -> str:
        """The key of a request with that canonical body."""
        read = self._read.copy()
        read.update(canonical)
        return read.hexdigest()


def canonical_body(body: Mapping[str, Any]) -> bytes:
    """The body in canonical JSON (ASCII, keys in their order, no spaces), without the ignored fields.

    Raises:
        TypeError: the body holds something that JSON cannot.
        ValueError: the body contains itself.
    """
    kept = body
    if not IGNORED_FIELDS.isdisjoint(body):
        kept = {name: value for name, value in body.items() if name not in IGNORED_FIELDS}
    text = _json(kept)
    if _MARK in text:  # almost never: the user's own markers
        text = _json(_unmarked(kept))
    return text.encode()


# Threads --------------------------------------------------------------------------------------------------------------

_CONVERSATION = frozenset({"messages", "system", "thread", "tools"})


@dataclass(frozen=True, slots=True)
class Turn:
    """A request of a message thread: its canonical body, and a digest of the conversation up to its question.

    The answer depends on that conversation, whether the API holds it or it is sent (again), and not on the ids of the
    answers in it. So both ways have one key, and one server's ids mean nothing to it.
    """

    canonical: bytes
    end: bytes

    def answered(self, content: Any) -> bytes:
        """The digest of the conversation with the answer, for the turn that continues it."""
        return _then(self.end, {"role": "assistant", "content": content})


def turn_of(body: Mapping[str, Any], held: bytes | None = None) -> Turn:
    """A turn of a message thread; `held` is the digest of what the API holds, where the body continues a thread.

    Raises:
        TypeError, ValueError: as `canonical_body`.
    """
    rest = {name: value for name, value in body.items() if name not in _CONVERSATION}
    end = held or _digest(canonical_body({name: body[name] for name in ("system", "tools") if name in body}))
    for message in cast("Sequence[Any]", body.get("messages") or ()):
        end = _then(end, message)
    return Turn(canonical_body({**rest, "thread": end.hex()}), end)


def _then(end: bytes, message: Any) -> bytes:
    return _digest(end + canonical_body({"messages": [message]}))


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=20).digest()


# Headers --------------------------------------------------------------------------------------------------------------


def telling_headers(headers: Mapping[str, Any]) -> dict[str, str]:
    """The headers that count, lower-case, with the betas in alphabetical order; what is no text is left out."""
    kept: dict[str, str] = {}
    for name, value in headers.items():
        lower = name.lower()
        if isinstance(value, str) and lower not in IGNORED_HEADERS and not _says_who_asks(lower):
            kept[lower] = _sorted_betas(value) if lower == "anthropic-beta" else value
    return kept


def _says_who_asks(name: str) -> bool:
    return any(part in name for part in IGNORED_HEADER_PARTS)


def _sorted_betas(value: str) -> str:
    return ",".join(sorted({beta.strip() for beta in value.split(",")} - {""}))


_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
_in_c: Any = getattr(json.encoder, "c_make_encoder", None)


def _json(value: Any) -> str:
    if _in_c is None:
        return _encode(value)
    # what `encode` comes to, without the half of the time that it takes to get there
    return "".join(_in_c({}, _refuse, _quoted, None, ":", ",", True, False, True)(value, 0))


def _refuse(value: object) -> Any:
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


# Without breakpoints --------------------------------------------------------------------------------------------------


def _unmarked(body: Mapping[str, Any]) -> dict[str, Any]:
    plain = dict(body)
    for name in ("system", "tools"):
        if name in plain:
            plain[name] = _blocks(plain[name])
    if isinstance(plain.get("messages"), list):
        plain["messages"] = [_with_plain(message, "content") for message in plain["messages"]]
    return plain


def _blocks(value: Any) -> Any:
    return [_block(item) for item in cast("list[Any]", value)] if isinstance(value, list) else value


def _block(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    block = {name: part for name, part in cast("dict[str, Any]", value).items() if name != "cache_control"}
    block = _with_plain(block, "content")  # of a tool or search result
    if "source" in block:  # of a document made of blocks
        block["source"] = _with_plain(block["source"], "content")
    return block


def _with_plain(value: Any, name: str) -> Any:
    if not isinstance(value, dict) or name not in value:
        return cast("Any", value)
    return {**cast("dict[str, Any]", value), name: _blocks(value[name])}
