"""How calls end: the status that a body or an error stands for, and whether an attempt that failed was sent at all."""

from __future__ import annotations

import asyncio

import httpx2

from llmnb.messages import wire
from llmnb.middleware.tee import End
from llmnb.records import Status

STATUS_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""The API's names of errors by HTTP status (its documentation, "Errors"), for bodies that were not read."""


def status_of(error: BaseException) -> Status:
    """How a call ended of which nothing came but this."""
    return "error" if isinstance(error, Exception) else "cancelled"


def status_of_body(outcome: wire.Outcome, how: End, error: BaseException | None) -> Status:
    """How a call ended whose body has ended."""
    if outcome.complete:
        return "ok"
    if outcome.error_type is not None:
        return "error"
    if how in ("closed", "dropped") or (error is not None and not isinstance(error, Exception)):
        return "cancelled"
    return "truncated"


def was_never_sent(error: BaseException) -> bool:
    """Whether the connection failed before the request could have been read."""
    unsent = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, unsent):
            return True
        if isinstance(cause, (httpx2.HTTPError, asyncio.CancelledError, KeyboardInterrupt)):
            return False
        cause = cause.__cause__
    return isinstance(error, Exception)  # raised on this side, before any request was made
