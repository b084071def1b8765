"""The wait before the SDK's next attempt: known beforehand, told to whoever watches, and never absurdly long.

Retries are the SDK's: what it repeats, how often, and how long it waits, which the server can set to an hour. It sleeps
outside the chain of middleware, but obeys the header `retry-after-ms` of the response it is given: with the wait
written into it, the number that is told is the number that is slept.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx2
from anthropic import APIConnectionError, APIRequest, APITimeoutError, RetryableError

from llmnb.events import Retry
from llmnb.trouble import LlmnbWarning, warn_once

Tell = Callable[[Retry], None]

_FIRST_S, _LONGEST_S = 0.5, 8.0
"""The SDK's waits where the server says nothing: 0.5 · 2ⁿ seconds, 8 at most, less up to a quarter by chance
(`anthropic._constants`)."""
_STATUSES = {408: "timed out", 409: "conflict", 429: "rate limited", 503: "unavailable", 529: "overloaded"}


def before_next(
    request: APIRequest, failure: httpx2.Response | BaseException, client: Any, longest_s: float
) -> Retry | None:
    """The next attempt after `failure`, with its wait cut to `longest_s`; None where the SDK gives up.

    The wait after a response is written into it; the one after a lost connection is the SDK's own, and told as what it
    is at most.
    """
    retries = request.options.get_max_retries(getattr(client, "max_retries", 0))
    if request.retries_taken >= retries:
        return None
    attempt, of = request.retries_taken + 2, retries + 1
    if isinstance(failure, httpx2.Response):
        asked_s = _asked_s(request, failure, client, retries)
        wait_s = min(asked_s, longest_s)
        failure.headers["retry-after-ms"] = str(max(1, round(wait_s * 1000)))
        reason = _STATUSES.get(failure.status_code, f"status {failure.status_code}")
        if wait_s < asked_s:
            reason += f"; the API asked to wait {asked_s:,.0f} s"
            with suppress(LlmnbWarning):  # where warnings are errors, the retry is told all the same
                warn_once(
                    "retry-after",
                    f"The API asked to wait {asked_s:,.0f} s before the next attempt; llmnb waits {longest_s:g} s, the "
                    "setting `longest_retry_wait_s` (LLMNB_LONGEST_RETRY_WAIT_S).",
                )
        return Retry(wait_s, attempt, reason, of)
    reason = "timed out" if isinstance(failure, APITimeoutError) else "no connection"
    return Retry(min(_FIRST_S * 2**request.retries_taken, _LONGEST_S), attempt, reason, of)


def _asked_s(request: APIRequest, http: httpx2.Response, client: Any, retries: int) -> float:
    calculated = getattr(client, "_calculate_retry_timeout", None)  # private, and all there is: the SDK's own answer
    if calculated is not None:
        return float(calculated(retries - request.retries_taken, request.options, http.headers))
    return min(_FIRST_S * 2**request.retries_taken, _LONGEST_S)


def is_repeated(error: BaseException | None) -> bool:
    """Whether the SDK repeats a request that failed so, if it has retries left."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, (APIConnectionError, RetryableError)):
            return True
        seen.add(id(error))
        error = error.__cause__
    return False
