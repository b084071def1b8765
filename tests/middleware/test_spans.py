"""The SDK's own OpenTelemetry spans, recorded by the real SDK of OpenTelemetry, with our cost, source and project."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import anthropic
import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import llmnb
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer
from llmnb.simulator.fault import Fault

MODEL = "claude-sonnet-5-5"
ASK = {"model": MODEL, "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}]}


class Traced:
    """Clients of the simulator whose spans are kept."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.clients: list[anthropic.Anthropic] = []

    def client(self, **options: object) -> anthropic.Anthropic:
        self.clients.append(anthropic.Anthropic(**{"open_telemetry": {"tracer_provider": self.provider}, **options}))
        return self.clients[-1]

    def only(self) -> ReadableSpan:
        (span,) = self.exporter.get_finished_spans()
        return span


@pytest.fixture
def traced() -> Iterator[Traced]:
    """Spans of this test."""
    made = Traced()
    yield made
    for client in made.clients:
        client.close()


def in_the_ledger() -> dict[str, object]:
    return llmnb.calls().iloc[0].to_dict()


@pytest.mark.parametrize("way", ["create", "read", "closed", "dropped"])
def test_a_span_knows_what_the_ledger_knows(sim: Simulator, traced: Traced, way: str) -> None:
    """Answered in one piece, streamed, or a stream that was left: one span, the SDK's, with the row's cost."""
    sim.script(Answer(text="word " * 50, delta_tokens=1))
    client = llmnb.wrap(traced.client(), project="thesis", tag="draft")
    if way == "create":
        client.messages.create(**ASK)
    else:
        stream = client.messages.create(**ASK, stream=True)
        for event in stream:
            if event.type == "content_block_delta" and way != "read":
                break
        if way == "closed":
            stream.close()
        del stream, event
        gc.collect()  # the SDK's stream holds itself
    span, row = traced.only(), in_the_ledger()
    told = dict(span.attributes or {})
    assert span.name == "anthropic.messages.create"
    assert told["llmnb.cost_nanousd"] == row["cost_nanousd"] > 0
    assert told["gen_ai.usage.cost"] == pytest.approx(row["cost_nanousd"] / 1e9)
    assert told["llmnb.status"] == row["status"] == ("ok" if way in ("create", "read") else "cancelled")
    assert (told["llmnb.project"], told["llmnb.tag"], told["llmnb.source"]) == ("thesis", "draft", "live")
    assert told["gen_ai.request.model"] == MODEL


async def test_async_from_the_cache_in_a_chat(sim: Simulator, traced: Traced) -> None:
    """A hit costs nothing and says what it saved; a chat is the conversation's id; the template is told."""
    client = anthropic.AsyncAnthropic(open_telemetry={"tracer_provider": traced.provider})
    llm = llmnb.LLM(MODEL, client=client)
    for _ in range(2):
        await llm.chat(name="review").aask(llmnb.Template("Hi", name="hello", version=1))
        llm.chat(name="review").clear()
    await client.close()
    live, hit = (dict(span.attributes or {}) for span in traced.exporter.get_finished_spans())
    assert (live["llmnb.source"], hit["llmnb.source"]) == ("live", "cache")
    assert (hit["llmnb.cost_nanousd"], hit["llmnb.saved_nanousd"]) == (0, live["llmnb.cost_nanousd"])
    assert hit["gen_ai.conversation.id"] == "review"
    assert hit["llmnb.template"] == "hello@1"


def test_retries_are_one_span(sim: Simulator, traced: Traced) -> None:
    """The attempts of a call share its span, which ends once, with what the last one said."""
    sim.script(Fault("overloaded", retry_after_s=0), Answer(text="Hi"))
    llmnb.wrap(traced.client()).messages.create(**ASK)
    told = dict(traced.only().attributes or {})
    assert (told["llmnb.attempts"], told["llmnb.status"]) == (2, "ok")
    assert told["llmnb.cost_nanousd"] == in_the_ledger()["cost_nanousd"]


def test_a_call_that_fails_ends_its_span(sim: Simulator, traced: Traced) -> None:
    """As an error, at no cost."""
    with pytest.raises(anthropic.APIStatusError):
        llmnb.wrap(traced.client()).messages.create(**{**ASK, "max_tokens": -1})
    told = dict(traced.only().attributes or {})
    assert (told["llmnb.status"], told["llmnb.cost_nanousd"]) == ("error", 0)


def test_a_span_of_the_users_own_is_left_alone(sim: Simulator, traced: Traced) -> None:
    """Where the SDK's spans are off, the one around the call is somebody else's."""
    with traced.provider.get_tracer("mine").start_as_current_span("my work"):
        llmnb.wrap(traced.client(open_telemetry=False)).messages.create(**ASK)
    assert dict(traced.only().attributes or {}) == {}
