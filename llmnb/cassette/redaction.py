"""Keeps secrets out of cassettes: by where they stand, by what they are, and wherever they are repeated.

Three rules, for everything that is written. A value in a field, header or query parameter with a secret's name is
replaced, and so is one that the user named. What looks like an API key or a bearer token is replaced in any text. And a
secret that was seen once, in a header, in the environment or in a named field, is replaced wherever it turns up again:
in an address, in the text of an error, in JSON inside of JSON, or spread over the pieces of a stream.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast
from urllib.parse import parse_qsl, quote, quote_plus, urlencode, urlsplit

REDACTED = "[redacted]"

Redact = Iterable[str | re.Pattern[str]]
"""What a user wants replaced: names of fields, headers and parameters, and patterns of text."""

SECRET_NAMES = frozenset(
    {
        "access_token", "anthropic_api_key", "anthropic_organization_id", "api_key", "apikey", "auth_token",
        "authorization", "authorization_token", "aws_secret_access_key", "aws_session_token", "bearer_token",
        "client_secret", "cookie", "id_token", "passwd", "password", "private_key", "proxy_authorization",
        "refresh_token", "secret", "secret_access_key", "secret_key", "session_token", "set_cookie",
        "x_amz_security_token", "x_api_key", "x_goog_api_key",
    }
)  # fmt: skip
"""Names of fields, headers and query parameters whose values are secrets; `-` and `_` are the same, so is case."""

SHORTEST_SECRET = 8
"""Shorter values are replaced where they stand, but not looked for elsewhere: too much text would look like them."""

_LOOKS_SECRET = (
    re.compile(r"sk-ant-[A-Za-z0-9_-]{8,}"),  # keys of the API
    re.compile(r"\bbearer\s+[A-Za-z0-9._~+/=-]{16,}", re.IGNORECASE),
)
_SECRET_VARIABLE = re.compile(r"(_KEY|_TOKEN|_SECRET|_PASSWORD)$")
_SHORTEST_IN_ENVIRONMENT = 16


class Redaction:
    """What is replaced in one cassette.

    `names` are fields of the user's own (JSON fields at any depth, headers, query parameters); a compiled pattern among
    them is replaced in every text.
    """

    def __init__(self, names: Redact = (), environ: Mapping[str, str] = os.environ) -> None:
        given = (names,) if isinstance(names, (str, re.Pattern)) else tuple(names)
        self._names = frozenset(_plain(name) for name in given if isinstance(name, str))
        self._looks = (*(name for name in given if not isinstance(name, str)), *_LOOKS_SECRET)
        self._secrets: frozenset[str] = frozenset()
        self._patterns = self._looks
        self._lock = threading.RLock()
        self.learn(*_secrets_of(environ))

    # What is known ----------------------------------------------------------------------------------------------------

    def learn(self, *secrets: str) -> None:
        """These are secrets, wherever they turn up from now on; too short ones are not learned."""
        new = {secret for secret in secrets if len(secret) >= SHORTEST_SECRET and secret != REDACTED}
        if new <= self._secrets:
            return
        with self._lock:
            self._secrets |= new
            spellings = {spelling for secret in self._secrets for spelling in _spellings(secret)}
            literal = [re.escape(spelling) for spelling in sorted(spellings, key=len, reverse=True)]
            self._patterns = (re.compile("|".join(literal)), *self._looks)

    def learn_headers(self, headers: Mapping[str, str]) -> None:
        """Learns from headers as they were sent: keys, tokens, passwords, cookies."""
        for name, value in headers.items():
            if self._is_secret(name):
                self.learn(*_parts(value))

    def learn_named(self, value: Any) -> None:
        """Learns the values of secret fields in a JSON value."""
        if isinstance(value, dict):
            for name, inner in cast("dict[str, Any]", value).items():
                if isinstance(inner, (str, int)) and self._is_secret(str(name)):
                    self.learn(str(inner))
                elif _plain(str(name)) in self._names:
                    self.learn(*_texts(inner))
                else:
                    self.learn_named(inner)
        elif isinstance(value, (list, tuple)):
            for inner in cast("Sequence[Any]", value):
                self.learn_named(inner)

    # What is written --------------------------------------------------------------------------------------------------

    def text(self, text: str) -> str:
        """The text without what is known to be secret or looks like it."""
        for pattern in self._patterns:
            text = pattern.sub(_mark, text)
        return text

    def pieces(self, pieces: Sequence[str]) -> list[str]:
        """The pieces of one text, without secrets that several of them make up together."""
        joined = "".join(pieces)
        spans = sorted(match.span() for pattern in self._patterns for match in pattern.finditer(joined) if match[0])
        if not spans:
            return list(pieces)
        kept: list[str] = []
        start = 0
        for piece in pieces:
            kept.append(_outside(joined, start, start + len(piece), spans))
            start += len(piece)
        return kept

    def json(self, value: Any, *, spare: frozenset[str] = frozenset()) -> Any:
        """A JSON value without secrets, in keys and values. Under the names in `spare` only the user's names count."""
        return self._json(value, spare, built_in=True)

    def url(self, url: str) -> str:
        """An address without credentials and secret parameters."""
        parts = urlsplit(url)
        if "@" in parts.netloc:
            parts = parts._replace(netloc=f"{REDACTED}@{parts.netloc.rpartition('@')[2]}")
        if parts.query:
            pairs = parse_qsl(parts.query, keep_blank_values=True)
            told = [(self.text(name), REDACTED if self._is_secret(name) else self.text(value)) for name, value in pairs]
            parts = parts._replace(query=urlencode(told, safe="[]"))
        return self.text(parts.geturl())

    def headers(self, headers: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Headers without secrets."""
        return {
            self.text(name): REDACTED if self._is_secret(name) else self.text(value) for name, value in headers
        }  # fmt: skip

    def body(self, body: bytes) -> bytes:
        """A response body without secrets; the same bytes where there are none."""
        try:
            text = body.decode()
        except UnicodeDecodeError:
            return self.text(body.decode("latin-1")).encode("latin-1")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError):
            return self.text(text).encode()
        told = self.json(value, spare=ANSWERED)
        return body if told == value else compact_json(told)

    def _is_secret(self, name: str) -> bool:
        plain = _plain(name)
        return plain in SECRET_NAMES or plain in self._names

    def _json(self, value: Any, spare: frozenset[str], *, built_in: bool) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {
                self.text(str(name)): self._field(str(name), inner, spare, built_in=built_in and name not in spare)
                for name, inner in cast("dict[str, Any]", value).items()
            }
        if isinstance(value, (list, tuple)):
            return [self._json(inner, spare, built_in=built_in) for inner in cast("Sequence[Any]", value)]
        if isinstance(value, int) and not isinstance(value, bool) and self.text(str(value)) != str(value):
            return REDACTED
        return value if value is None or isinstance(value, (bool, int, float)) else self.text(repr(value))

    def _field(self, name: str, value: Any, spare: frozenset[str], *, built_in: bool) -> Any:
        plain = _plain(name)
        if plain in self._names:
            return REDACTED
        # a schema may have a field called password, whose value is what it is like
        if built_in and plain in SECRET_NAMES and isinstance(value, (str, int)) and not isinstance(value, bool):
            return REDACTED
        return self._json(value, spare, built_in=built_in)


ANSWERED = frozenset({"input"})
"""What a model wrote for a tool is not ours to change because of its names; a replay would hand it to the tool."""


def compact_json(value: Any) -> bytes:
    """The value as JSON without spaces, in UTF-8 where that can hold it."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return json.dumps(value, separators=(",", ":")).encode()


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _mark(match: re.Match[str]) -> str:
    return REDACTED if match[0] else ""


def _secrets_of(environ: Mapping[str, str]) -> list[str]:
    """Values of variables that are named like secrets and look like some: long, in one word, with a digit."""
    return [
        value
        for name, value in environ.items()
        if _SECRET_VARIABLE.search(name.upper())
        and len(value) >= _SHORTEST_IN_ENVIRONMENT
        and not any(letter.isspace() for letter in value)
        and any(letter.isdigit() for letter in value)
    ]


def _parts(value: str) -> list[str]:
    """A header's value, and what is secret in it by itself: the token, the password, each cookie."""
    scheme, _, token = value.partition(" ")
    found = [value, token]
    if scheme.lower() == "basic":
        with suppress(binascii.Error, ValueError):
            found.append(base64.b64decode(token, validate=True).decode("utf-8", "replace").partition(":")[2])
    found += [cookie.partition("=")[2].strip() for cookie in value.split(";")]
    return found


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for inner in cast("dict[str, Any]", value).values() for text in _texts(inner)]
    if isinstance(value, (list, tuple)):
        return [text for inner in cast("Sequence[Any]", value) for text in _texts(inner)]
    return [] if value is None or isinstance(value, bool) else [str(value)]


def _spellings(secret: str) -> set[str]:
    """The secret as it stands in text, in JSON, in JSON inside of JSON, in an address, in bytes read as Latin-1."""
    once = {secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    twice = {json.dumps(text, ensure_ascii=False)[1:-1] for text in once}
    try:
        elsewhere = {quote(secret), quote(secret, safe=""), quote_plus(secret), secret.encode().decode("latin-1")}
    except UnicodeEncodeError:  # a lone surrogate, which neither an address nor a body can hold
        elsewhere = set[str]()
    return once | twice | elsewhere


def _outside(text: str, start: int, end: int, spans: Sequence[tuple[int, int]]) -> str:
    """What of text[start:end] is in no span; where a span begins, the mark stands."""
    kept: list[str] = []
    at = start
    for first, last in spans:
        if last <= at or first >= end:
            continue
        kept.append(text[at : max(first, at)])
        if first >= start:
            kept.append(REDACTED)
        at = min(last, end)
    return "".join([*kept, text[at:end]])
