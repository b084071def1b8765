"""Rate limits: a token bucket a minute for requests, input and output tokens, told in headers, enforced when asked."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llmnb.simulator.api_error import ApiError
from llmnb.simulator.clock import rfc3339

Header = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a key may use in a minute. Cache reads do not count as input. `enforce` answers 429 once it is used up."""

    requests_per_minute: int = 4_000
    input_tokens_per_minute: int = 2_000_000
    output_tokens_per_minute: int = 400_000
    enforce: bool = False

    def times(self, factor: int) -> Limits:
        """Limits so many times as high."""
        return Limits(
            self.requests_per_minute * factor,
            self.input_tokens_per_minute * factor,
            self.output_tokens_per_minute * factor,
            self.enforce,
        )


@dataclass(slots=True)
class _Bucket:
    limit: int
    level: float
    at: float

    def refill(self, now: float) -> None:
        self.level = min(self.limit, self.level + max(0.0, now - self.at) * self.limit / 60)
        self.at = now

    def wait_s(self, amount: float) -> float:
        """Seconds until `amount` may be taken."""
        return max(0.0, (min(amount, self.limit) - self.level) * 60 / self.limit)

    def headers(self, name: str) -> list[Header]:
        reset = self.at + (self.limit - self.level) * 60 / self.limit
        return [
            (f"anthropic-ratelimit-{name}-limit", str(self.limit)),
            (f"anthropic-ratelimit-{name}-remaining", str(max(0, int(self.level)))),
            (f"anthropic-ratelimit-{name}-reset", rfc3339(math.ceil(reset))),
        ]


class RateLimiter:
    """The buckets of every key."""

    def __init__(self, limits: Limits, scale: float = 1.0) -> None:
        self.limits = limits
        self._scale = scale
        self._buckets: dict[str, tuple[_Bucket, _Bucket, _Bucket]] = {}

    def check(self, key: str, input_tokens: int, now: float) -> None:
        """ApiError 429 with a retry-after when limits are enforced and this request does not fit."""
        requests, inputs, outputs = self._of(key, now)
        if not self.limits.enforce:
            return
        waits = (
            (requests, 1.0, "requests"),
            (inputs, float(input_tokens), "input tokens"),
            (outputs, 1.0, "output tokens"),
        )
        for bucket, amount, name in waits:
            wait = bucket.wait_s(amount)
            if wait > 0:
                message = (
                    f"This request would exceed your organization's rate limit of {bucket.limit:,} {name} per minute. "
                    "Please reduce the prompt length or the maximum tokens requested, or try again later."
                )
                headers = (("retry-after", str(math.ceil(wait))), *self.headers(key, now))
                if self._scale not in (0.0, 1.0):  # the client sleeps in real time
                    headers = (*headers, ("retry-after-ms", f"{math.ceil(wait) * 1000 / self._scale:g}"))
                raise ApiError("rate_limit_error", message, headers=headers)

    def take(self, key: str, input_tokens: int, output_tokens: int, now: float) -> None:
        """Account for one request."""
        requests, inputs, outputs = self._of(key, now)
        requests.level -= 1
        inputs.level -= input_tokens
        outputs.level -= output_tokens

    def headers(self, key: str, now: float) -> list[Header]:
        """The `anthropic-ratelimit-*` headers for a key."""
        requests, inputs, outputs = self._of(key, now)
        both = _Bucket(inputs.limit + outputs.limit, inputs.level + outputs.level, now)
        return [
            *requests.headers("requests"),
            *inputs.headers("input-tokens"),
            *outputs.headers("output-tokens"),
            *both.headers("tokens"),
        ]

    def _of(self, key: str, now: float) -> tuple[_Bucket, _Bucket, _Bucket]:
        buckets = self._buckets.get(key)
        if buckets is None:
            limits = self.limits
            sizes = (limits.requests_per_minute, limits.input_tokens_per_minute, limits.output_tokens_per_minute)
            requests, inputs, outputs = (_Bucket(size, float(size), now) for size in sizes)
            buckets = self._buckets[key] = (requests, inputs, outputs)
        for bucket in buckets:
            bucket.refill(now)
        return buckets
