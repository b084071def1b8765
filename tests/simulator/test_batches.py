"""Message batches on a clock that is moved by hand."""

from __future__ import annotations

from typing import Any

import anthropic
import pytest

from llmnb.simulator import Answer, Clock, Simulator

from .asking import ask, text_of


def items(*prompts: str) -> list[dict[str, Any]]:
    """Batch requests, one a prompt."""
    return [{"custom_id": f"row-{at}", "params": ask(prompt)} for at, prompt in enumerate(prompts)]


def test_a_batch_is_processed_after_its_time(sim: Simulator, client: anthropic.Anthropic, clock: Clock) -> None:
    """In progress at first, ended with results a minute later, billed at half price."""
    batch = client.messages.batches.create(requests=items("Say hi", "What is 2 + 2?"))
    assert (batch.processing_status, batch.request_counts.processing) == ("in_progress", 2)
    assert sim.billing == []
    with pytest.raises(anthropic.AnthropicError, match="finished processing"):
        client.messages.batches.results(batch.id)
    clock.advance(61)
    ended = client.messages.batches.retrieve(batch.id)
    assert (ended.processing_status, ended.request_counts.succeeded) == ("ended", 2)
    results = {result.custom_id: result.result for result in client.messages.batches.results(batch.id)}
    assert "**4**" in text_of(results["row-1"].message)
    assert results["row-0"].message.usage.service_tier == "batch"
    record = sim.billing[0]
    assert (record.batch_id, record.custom_id, record.service_tier) == (batch.id, "row-0", "batch")
    assert record.price_nanousd == record.input_tokens * 1_000 + record.output_tokens * 5_000


def test_a_bad_request_in_a_batch_is_an_errored_result(client: anthropic.Anthropic, clock: Clock) -> None:
    """One refused request leaves the others alone, and costs nothing."""
    requests = [*items("Say hi"), {"custom_id": "bad", "params": ask(model="claude-unheard-of")}]
    batch = client.messages.batches.create(requests=requests)
    clock.advance(61)
    results = {result.custom_id: result.result for result in client.messages.batches.results(batch.id)}
    assert results["row-0"].type == "succeeded"
    assert results["bad"].type == "errored"
    assert results["bad"].error.error.type == "not_found_error"


def test_the_script_reaches_into_batches(sim: Simulator, client: anthropic.Anthropic, clock: Clock) -> None:
    """A rule answers the requests of a batch that it matches."""
    sim.rule(Answer(text="scripted"), match="blue")
    batch = client.messages.batches.create(requests=items("blue", "Say hi"))
    clock.advance(61)
    results = {result.custom_id: result.result for result in client.messages.batches.results(batch.id)}
    assert text_of(results["row-0"].message) == "scripted"
    assert "Simulated" in text_of(results["row-1"].message)


def test_a_batch_can_be_cancelled_and_deleted(sim: Simulator, client: anthropic.Anthropic, clock: Clock) -> None:
    """Cancelled requests are not billed; an ended batch can be deleted, a running one cannot."""
    batch = client.messages.batches.create(requests=items("Say hi"))
    with pytest.raises(anthropic.BadRequestError, match="finished processing"):
        client.messages.batches.delete(batch.id)
    assert client.messages.batches.cancel(batch.id).processing_status == "canceling"
    clock.advance(2)
    ended = client.messages.batches.retrieve(batch.id)
    assert (ended.processing_status, ended.request_counts.canceled) == ("ended", 1)
    assert [result.result.type for result in client.messages.batches.results(batch.id)] == ["canceled"]
    assert sim.billing == []
    client.messages.batches.delete(batch.id)
    with pytest.raises(anthropic.NotFoundError):
        client.messages.batches.retrieve(batch.id)


def test_a_batch_that_takes_a_day_expires(clock: Clock) -> None:
    """After 24 hours what was not processed has expired."""
    with Simulator(clock=clock, batch_seconds=10**6) as sim, sim.client() as client:
        batch = client.messages.batches.create(requests=items("Say hi"))
        clock.advance(24 * 3600 + 1)
        assert client.messages.batches.retrieve(batch.id).request_counts.expired == 1
        assert sim.billing == []


def test_batches_are_listed_newest_first_and_paged(client: anthropic.Anthropic) -> None:
    """The SDK pages through all of them."""
    made = [client.messages.batches.create(requests=items("Say hi")).id for _ in range(5)]
    assert [batch.id for batch in client.messages.batches.list(limit=2)] == made[::-1]
    before = client.messages.batches.list(limit=2, before_id=made[0])
    assert [batch.id for batch in before.data] == [made[2], made[1]]


def test_bad_batches_are_refused(client: anthropic.Anthropic) -> None:
    """Empty batches and ids that are not unique."""
    with pytest.raises(anthropic.BadRequestError, match="at least 1 item"):
        client.messages.batches.create(requests=[])
    with pytest.raises(anthropic.BadRequestError, match="not unique"):
        client.messages.batches.create(requests=[*items("a"), *items("b")])


def test_another_key_sees_nothing(sim: Simulator, client: anthropic.Anthropic) -> None:
    """Batches are private to their key."""
    batch = client.messages.batches.create(requests=items("Say hi"))
    with sim.client(api_key="sk-other", max_retries=0) as other:
        assert other.messages.batches.list().data == []
        with pytest.raises(anthropic.NotFoundError):
            other.messages.batches.retrieve(batch.id)


def test_what_was_processed_before_the_end_is_billed(clock: Clock) -> None:
    """A batch that is cancelled halfway, or expires, has results for as many of its requests as there was time for."""
    with Simulator(clock=clock, batch_seconds=100) as sim, sim.client() as client:
        batch = client.messages.batches.create(requests=items("a", "b", "c", "d"))
        clock.advance(51)
        client.messages.batches.cancel(batch.id)
        clock.advance(2)
        counts = client.messages.batches.retrieve(batch.id).request_counts
        assert (counts.succeeded, counts.canceled, len(sim.billing)) == (2, 2, 2)
    with Simulator(clock=clock, batch_seconds=4 * 24 * 3600) as sim, sim.client() as client:
        batch = client.messages.batches.create(requests=items("a", "b", "c", "d"))
        clock.advance(24 * 3600 + 1)
        counts = client.messages.batches.retrieve(batch.id).request_counts
        assert (counts.succeeded, counts.expired, len(sim.billing)) == (1, 3, 1)


def test_faults_strike_requests_of_a_batch(sim: Simulator, client: anthropic.Anthropic, clock: Clock) -> None:
    """A request that is scripted to fail is an errored result, and costs nothing."""
    sim.fail("overloaded", match="blue")
    batch = client.messages.batches.create(requests=items("blue", "Say hi"))
    clock.advance(61)
    results = {result.custom_id: result.result for result in client.messages.batches.results(batch.id)}
    assert results["row-0"].type == "errored"
    assert results["row-0"].error.error.type == "overloaded_error"
    assert (results["row-1"].type, len(sim.billing)) == ("succeeded", 1)


def test_results_are_kept_for_29_days(client: anthropic.Anthropic, clock: Clock) -> None:
    """After that the batch can be looked at, and its results are gone."""
    batch = client.messages.batches.create(requests=items("Say hi"))
    clock.advance(29 * 24 * 3600 + 1)
    shown = client.messages.batches.retrieve(batch.id)
    assert (shown.processing_status, shown.results_url) == ("ended", None)
    assert shown.archived_at is not None
    with pytest.raises(anthropic.AnthropicError, match="results_url"):
        client.messages.batches.results(batch.id)
