"""The chat completions wire's own words for errors, headers and the accidents of a stream."""

from __future__ import annotations

from datetime import datetime

from llmnb.simulator.api_error import ApiError
from llmnb.simulator.dialect import Dialect
from llmnb.simulator.json_value import Json, dump_bytes
from llmnb.simulator.wire import Header

ERROR_TYPES = {
    "authentication_error": ("invalid_request_error", "invalid_api_key"),
    "permission_error": ("invalid_request_error", None),
    "not_found_error": ("invalid_request_error", None),
    "billing_error": ("insufficient_quota", "insufficient_quota"),
    "rate_limit_error": ("requests", "rate_limit_exceeded"),
    "api_error": ("server_error", None),
    "overloaded_error": ("server_error", None),
    "timeout_error": ("server_error", None),
}
"""Errors' types and codes by those of the Messages wire (https://platform.openai.com/docs/guides/error-codes)."""
STATUSES = {529: 503}
"""There is no 529: an overloaded server says 503."""


def error_of(error: ApiError) -> Json:
    """The error's object."""
    kind, code = ERROR_TYPES.get(error.kind, (error.kind, None))
    return {"message": error.message, "type": kind, "param": None, "code": code} | (error.details or {})


def _body(error: ApiError, request_id: str) -> bytes:
    del request_id  # this wire tells it in a header only
    return dump_bytes({"error": error_of(error)})


def _event(error: ApiError, request_id: str) -> bytes:
    return b"data: " + _body(error, request_id) + b"\n\n"


CHAT = Dialect(
    ending=b"data: [DONE]",
    broken_json=b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","choi\n\n',
    text_head=(
        b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":0,"model":"simulated",'
        b'"choices":[{"index":0,"delta":{"content":"'
    ),
    text_tail=b'"},"finish_reason":null}]}\n\n',
    stranger=b'data: {"id":"chatcmpl-1","object":"chat.completion.future","note":"from a newer API"}\n\n',
    has_blocks=False,
    error=_body,
    error_event=_event,
)


def limit_headers(headers: list[Header], now_s: float) -> list[Header]:
    """The limits of a key as `x-ratelimit-*`, from what the limiter says; resets are spans here, such as `6m0s`."""
    told = dict(headers)
    found: list[Header] = []
    for name in ("requests", "tokens"):
        amounts = ("limit", "remaining")
        found += [(f"x-ratelimit-{what}-{name}", told[f"anthropic-ratelimit-{name}-{what}"]) for what in amounts]
        resets = datetime.fromisoformat(told[f"anthropic-ratelimit-{name}-reset"]).timestamp()
        found.append((f"x-ratelimit-reset-{name}", span(max(0.0, resets - now_s))))
    return found


def span(seconds: float) -> str:
    """A span of time as OpenAI writes it: `6m0s`, `1.5s`, `20ms`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(seconds, 60)
    return f"{int(minutes)}m{rest:g}s" if minutes else f"{round(rest, 3):g}s"
