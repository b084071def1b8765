"""Errors and headers of a chat completions server in the words of the Messages API, which the SDK reads.

The message and the status stay as they are; what the SDK, pacing and the ledger look for gets the name they know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import jiter

from llmnb.providers.answer import as_dict, as_list, first

Json = dict[str, Any]

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_QUOTA = ("insufficient_quota", "billing_hard_limit_reached")
"""Codes of a 429 that no waiting helps against (https://platform.openai.com/docs/guides/error-codes)."""

_LIMITS = {"requests": "requests", "tokens": "total-tokens"}
"""One limit for all tokens, which the Messages API has none of: its `tokens` say the stricter of two others."""
_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|h|m|s)")
_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_KEPT = ("retry-after", "retry-after-ms", "x-should-retry")


def refused(response: httpx2.Response) -> tuple[bytes, list[tuple[str, str]]]:
    """The body and headers of an error, as the Messages API has them."""
    error = _error(response.content)
    kind = _TYPES.get(response.status_code, "api_error" if response.status_code >= 500 else "invalid_request_error")
    headers = told_headers(response.headers)
    if {error.get("code"), error.get("type")} & set(_QUOTA):
        kind = "billing_error"
        headers = [*(pair for pair in headers if pair[0] != "x-should-retry"), ("x-should-retry", "false")]
    if not any(name.startswith("retry-after") for name, _ in headers) and (wait := _retry_delay(error)):
        headers.append(("retry-after", wait))
    message = error.get("message") or response.text[:500] or f"HTTP {response.status_code}"
    return _envelope(kind, str(message)), headers


def error_of_event(chunk: Json) -> Json:
    """An error in a stream, as the event that says so."""
    told = chunk.get("error")
    error = as_dict(told) or ({"message": told} if told else chunk)  # vLLM has put it at the top
    code = error.get("code")
    kind = _TYPES.get(code, "api_error") if isinstance(code, int) else _kind_of(str(error.get("type")), str(code))
    return {"type": "error", "error": {"type": kind, "message": str(error.get("message") or "error in the stream")}}


def _kind_of(told: str, code: str) -> str:
    if "rate_limit" in code or "rate_limit" in told or told in ("requests", "tokens"):
        return "rate_limit_error"
    return "invalid_request_error" if told == "invalid_request_error" else "overloaded_error"


def not_there(path: str, name: str) -> bytes:
    """The body of the answer to what the other wire has no word for."""
    return _envelope("not_found_error", f"{name} has nothing like {path}; llmnb reaches its chat completions only")


def _envelope(kind: str, message: str) -> bytes:
    return json.dumps({"type": "error", "error": {"type": kind, "message": message}}).encode()


def _error(body: bytes) -> Json:
    try:
        document: object = jiter.from_json(body)
    except ValueError:
        return {}
    found = as_dict(document) or first(document)  # Gemini wraps its errors in a list
    error = found.get("error", found)
    return {"message": error} if isinstance(error, str) else as_dict(error)


def _retry_delay(error: Json) -> str | None:
    """Seconds to wait, which Gemini says in a detail of its errors (google.rpc.RetryInfo) and in no header."""
    delays = (str(detail.get("retryDelay") or "") for detail in as_list(error.get("details")))
    span = next((found for delay in delays if (found := _span_s(delay)) is not None), None)
    return None if span is None else f"{span:g}"


# Headers --------------------------------------------------------------------------------------------------------------


def told_headers(headers: httpx2.Headers) -> list[tuple[str, str]]:
    """The headers that somebody reads: the request's id, when to come again, and how much is left of the limits."""
    found = [(name, headers[name]) for name in _KEPT if name in headers]
    if "x-request-id" in headers:
        found.append(("request-id", headers["x-request-id"]))
    return [*found, *_limits(headers)]


def _limits(headers: httpx2.Headers) -> Iterable[tuple[str, str]]:
    """`x-ratelimit-*` as `anthropic-ratelimit-*`, so that pacing learns from them; resets are spans there."""
    for name, called in _LIMITS.items():
        for what in ("limit", "remaining"):
            if value := headers.get(f"x-ratelimit-{what}-{name}"):
                yield f"anthropic-ratelimit-{called}-{what}", value
        if (reset := headers.get(f"x-ratelimit-reset-{name}")) and (span := _span_s(reset)) is not None:
            at = datetime.now(UTC) + timedelta(seconds=span)
            yield f"anthropic-ratelimit-{called}-reset", at.strftime("%Y-%m-%dT%H:%M:%SZ")


def _span_s(text: str) -> float | None:
    """Seconds of a span such as `6m0s`, `1.5s`, `20ms`; None when it is none."""
    parts = _SPAN.findall(text)
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts) if parts else None
