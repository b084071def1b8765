"""Rate limits: told in every reply's headers, enforced when asked, on the server's clock."""

from __future__ import annotations

import anthropic
import pytest

from llmnb.simulator import Clock, Limits, Simulator

from .asking import ask


def test_headers_tell_what_is_left(client: anthropic.Anthropic) -> None:
    """Limit, remaining and reset of requests, input, output and both, as the API names them."""
    headers = client.messages.with_raw_response.create(**ask("Say hi")).headers
    for name in ("requests", "input-tokens", "output-tokens", "tokens"):
        limit, left = (int(headers[f"anthropic-ratelimit-{name}-{part}"]) for part in ("limit", "remaining"))
        assert 0 < left < limit
        assert headers[f"anthropic-ratelimit-{name}-reset"].startswith("2026-")


def test_enforced_limits_answer_429_with_the_time_to_wait(clock: Clock) -> None:
    """The third request of two a minute waits half a minute, and is let in after that."""
    limits = Limits(requests_per_minute=2, enforce=True)
    with Simulator(clock=clock, limits=limits) as sim, sim.client(max_retries=0) as client:
        for _ in range(2):
            client.messages.create(**ask("Say hi"))
        with pytest.raises(anthropic.RateLimitError, match="2 requests per minute") as caught:
            client.messages.create(**ask("Say hi"))
        assert caught.value.response.headers["retry-after"] == "30"
        assert caught.value.response.headers["anthropic-ratelimit-requests-remaining"] == "0"
        clock.advance(31)
        client.messages.create(**ask("Say hi"))


def test_input_tokens_are_limited_and_cache_reads_do_not_count(clock: Clock) -> None:
    """A long prompt uses the minute up; reading it from the cache does not."""
    system = [{"type": "text", "text": "Notes. " * 1000, "cache_control": {"type": "ephemeral"}}]
    limits = Limits(input_tokens_per_minute=6_000, enforce=True)
    with Simulator(clock=clock, limits=limits) as sim, sim.client(max_retries=0) as client:
        raw = client.messages.with_raw_response.create(**ask("Say hi", system=system))
        after_write = int(raw.headers["anthropic-ratelimit-input-tokens-remaining"])
        raw = client.messages.with_raw_response.create(**ask("Say hi", system=system))
        after_read = int(raw.headers["anthropic-ratelimit-input-tokens-remaining"])
        assert after_write < 4_500
        assert after_write - after_read < 50
        client.messages.create(**ask("Other. " * 1000))
        with pytest.raises(anthropic.RateLimitError, match="input tokens per minute"):
            client.messages.create(**ask("Other. " * 1500))


def test_keys_have_limits_of_their_own(clock: Clock) -> None:
    """One key's use leaves another's alone."""
    with Simulator(clock=clock, limits=Limits(requests_per_minute=1, enforce=True)) as sim:
        for key in ("sk-one", "sk-two"):
            with sim.client(api_key=key, max_retries=0) as client:
                client.messages.create(**ask("Say hi"))
