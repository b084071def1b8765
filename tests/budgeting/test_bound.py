"""The bound of a call: nothing it is billed may pass it, but what no offline count can know."""

from __future__ import annotations

import json
import os
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from llmnb.budgeting.bound import Bound, bound_of
from llmnb.budgeting.past import CALLS, FRESH_S, UNKNOWN_FRESH_S, Past
from llmnb.ledger import Ledger
from llmnb.messages import wire
from llmnb.records import Usage
from llmnb.settings import PriceOverride

BODY: dict[str, Any] = {
    "model": "claude-sonnet-5-5",
    "max_tokens": 1000,
    "messages": [{"role": "user", "content": "Explain write-ahead logging in SQLite."}],
}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def past(ledger: Ledger, clock: Clock) -> Past:
    """What an empty ledger tells."""
    return Past(lambda: ledger, clock)


def bound(past: Past, **changes: Any) -> Bound:
    options = {name: changes.pop(name) for name in ("project", "prices", "lost") if name in changes}
    return bound_of({**BODY, **changes}, past, **options)


# Output ---------------------------------------------------------------------------------------------------------------


def answered(ledger: Ledger, make_call, outputs: list[int], **changes: Any) -> None:
    ledger.write_all([(make_call(output_tokens=output, **changes), ()) for output in outputs])


def test_without_a_history_max_tokens_is_held(past: Past, ledger: Ledger, make_call) -> None:
    """Fewer than a hundred calls say nothing of the hundredth."""
    answered(ledger, make_call, [50] * (CALLS - 1))
    assert (bound(past, project="thesis").output_tokens, bound(past).most_output_tokens) == (1000, 1000)


def test_with_a_history_its_99th_percentile_is_held(past: Past, ledger: Ledger, make_call) -> None:
    """The value that at most one of a hundred further answers exceeds, of live and whole ones of the same kind."""
    answered(ledger, make_call, list(range(1, CALLS + 1)))
    answered(ledger, make_call, [900] * 200, project="other")
    answered(ledger, make_call, [900] * 200, model_requested="claude-opus-5-5")
    answered(ledger, make_call, [900] * 200, source="cache")
    answered(ledger, make_call, [900] * 200, status="cancelled")
    found = bound(past, project="thesis")
    assert (found.output_tokens, found.most_output_tokens) == (100, 1000)
    assert bound(past, project="thesis", max_tokens=10).output_tokens == 10


def test_of_a_thousand_answers_nearly_the_longest_counts(past: Past, ledger: Ledger, make_call) -> None:
    """Nearest rank, so that it is an answer that there was."""
    answered(ledger, make_call, list(range(1, 1001)))
    assert bound(past, project="thesis", max_tokens=5000).output_tokens == 991


def test_answers_cut_off_by_max_tokens_say_nothing_of_longer_ones(past: Past, ledger: Ledger, make_call) -> None:
    """How long they would have been is not known."""
    answered(ledger, make_call, [50] * 150)
    answered(ledger, make_call, [50] * 50, stop_reason="max_tokens")
    assert bound(past, project="thesis").output_tokens == 1000


def test_history_is_read_anew_now_and_then(past: Past, clock: Clock, ledger: Ledger, make_call) -> None:
    """Soon where there was too little, every minute otherwise."""
    assert bound(past, project="thesis").output_tokens == 1000
    answered(ledger, make_call, [50] * CALLS)
    assert bound(past, project="thesis").output_tokens == 1000
    clock.now += UNKNOWN_FRESH_S
    assert bound(past, project="thesis").output_tokens == 50
    answered(ledger, make_call, [500] * CALLS)
    assert bound(past, project="thesis").output_tokens == 50
    clock.now += FRESH_S
    assert bound(past, project="thesis").output_tokens == 500


def test_prewarming_writes_nothing(past: Past) -> None:
    """`max_tokens=0` fills the prompt cache."""
    assert bound(past, max_tokens=0).output_tokens == 0


def test_without_max_tokens_the_models_limit_is_held(past: Past) -> None:
    """The API refuses such a request, but that is its own affair."""
    assert bound_of({"model": "claude-sonnet-5-5", "messages": []}, past).output_tokens == 128_000


# Input ----------------------------------------------------------------------------------------------------------------


def test_a_thread_reads_its_last_turn_again(past: Past) -> None:
    """What the model read and wrote then, and what is new; where that is not known, the usual."""
    fresh = bound(past).usage.total_input_tokens
    past.took("msg_1", 5000)
    thread = {"type": "continue", "previous_message_id": "msg_1"}
    assert bound(past, thread=thread).usage.total_input_tokens == 5000 + fresh
    assert bound(past, thread={**thread, "previous_message_id": "msg_2"}).usage.total_input_tokens == fresh


def test_what_cannot_be_counted_is_taken_from_the_usual(past: Past, ledger: Ledger, make_call) -> None:
    """Files, addresses and tools of the server add what the body does not say."""
    answered(ledger, make_call, [50] * CALLS, input_tokens=9000, cache_read_tokens=1000)
    file = {"type": "document", "source": {"type": "file", "file_id": "file_1"}}
    assert bound(past, project="thesis").usage.total_input_tokens < 100
    for changes in (
        {"messages": [{"role": "user", "content": [file]}]},
        {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
        {"thread": {"type": "continue", "previous_message_id": "unknown"}},
    ):
        assert bound(past, project="thesis", **changes).usage.total_input_tokens == 10_000


def test_turns_are_forgotten_in_the_end(past: Past, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded."""
    monkeypatch.setattr("llmnb.budgeting.past._TURNS", 3)
    for number in range(5):
        past.took(f"msg_{number}", number)
    assert [past.turn(f"msg_{number}") for number in range(5)] == [None, None, 2, 3, 4]


RECORDINGS = os.environ.get("LLMNB_TEST_RECORDINGS")
BEYOND = ("019", "021", "037", "038", "051")
"""Tools of the server read more than was sent."""


@pytest.mark.skipif(RECORDINGS is None, reason="LLMNB_TEST_RECORDINGS names no folder of recordings")
def test_no_recorded_request_was_billed_more(past: Past) -> None:
    """Of the calls that the real API answered, without tools of the server."""
    held = 0
    for path in sorted(Path(str(RECORDINGS)).glob("*.meta.json")):
        meta = json.loads(path.read_text())
        body = meta["request"].get("body") or {}
        if "messages" not in body or meta["response"]["status"] != 200 or path.name.startswith(BEYOND):
            continue
        answer = (path.parent / meta["response"]["file"]).read_bytes()
        read = wire.read_stream if b"message_start" in answer else wire.read_json
        usage = read(answer, body["model"]).usage
        if usage is not None:
            found = bound_of(body, past)
            assert usage.total_input_tokens <= found.usage.total_input_tokens, path.name
            assert usage.output_tokens <= found.output_tokens, path.name
            held += 1
    assert held >= 25


# Money ----------------------------------------------------------------------------------------------------------------

PRICES = {
    "claude-sonnet-5-5": PriceOverride(
        input=Decimal(2),
        output=Decimal(10),
        cache_write_5m=Decimal("2.5"),
        cache_write_1h=Decimal(4),
        web_search=Decimal(10),
    ),
    "claude-sonnet-5-5:fast": PriceOverride(input=Decimal(20), output=Decimal(100)),
}


def test_the_bound_in_dollars_is_tokens_times_their_prices(past: Past) -> None:
    """Input at its own price, output at its own."""
    found = bound(past, prices=PRICES)
    tokens = found.usage.total_input_tokens
    assert found.take("usd", 500) == tokens * 2_000 + 500 * 10_000
    assert found.take("tokens", 500) == tokens + 500


@pytest.mark.parametrize(
    ("where", "ttl", "nanousd"),
    [("top", None, 2_500), ("system", "5m", 2_500), ("messages", "1h", 4_000), ("tools", "1h", 4_000)],
)
def test_a_prompt_to_be_cached_is_held_at_the_price_of_writing(
    past: Past, where: str, ttl: str | None, nanousd: int
) -> None:
    """Wherever the breakpoint is, and for as long as it asks for: reading it again costs less."""
    control = {"type": "ephemeral", **({"ttl": ttl} if ttl else {})}
    block = {"type": "text", "text": "Be brief.", "cache_control": control}
    changes: dict[str, Any] = {
        "top": {"cache_control": control},
        "system": {"system": [block]},
        "messages": {"messages": [{"role": "user", "content": [block]}]},
        "tools": {"tools": [{"name": "t", "input_schema": {}, "cache_control": control}]},
    }[where]
    found = bound(past, prices=PRICES, **changes)
    assert found.take("usd", 0) == found.usage.total_input_tokens * nanousd


def test_searches_are_held_as_far_as_they_are_limited(past: Past) -> None:
    """`max_uses` says how many there can be; one otherwise."""
    tool = {"type": "web_search_20250305", "name": "web_search", "max_uses": 3}
    with_limit = bound(past, prices=PRICES, tools=[tool])
    without = bound(past, prices=PRICES, tools=[{**tool, "max_uses": None}])
    assert (with_limit.usage.web_search_requests, without.usage.web_search_requests) == (3, 1)
    assert with_limit.take("usd", 0) == with_limit.usage.total_input_tokens * 2_000 + 3 * 10_000_000


def test_what_is_billed_differently_is_held_differently(past: Past) -> None:
    """Fast mode has its own price, or none."""
    fast = bound(past, prices=PRICES, speed="fast")
    assert fast.take("usd", 0) == fast.usage.total_input_tokens * 20_000
    assert bound(past, prices=PRICES, inference_geo="us").take("usd", 0) is None


def test_a_model_without_a_price_has_no_bound_in_dollars(past: Past) -> None:
    """Though it has one in tokens."""
    found = bound(past, model="my-model")
    assert found.take("usd", 10) is None
    assert (found.take("tokens", 10) or 0) > 10


def test_what_earlier_attempts_may_be_billed_is_part_of_it(past: Past) -> None:
    """An attempt that timed out may have been read."""
    plain = bound(past, prices=PRICES)
    again = bound(past, prices=PRICES, lost=Usage(100, estimated=True))
    assert (again.take("usd", 5) or 0) - (plain.take("usd", 5) or 0) == 200_000
    assert (again.take("tokens", 5) or 0) - (plain.take("tokens", 5) or 0) == 100
