"""Faults on demand: what can go wrong between a client and the API, named, with its parameters.

Before the reply: `rate_limited` (429, `retry_after_s`), `overloaded` (529), `server_error` (500), `status` (any
`status` and `error_type`), `slow_headers` (`seconds`), `reset_before_headers`, `close_before_headers`.

During a stream, after `after_events` content deltas (0: before any content, -1: before everything): `stall` (`seconds`,
or for ever), `reset` (TCP reset inside a chunk), `drop` (connection closed inside a chunk), `truncate` (clean end
without `message_stop`), `error_event` (`error_type`), `bad_json`, `bad_utf8`. The first three strike in the middle of a
JSON body, too.

Of the whole stream: `split_utf8` (correct data, cut inside each character), `comments` (keep-alive comments between
events), `unknown_events`, `unknown_blocks`, `json_for_sse` (plain JSON where SSE was asked for). Of any body: `gzip`,
`slow_body` (`seconds` before every piece).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

from llmnb.simulator.api_error import ERROR_TYPE, ApiError

BEFORE = frozenset({"rate_limited", "overloaded", "server_error", "status"})
CONNECTION = frozenset({"slow_headers", "reset_before_headers", "close_before_headers"})
MID_STREAM = frozenset({"stall", "reset", "drop", "truncate", "error_event", "bad_json", "bad_utf8"})
WHOLE = frozenset({"split_utf8", "comments", "unknown_events", "unknown_blocks", "json_for_sse", "gzip", "slow_body"})
KINDS = BEFORE | CONNECTION | MID_STREAM | WHOLE

MESSAGES = {
    "rate_limited": "This request would exceed your organization's rate limit. Please try again later.",
    "overloaded": "Overloaded",
    "server_error": "Internal server error",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault by `kind`; the other fields mean something for the kinds the module names, times are in seconds."""

    kind: str
    retry_after_s: float | None = None
    retry_after_ms: float | None = None
    status: int = 500
    error_type: str | None = None
    message: str | None = None
    seconds: float | None = None
    after_events: int = 3
    should_retry: bool | None = None
    times: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"Unknown fault {self.kind!r}. The faults are: {', '.join(sorted(KINDS))}.")

    def error(self) -> ApiError | None:
        """The error that a fault of the first family answers with, or None."""
        if self.kind not in BEFORE:
            return None
        status = {"rate_limited": 429, "overloaded": 529, "server_error": 500}.get(self.kind, self.status)
        kind = self.error_type or ERROR_TYPE.get(status, "api_error")
        return ApiError(kind, self._message(), status=status, headers=tuple(self._headers()))

    def stream_error(self) -> ApiError:
        """The error that an `error_event` carries."""
        return ApiError(self.error_type or "overloaded_error", self.message or "Overloaded")

    def _message(self) -> str:
        return self.message or MESSAGES.get(self.kind) or f"Simulated {self.status}"

    def _headers(self) -> list[tuple[str, str]]:
        headers: list[tuple[str, str]] = []
        if self.retry_after_s is not None:
            headers.append(("retry-after", f"{self.retry_after_s:g}"))
        elif self.kind == "rate_limited" and self.retry_after_ms is None:
            headers.append(("retry-after", "1"))
        if self.retry_after_ms is not None:
            headers.append(("retry-after-ms", f"{self.retry_after_ms:g}"))
        if self.should_retry is not None:
            headers.append(("x-should-retry", "true" if self.should_retry else "false"))
        return headers


_READERS: dict[str, Callable[[str], Any]] = {
    "retry_after_s": float,
    "retry_after_ms": float,
    "status": int,
    "seconds": float,
    "after_events": int,
    "times": int,
    "should_retry": lambda text: text == "true",
}


def parse_fault(header: str) -> Fault:
    """A fault from an `x-simulator-fault` header: `rate_limited; retry_after_s=2; times=1`.

    `times` bounds how often one call sees it: an attempt whose `x-stainless-retry-count` is past it is served.
    """
    kind, *parameters = [part.strip() for part in header.split(";") if part.strip()]
    values: dict[str, Any] = {}
    names = {f.name for f in fields(Fault)} - {"kind"}
    for parameter in parameters:
        name, _, text = parameter.partition("=")
        if name not in names:
            raise ValueError(f"Unknown fault parameter {name!r}. The parameters are: {', '.join(sorted(names))}.")
        values[name] = _READERS.get(name, str)(text)
    return Fault(kind, **values)


@dataclass(slots=True)
class Chance:
    """A coin with memory of its seed, for faults by probability."""

    probability: float
    dice: random.Random

    def falls(self) -> bool:
        """One throw."""
        return self.dice.random() < self.probability
