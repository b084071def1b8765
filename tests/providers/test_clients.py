"""Whom a question goes to: by prefix, address, the user's own client, and what is missing on this machine."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
from pathlib import Path

import anthropic
import httpx2
import pytest

import llmnb
from llmnb.asking.exchange import _Advice
from llmnb.errors import IncompleteReply, InvalidRequest, MissingExtra, MissingKey, UnknownModel
from llmnb.pacing import pacer
from llmnb.settings import load
from llmnb.simulator import Answer, Fault, Simulator
from llmnb.testing import serve_simulator

openai = pytest.importorskip("openai")


def test_a_model_of_another_provider_for_one_call(sim: Simulator) -> None:
    """A call may name another model with its prefix; each provider is sent its own key, and no other's."""
    llm = llmnb.LLM("claude-sonnet-5-5")
    llm("Hi")
    assert llm("Hi", model="openai:gpt-4o").call.provider == "openai"  # pyright: ignore[reportOptionalMemberAccess]
    assert [request.path for request in sim.requests] == ["/v1/messages", "/v1/chat/completions"]
    sent = sim.requests[1].headers
    assert sent["authorization"] == f"Bearer {sim.api_key}"
    assert not any(name.startswith(("anthropic", "x-api-key")) for name in sent)


def test_headers_for_one_server_are_not_sent_to_another(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Headers given with the call go along; those that the environment has for Anthropic stay."""
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", "X-Secret: for-anthropic")
    llmnb.LLM("openai:gpt-4o")("Hi", extra_headers={"X-Trace": "7"})
    assert sim.requests[0].headers["x-trace"] == "7"
    assert "x-secret" not in sim.requests[0].headers
    monkeypatch.setenv("OPENAI_ORG_ID", "org-1")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Secret: for-openai")
    llmnb.LLM("ollama:llama3.2")("Hi")
    assert not {"x-secret", "openai-organization"} & sim.requests[1].headers.keys()


def test_the_name_keeps_its_prefix(sim: Simulator, tmp_path: Path) -> None:
    """What an LLM says of itself makes the same one again, and so does a chat that was saved."""
    llm = llmnb.LLM("openai:gpt-4o")
    assert (llm.model, repr(llm)) == ("openai:gpt-4o", "LLM('openai:gpt-4o')")
    chat = llm.chat()
    chat("Hi")
    assert llmnb.Chat.load(chat.save(tmp_path / "c.json")).llm.model == "openai:gpt-4o"


def test_any_server_at_an_address(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that speaks chat completions needs no key; it is called by its host, and has no known price."""
    monkeypatch.delenv("OPENAI_API_KEY")
    reply = llmnb.LLM("openai:llama3.2", base_url=f"{sim.url}/v1")("Hi")
    assert reply.call is not None
    assert (reply.call.provider, reply.cost_usd) == (sim.url.removeprefix("http://"), None)
    assert "max_tokens" in sim.requests[0].body


def test_any_server_that_speaks_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a prefix an address is one of a Messages server, with or without a key, and moves nobody else."""
    with serve_simulator() as other, serve_simulator(environ=True) as sim:
        llm = llmnb.LLM("claude-sonnet-5-5", base_url=other.url)
        assert llm("Hi").call is not None
        monkeypatch.delenv("ANTHROPIC_API_KEY")
        assert "".join(getattr(event, "text", "") for event in llm.stream("Hi again"))
        assert asyncio.run(llm.aask("And again")).usage.output_tokens
        assert (len(other.requests), len(sim.requests)) == (3, 0)
        assert llm("Hi").source == "cache"


@pytest.mark.parametrize("kind", ["OpenAI", "AsyncOpenAI"])
def test_a_client_of_the_users_own(sim: Simulator, kind: str) -> None:
    """It answers blocking and awaited calls, whichever kind it is, and stays open for its owner."""
    client = getattr(openai, kind)(base_url=f"{sim.url}/v1", api_key=sim.api_key, default_headers={"X-Mine": "1"})
    llm = llmnb.LLM("openai:gpt-4o", client=client)
    sim.script("one", "two", "three")
    assert llm("a").text == "one"

    async def awaited() -> str:
        try:
            return (await llm.aask("b")).text
        finally:
            if kind == "AsyncOpenAI":
                await client.close()

    assert asyncio.run(awaited()) == "two"
    assert all(request.headers["x-mine"] == "1" for request in sim.requests)
    if kind == "OpenAI":
        with client:
            said = client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "c"}])
        assert said.choices[0].message.content == "three"


def test_azure_is_asked_as_azure_wants_it(sim: Simulator) -> None:
    """A client of Azure's says where and how by itself; it has no twin, and llmnb says so."""
    with openai.AzureOpenAI(azure_endpoint=sim.url, api_key=sim.api_key, api_version="2026-01-01") as client:
        llm = llmnb.LLM("openai:gpt-4o", client=client)
        llm("Hi")
        assert sim.requests[0].path == "/openai/deployments/gpt-4o/chat/completions"
        assert sim.requests[0].query["api-version"] == "2026-01-01"
        with pytest.raises(InvalidRequest, match="needs an async one"):
            asyncio.run(llm.aask("Hi there"))


def test_what_is_missing_is_said_before_anything_is_sent(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no SDK, no such provider, two addresses: one sentence each, with what to do."""
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(MissingKey, match="OPENAI_API_KEY"):
        llmnb.LLM("openai:gpt-4o")("Hi")
    monkeypatch.delenv("ANTHROPIC_BASE_URL")
    with pytest.raises(UnknownModel, match="'gorq' is no provider"):
        llmnb.LLM("gorq:llama")
    with pytest.raises(InvalidRequest, match="do not go together"):
        llmnb.LLM("openai:gpt-4o", client=openai.OpenAI(api_key="k"), base_url="http://localhost:1")
    with pytest.raises(InvalidRequest, match=r"LLM\('openai:"):
        llmnb.wrap(openai.OpenAI(api_key="k"))
    with pytest.raises(InvalidRequest, match="does not count"):
        llmnb.LLM("ollama:llama3.2").estimate("Hi", exact=True)
    with pytest.raises(InvalidRequest, match="cannot be prewarmed"):
        llmnb.LLM("ollama:llama3.2").prewarm("word " * 5_000)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'llmnb\[openai\]'"):
        llmnb.LLM("ollama:qwen3:8b")("Hi")
    assert sim.requests == []


def test_what_to_do_about_ollama_is_said(sim: Simulator) -> None:
    """A model that was never fetched, and a server that does not run: the SDK's errors, with what helps."""
    llm = llmnb.LLM("ollama:nonesuch")
    with pytest.raises(anthropic.NotFoundError) as missing:
        llm("Hi")
    assert "ollama pull nonesuch" in missing.value.__notes__[0]
    request = httpx2.Request("POST", "http://127.0.0.1:11434/v1/messages")
    with pytest.raises(anthropic.APIConnectionError) as away, _Advice(llm._plan):
        raise anthropic.APIConnectionError(request=request)
    assert "ollama serve" in away.value.__notes__[0]


def test_an_estimate_needs_no_network(sim: Simulator) -> None:
    """Tokens and dollars beforehand, by the provider's prices; there are no breakpoints to be set."""
    estimate = llmnb.LLM("openai:gpt-5.2", system="word " * 2_000).estimate("Hi")
    assert estimate.cost_most_usd is not None
    assert estimate.cache is None
    assert llmnb.LLM("ollama:llama3.2").estimate("Hi").cost_most_usd == 0
    assert sim.requests == []


@pytest.mark.parametrize("streamed", [True, False])
def test_a_server_that_counts_nothing_leaves_an_estimate(sim: Simulator, streamed: bool) -> None:
    """Without a usage the row has estimated tokens, and is marked."""
    sim.script(Answer(text="one two three four", no_usage=True))
    llm = llmnb.LLM("openai:gpt-4o", cache=False)
    reply = list(llm.stream("Count"))[-1] if streamed else llm("Count")
    assert reply.usage.estimated
    assert reply.usage.input_tokens > 0
    assert reply.usage.output_tokens > 0
    assert bool(llmnb.calls()["estimated"].iloc[0])


@pytest.mark.parametrize("kind", ["json_for_sse", "gzip", "comments", "split_utf8", "unknown_events"])
def test_odd_streams_are_read_all_the_same(sim: Simulator, kind: str) -> None:
    """What a server does besides the rule loses nothing of the answer."""
    sim.script(Answer(text="Ein Käfig für drei Äpfel", fault=Fault(kind)))
    events = list(llmnb.LLM("openai:gpt-4o").stream("Say"))
    assert "".join(getattr(event, "text", "") for event in events) == "Ein Käfig für drei Äpfel"


def test_an_error_in_the_middle_of_a_stream(sim: Simulator) -> None:
    """After an error event what had come is in the error, and booked as an estimate."""
    sim.script(Answer(text="one two three four five six", fault=Fault("error_event", after_events=2)))
    with pytest.raises(IncompleteReply) as caught:
        list(llmnb.LLM("openai:gpt-4o", cache=False).stream("Count"))
    assert caught.value.partial.startswith("one two")
    row = llmnb.calls().iloc[0]
    assert (row["status"], row["error_type"], bool(row["estimated"])) == ("error", "overloaded_error", True)


def test_two_keys_at_one_address_are_two_accounts(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has limits of its own; an answer is the same whoever paid for it; no file has a key, nor a plain hash."""
    known, settings = pacer(load()).known, load()
    llm = llmnb.LLM("openai:gpt-4o")
    llm("Hi")
    theirs = openai.OpenAI(api_key=sim.api_key, base_url=f"{sim.url}/v1")
    llmnb.LLM("openai:gpt-4o", client=theirs)("Hello")
    assert len(known) == 1  # the same account, whoever made its client
    other = "sk-other"
    monkeypatch.setenv("OPENAI_API_KEY", other)
    llm("Good day")
    assert len(known) == 2
    assert llm("Hi").source == "cache"
    assert llmnb.usage()["calls"].sum() == 4
    kept = b"".join(path.read_bytes() for path in settings.home.rglob("*") if path.is_file())
    for key in (sim.api_key.encode(), other.encode()):
        assert key not in kept
        assert hashlib.sha256(key).hexdigest().encode() not in kept
