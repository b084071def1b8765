"""The provider's books: each record against what the SDK was told, and prices worked out by hand."""

from __future__ import annotations

import json

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmnb.simulator import Answer, Clock, Fault, Simulator
from llmnb.simulator.tariff import PRICES, Quantity, charge_nanousd

from .asking import ask
from .test_prompt_cache import GUIDE, HOUR, MARK, system


def test_a_call_is_billed_by_its_usage(sim: Simulator, client: anthropic.Anthropic) -> None:
    """Sonnet 5.5 costs 2,000 nano-dollars an input token and 10,000 an output token."""
    usage = client.messages.create(**ask()).usage
    record = sim.billing[-1]
    assert (record.input_tokens, record.output_tokens) == (usage.input_tokens, usage.output_tokens)
    assert record.price_nanousd == usage.input_tokens * 2_000 + usage.output_tokens * 10_000
    assert (record.status, record.complete, record.aborted, record.stream) == (200, True, False, False)


def test_streams_are_billed_alike(sim: Simulator, client: anthropic.Anthropic) -> None:
    """The same request streamed has the same charge, and its bytes are on record."""
    client.messages.create(**ask())
    list(client.messages.create(**ask(), stream=True))
    whole, streamed = sim.billing
    assert whole.price_nanousd == streamed.price_nanousd
    assert streamed.stream
    assert streamed.bytes_sent > whole.bytes_sent > 0


def test_cache_classes_have_their_own_prices(sim: Simulator, client: anthropic.Anthropic) -> None:
    """A write costs 1.25 (5m) or 2 (1h) times the input, a read of this model a twentieth."""
    parts = [{"type": "text", "text": "Notes. " * 300, "cache_control": MARK}]
    request = ask(system=system(GUIDE, HOUR), messages=[{"role": "user", "content": parts}])
    for _ in range(2):
        client.messages.create(**request)
    written, read = sim.billing
    assert written.price_nanousd == (
        written.input_tokens * 2_000
        + written.cache_write_5m_tokens * 2_500
        + written.cache_write_1h_tokens * 4_000
        + written.output_tokens * 10_000
    )
    assert read.cache_read_tokens == written.cache_write_5m_tokens + written.cache_write_1h_tokens
    assert read.price_nanousd == read.input_tokens * 2_000 + read.cache_read_tokens * 100 + read.output_tokens * 10_000


def test_long_prompts_of_a_tiered_model_cost_more_throughout() -> None:
    """Past 100,000 prompt tokens every token of Haiku 5.5 costs five times as much."""
    below = charge_nanousd(Quantity(input_tokens=100_000, output_tokens=10), "claude-haiku-5-5")
    above = charge_nanousd(Quantity(input_tokens=1, cache_read_tokens=100_000, output_tokens=10), "claude-haiku-5-5")
    assert below == 100_000 * 100 + 10 * 500
    assert above == 500 + 100_000 * 50 + 10 * 2_500


def test_batch_and_fast_factors() -> None:
    """Half in a batch, double in fast mode where a model has one; half a nano-dollar rounds to even."""
    quantity = Quantity(input_tokens=10, output_tokens=10)
    assert charge_nanousd(quantity, "claude-opus-5-5") == 240_000
    assert charge_nanousd(quantity, "claude-opus-5-5", batch=True) == 120_000
    assert charge_nanousd(quantity, "claude-opus-5-5", fast=True) == 480_000
    assert charge_nanousd(quantity, "claude-sonnet-5-5", fast=True) == 120_000
    assert charge_nanousd(Quantity(cache_write_5m_tokens=1), "claude-haiku-5-5", batch=True) == 62
    assert charge_nanousd(quantity, "claude-unheard-of") is None


def test_an_aborted_stream_is_billed_for_what_was_generated(sim: Simulator, client: anthropic.Anthropic) -> None:
    """Input in full, output up to the disconnect: here, the deltas before the stall."""
    sim.script(Answer(text="word " * 500, fault=Fault("stall", after_events=40)))
    with client.messages.create(**ask(), stream=True) as stream:
        for event in stream:
            if event.type == "content_block_delta":
                break
    sim.settle()
    record = sim.billing[-1]
    assert (record.aborted, record.complete) == (True, False)
    assert record.output_tokens == 40 * 3
    assert record.price_nanousd == record.input_tokens * 2_000 + 120 * 10_000


def test_a_client_that_gives_up_waiting_for_json_pays_all_of_it() -> None:
    """A non-streaming answer is generated to its end whether or not anyone still waits for it."""
    with Simulator(clock=Clock.frozen()) as sim, sim.client(max_retries=0, timeout=0.05) as client:
        sim.script(Answer(text="word " * 100, first_token_s=60))
        with pytest.raises(anthropic.APITimeoutError):
            client.messages.create(**ask())
        sim.settle()
        assert (sim.billing[-1].aborted, sim.billing[-1].output_tokens) == (True, 101)


def test_errors_and_empty_refusals_are_free(sim: Simulator, client: anthropic.Anthropic) -> None:
    """A refused request is on record with its status and no charge; so is a refusal before any output."""
    sim.fail("overloaded")
    with pytest.raises(anthropic.APIStatusError):
        client.messages.create(**ask())
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(**ask(messages=[]))
    sim.script(Answer(refusal=True), Answer(refusal="bio", text="I would say"))
    for _ in range(2):
        client.messages.create(**ask())
    assert [record.status for record in sim.billing] == [529, 400, 200, 200]
    assert [bool(record.price_nanousd) for record in sim.billing] == [False, False, False, True]
    assert sim.billed().requests == 4


def test_iterations_are_billed_on_the_model_that_ran_them(sim: Simulator, client: anthropic.Anthropic) -> None:
    """Compaction on the call's model, an advisor on its own; both on top of the call's usage."""
    iterations = [
        {"type": "compaction", "input_tokens": 100, "output_tokens": 10, "cache_read_input_tokens": 1000},
        {"type": "advisor_message", "model": "claude-opus-5-5", "input_tokens": 10, "output_tokens": 5},
        {"type": "message", "input_tokens": 7, "output_tokens": 3},
    ]
    sim.script(Answer(text="x", usage={"input_tokens": 7, "output_tokens": 3, "iterations": iterations}))
    client.beta.messages.create(**ask())
    record = sim.billing[-1]
    compaction = 100 * 2_000 + 1000 * 100 + 10 * 10_000
    advisor = 10 * 4_000 + 5 * 20_000
    assert [item.price_nanousd for item in record.iterations] == [compaction, advisor]
    assert record.price_nanousd == 7 * 2_000 + 3 * 10_000 + compaction + advisor


def test_a_fallback_is_billed_on_the_model_that_served(sim: Simulator, client: anthropic.Anthropic) -> None:
    """The top-level usage is the serving model's; a model that declined after some output is billed for that."""
    iterations = [
        {"type": "message", "model": "claude-sonnet-5-5", "input_tokens": 20, "output_tokens": 4},
        {"type": "message", "model": "claude-fable-5-2", "input_tokens": 20, "output_tokens": 0},
        {"type": "fallback_message", "model": "claude-opus-4-8", "input_tokens": 20, "output_tokens": 6},
    ]
    sim.script(Answer(text="x", usage={"input_tokens": 20, "output_tokens": 6, "iterations": iterations}))
    list(client.beta.messages.create(**ask(), stream=True))
    record = sim.billing[-1]
    assert record.model == "claude-opus-4-8"
    assert record.price_nanousd == (20 * 5_000 + 6 * 25_000) + (20 * 2_000 + 4 * 10_000)


def test_web_searches_cost_a_cent(sim: Simulator, client: anthropic.Anthropic) -> None:
    """Ten dollars a thousand, on top of the tokens."""
    client.messages.create(**ask("Search the news", tools=[{"type": "web_search_20250305", "name": "web_search"}]))
    record = sim.billing[-1]
    tokens = record.input_tokens * 2_000 + record.output_tokens * 10_000
    assert record.price_nanousd == tokens + 10_000_000


def test_thinking_is_inside_the_output(sim: Simulator, client: anthropic.Anthropic) -> None:
    """Thinking tokens are told apart and not charged twice."""
    client.messages.create(**ask(model="claude-opus-5-5"))
    record = sim.billing[-1]
    assert 0 < record.thinking_tokens < record.output_tokens
    assert record.price_nanousd == record.input_tokens * 4_000 + record.output_tokens * 20_000


def test_recordings_are_served_verbatim_and_billed_by_their_bytes(sim: Simulator, client: anthropic.Anthropic) -> None:
    """A recorded stream arrives byte by byte, and the bill reads start and delta as the API means them."""
    start = {"input_tokens": 0, "output_tokens": 9, "cache_creation_input_tokens": 300}
    start["cache_creation"] = {"ephemeral_5m_input_tokens": 100, "ephemeral_1h_input_tokens": 200}
    message = {"id": "msg_recorded", "type": "message", "role": "assistant", "model": "claude-sonnet-4-5-20250929"}
    message |= {"content": [], "stop_reason": None, "stop_sequence": None, "usage": start}
    ending = {"input_tokens": 50, "output_tokens": 20, "cache_read_input_tokens": 7, "cache_creation_input_tokens": 310}
    payloads = [
        {"type": "message_start", "message": message},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": ending},
        {"type": "message_stop"},
    ]
    body = b"".join(f"event: {p['type']}\ndata: {json.dumps(p)}   \n\n".encode() for p in payloads)
    sim.replay(200, {"content-type": "text/event-stream; charset=utf-8", "request-id": "req_old"}, body)
    with client.messages.with_streaming_response.create(**ask(), stream=True) as response:
        assert b"".join(response.iter_bytes()) == body
    record = sim.billing[-1]
    assert (record.message_id, record.model) == ("msg_recorded", "claude-sonnet-4-5-20250929")
    assert (record.cache_write_5m_tokens, record.cache_write_1h_tokens) == (110, 200)
    assert record.price_nanousd == 50 * 3_000 + 20 * 15_000 + 7 * 300 + 110 * 3_750 + 200 * 6_000


def test_a_recorded_error_and_a_recorded_json(sim: Simulator, client: anthropic.Anthropic) -> None:
    """Statuses are replayed too, and any route can be."""
    sim.replay(400, None, b'{"type":"error","error":{"type":"invalid_request_error","message":"old"}}')
    with pytest.raises(anthropic.BadRequestError, match="old"):
        client.messages.create(**ask())
    sim.replay(200, {}, b'{"input_tokens": 11}')
    assert client.messages.count_tokens(model="claude-sonnet-5-5", messages=ask()["messages"]).input_tokens == 11
    assert [record.status for record in sim.billing] == [400]


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.sampled_from(sorted(PRICES)))
def test_a_charge_is_additive_where_no_tier_is(tokens_in: int, tokens_out: int, model: str) -> None:
    """Input and output priced apart add up to both priced together, on models without a tier."""
    if PRICES[model].long_over_tokens is not None:
        return
    both = charge_nanousd(Quantity(input_tokens=tokens_in, output_tokens=tokens_out), model)
    apart = (Quantity(input_tokens=tokens_in), Quantity(output_tokens=tokens_out))
    assert both == sum(charge_nanousd(quantity, model) or 0 for quantity in apart)
