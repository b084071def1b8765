"""The response cache behind the SDK: what is answered from it, what is not, what is kept, and what its rows say."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pandas
import pytest

import llmnb
from llmnb.cache.responses import responses
from llmnb.cache.world import depends_on_the_world
from llmnb.messages import folding
from llmnb.middleware.cache import CachePart
from llmnb.records import Caching, calling
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer
from llmnb.simulator.fault import Fault

from .conftest import QUESTION, rows
from .test_answering import comparable
from .test_every_use import BILLABLE, TOOL, WEATHER, City, weather


@pytest.fixture
def client(simulator: Simulator) -> Iterator[anthropic.Anthropic]:
    """A wrapped client with the cache."""
    with simulator.client(max_retries=0) as plain:
        yield llmnb.wrap(plain, cache=True)


def texts(*messages: Any) -> list[str]:
    """What they say."""
    return ["".join(block.text for block in message.content if block.type == "text") for message in messages]


def asked(simulator: Simulator) -> int:
    """How many requests there were."""
    return len(simulator.requests)


# What is answered from it ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lately", [True, False], ids=["just now", "from disk"])
@pytest.mark.parametrize("use", BILLABLE, ids=lambda use: use.__name__)
def test_every_use_of_the_sdk_comes_from_the_cache(
    simulator: Simulator, client: anthropic.Anthropic, use: Callable[[anthropic.Anthropic], Any], lately: bool
) -> None:
    """Equal to the first time, raw and parsed, without a request; each is a row that cost nothing."""
    first = use(client)
    if not lately:
        responses().settle()
    count = asked(simulator)
    assert comparable(use(client)) == comparable(first)
    assert asked(simulator) == count == BILLABLE[use]
    simulator.settle()
    live, hits = rows()[:count], rows()[count:]
    assert [row["source"] for row in hits] == ["cache"] * count
    assert [row["status"] for row in hits] == ["ok"] * count
    assert [row["cost_nanousd"] for row in hits] == [0] * count
    assert [row["saved_usd"] for row in hits] == [row["cost_usd"] for row in live]
    assert sum(row["cost_nanousd"] for row in rows()) == simulator.billed().price_nanousd


async def test_async_clients_share_the_cache(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """What a sync client asked, an async one has, parsed, streamed and raw."""
    first = client.messages.create(**QUESTION)
    parsed = client.messages.parse(**QUESTION, output_format=City)
    count = asked(simulator)
    async with simulator.async_client() as plain:
        twin = llmnb.wrap(plain, cache=True)
        assert (await twin.messages.create(**QUESTION)).to_dict() == first.to_dict()
        async with twin.messages.stream(**QUESTION) as stream:
            assert texts(await stream.get_final_message()) == texts(first)
        assert (await twin.messages.parse(**QUESTION, output_format=City)).parsed_output == parsed.parsed_output
        raw = await twin.messages.with_raw_response.create(**QUESTION)
        assert (await raw.parse()).to_dict() == first.to_dict()
        streamed = [event async for event in await twin.messages.create(**QUESTION, stream=True)]
        assert folding.message_of([event.to_dict() for event in streamed])["id"] == first.id
    assert asked(simulator) == count


@pytest.mark.parametrize("first_streamed", [True, False])
def test_streaming_and_not_share_an_entry(
    simulator: Simulator, client: anthropic.Anthropic, first_streamed: bool
) -> None:
    """Whichever came first."""

    def ask(streamed: bool) -> anthropic.types.Message:
        if not streamed:
            return client.messages.create(**QUESTION)
        with client.messages.stream(**QUESTION) as stream:
            return stream.get_final_message()

    first, again = ask(first_streamed), ask(not first_streamed)
    assert again.to_dict() | {"stop_details": None} == first.to_dict() | {"stop_details": None}
    assert asked(simulator) == 1


def test_another_question_is_not_answered(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """Other words, another model, another setting, another beta: each is asked."""
    client.messages.create(**QUESTION)
    other = [{"role": "user", "content": "Explain something else."}]
    client.messages.create(**{**QUESTION, "messages": other})
    client.messages.create(**{**QUESTION, "model": "claude-opus-5-5"})
    client.messages.create(**QUESTION, system="Be brief.")
    client.messages.create(**QUESTION, extra_headers={"anthropic-beta": "some-beta"})
    client.with_options(default_headers={"anthropic-beta": "other-beta"}).messages.create(**QUESTION)
    assert asked(simulator) == 6
    assert [row["source"] for row in rows()] == ["live"] * 6
    client.beta.messages.create(**QUESTION)  # without any beta: the very same request as the first
    assert asked(simulator) == 6


def test_a_copy_of_the_client_with_another_address_asks_there(client: anthropic.Anthropic) -> None:
    """`with_options(base_url=…)` shares the middleware, but not the answers."""
    from llmnb.testing import serve_simulator

    first = client.messages.create(**QUESTION)
    with serve_simulator() as elsewhere:
        elsewhere.script("From elsewhere.")
        there = client.with_options(base_url=elsewhere.url)
        assert texts(there.messages.create(**QUESTION)) == ["From elsewhere."]
        assert len(elsewhere.requests) == 1
    assert client.messages.create(**QUESTION).id == first.id


def test_where_breakpoints_are_and_who_asks_does_not_matter(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """The user's own cache_control and metadata."""
    blocks = [{"type": "text", "text": "Be brief. " * 500}]
    client.messages.create(**QUESTION, system=blocks)
    marked = [{**blocks[0], "cache_control": {"type": "ephemeral"}}]
    client.messages.create(**QUESTION, system=marked, metadata={"user_id": "me"})
    assert asked(simulator) == 1


# What is not kept -----------------------------------------------------------------------------------------------------

ERRORS = ["status", "overloaded", "reset_before_headers"]
CUT_OFF = ["truncate", "drop", "reset", "error_event", "bad_json"]


@pytest.mark.parametrize("kind", ERRORS)
def test_errors_are_not_kept(simulator: Simulator, client: anthropic.Anthropic, kind: str) -> None:
    """They reach the caller unchanged, each time."""
    for _ in range(2):
        simulator.fail(kind)
        with pytest.raises(anthropic.APIError):
            client.messages.create(**QUESTION)
    assert texts(client.messages.create(**QUESTION)) != [""]
    assert asked(simulator) == 3


@pytest.mark.parametrize("kind", CUT_OFF)
def test_a_stream_that_broke_off_is_not_kept(simulator: Simulator, client: anthropic.Anthropic, kind: str) -> None:
    """Half an answer is no answer."""
    simulator.fail(kind, after_events=2)
    broke = (anthropic.APIError, httpx2.TransportError, ValueError)
    with pytest.raises(broke) if kind != "truncate" else nullcontext():
        for _ in client.messages.create(**QUESTION, stream=True):
            pass
    responses().settle()
    whole = list(client.messages.create(**QUESTION, stream=True))
    assert whole[-1].type == "message_stop"
    assert asked(simulator) == 2


def test_a_stream_that_was_left_is_not_kept(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """By break, by close, by being dropped; one that was closed after its end is."""
    for event in client.messages.create(**QUESTION, stream=True):
        if event.type == "content_block_delta":
            break
    client.messages.create(**QUESTION, stream=True).close()
    client.messages.create(**QUESTION, stream=True)
    with client.messages.stream(**QUESTION) as stream:
        stream.until_done()
    assert asked(simulator) == 4
    with client.messages.stream(**QUESTION) as stream:
        stream.until_done()
    assert asked(simulator) == 4


def test_refusals_are_not_kept(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """Another day another answer."""
    simulator.script(Answer(refusal="cyber"))
    assert client.messages.create(**QUESTION).stop_reason == "refusal"
    assert client.messages.create(**QUESTION).stop_reason == "end_turn"
    assert client.messages.create(**QUESTION).stop_reason == "end_turn"
    assert asked(simulator) == 2


def test_filling_the_prompt_cache_is_never_answered_from_disk(
    simulator: Simulator, client: anthropic.Anthropic
) -> None:
    """max_tokens=0 is sent for what it does to the server."""
    for _ in range(2):
        client.messages.create(**{**QUESTION, "max_tokens": 0})
    assert asked(simulator) == 2


def test_counting_tokens_and_models_pass_through(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """What is free is not kept."""
    for _ in range(2):
        client.messages.count_tokens(model=QUESTION["model"], messages=QUESTION["messages"])
        client.models.retrieve(QUESTION["model"])
    assert asked(simulator) == 4
    assert rows() == []


SEARCH: dict[str, Any] = {"type": "web_search_20250305", "name": "web_search"}


def test_server_tools_are_cached_only_when_asked_for(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """The web of tomorrow says something else; "all" takes it as it was."""
    for _ in range(2):
        client.messages.create(**QUESTION, tools=[SEARCH])
    assert asked(simulator) == 2
    everything = llmnb.wrap(client, cache="all")
    for _ in range(2):
        everything.messages.create(**QUESTION, tools=[SEARCH])
    assert asked(simulator) == 3


def test_tools_that_the_caller_runs_are_cached() -> None:
    """Unknown types may read the world, and count as if they did."""
    assert not depends_on_the_world({"tools": [TOOL, {**TOOL, "type": "custom"}]})
    assert not depends_on_the_world({"tools": [{"type": "bash_20250124", "name": "bash"}]})
    assert not depends_on_the_world({})
    assert depends_on_the_world({"tools": [SEARCH]})
    assert depends_on_the_world({"tools": [{"type": "code_execution_20260521", "name": "c"}]})
    assert depends_on_the_world({"tools": [{"type": "crystal_ball_20270101", "name": "c"}]})
    assert depends_on_the_world({"container": "c1"})
    assert depends_on_the_world({"mcp_servers": [{"url": "https://x"}]})


# Off, on, and what a call can say -------------------------------------------------------------------------------------


def test_wrap_leaves_the_cache_off(simulator: Simulator) -> None:
    """Unless it is asked for; a second wrap keeps what the first said, or changes it."""
    with simulator.client() as plain:
        assert not _has_cache(llmnb.wrap(plain))
        cached = llmnb.wrap(plain, cache=True)
        assert _has_cache(cached)
        assert _has_cache(llmnb.wrap(cached, project="p"))
        assert not _has_cache(llmnb.wrap(cached, cache=False))


def _has_cache(client: anthropic.Anthropic) -> bool:
    return any(isinstance(part, CachePart) for part in client.middleware)


def test_the_setting_switches_it_off_for_everybody(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also for what code asks for."""
    monkeypatch.setenv("LLMNB_CACHE", "off")
    with simulator.client() as plain:
        client = llmnb.wrap(plain, cache=True)
        for _ in range(2):
            client.messages.create(**QUESTION)
    assert asked(simulator) == 2


def test_fresh_asks_again_and_replaces(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """From then on the new answer is given; one that fails leaves the old one."""
    simulator.script("one", "two", Answer(text="three", fault=Fault("status", status=400)))
    assert texts(client.messages.create(**QUESTION)) == ["one"]
    with calling(caching=Caching(fresh=True)):
        assert texts(client.messages.create(**QUESTION)) == ["two"]
        with pytest.raises(anthropic.BadRequestError):
            client.messages.create(**QUESTION)
    assert texts(client.messages.create(**QUESTION)) == ["two"]


def test_samples_are_kept_each_for_itself(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """0 is the one that is meant when none is named."""
    simulator.script("zero", "one", "two")

    def sample(number: int) -> str:
        with calling(caching=Caching(sample=number)):
            return texts(client.messages.create(**QUESTION))[0]

    assert texts(client.messages.create(**QUESTION)) == ["zero"]
    assert [sample(number) for number in (1, 2, 0, 1, 2)] == ["one", "two", "zero", "one", "two"]


def test_a_stream_at_reading_speed(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """Word by word, in the same words."""
    simulator.script("one two three four five six")
    first = client.messages.create(**QUESTION)
    with calling(caching=Caching(words_per_s=50)):
        begin = time.monotonic()
        with client.messages.stream(**QUESTION) as stream:
            pieces = list(stream.text_stream)
        assert time.monotonic() - begin >= 5 / 50
        assert pieces == ["one", " two", " three", " four", " five", " six"]
        assert stream.get_final_message().id == first.id
    assert asked(simulator) == 1


async def test_a_stream_at_reading_speed_does_not_hold_the_loop(
    simulator: Simulator, client: anthropic.Anthropic
) -> None:
    """The pauses of two streams pass together."""
    import asyncio

    simulator.script("one two three four five six")
    client.messages.create(**QUESTION)
    async with simulator.async_client() as plain:
        twin = llmnb.wrap(plain, cache=True)

        async def read() -> str:
            async with twin.messages.stream(**QUESTION) as stream:
                return "".join([piece async for piece in stream.text_stream])

        with calling(caching=Caching(words_per_s=20)):
            begin = time.monotonic()
            assert set(await asyncio.gather(*(read() for _ in range(5)))) == {"one two three four five six"}
            assert 0.25 <= time.monotonic() - begin < 1.0


# What comes back in odd forms -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["gzip", "split_utf8", "comments", "unknown_events", "unknown_blocks", "json_for_sse"])
def test_odd_answers_come_back_as_the_same_message(
    simulator: Simulator, client: anthropic.Anthropic, kind: str
) -> None:
    """Compressed, cut in the middle of characters, with what no SDK knows, or JSON where a stream was asked for."""
    simulator.script(Answer(text="Wörter und Bäume", fault=Fault(kind)))

    def read() -> Any:
        stream = client.messages.create(**QUESTION, stream=True)
        if kind == "json_for_sse" and not asked_once:
            return json.loads(stream.response.read())
        return folding.folded([event.model_dump(warnings=False) for event in stream])

    asked_once = False
    first = read()
    asked_once = True
    responses().settle()
    again = read()
    if kind == "json_for_sse":  # the second time it is the stream that was asked for
        first, again = first["content"][0]["text"], folding.message_of(again)["content"][0]["text"]
    assert again == first
    assert asked(simulator) == 1


def test_a_stream_of_which_no_message_can_be_made_is_asked_again_in_one_piece(
    simulator: Simulator, client: anthropic.Anthropic
) -> None:
    """As a stream it is answered; the answer in one piece then serves both."""
    simulator.script(Answer(text="odd", fault=Fault("unknown_events")))
    list(client.messages.create(**QUESTION, stream=True))
    list(client.messages.create(**QUESTION, stream=True))
    assert asked(simulator) == 1
    client.messages.create(**QUESTION)
    client.messages.create(**QUESTION)
    list(client.messages.create(**QUESTION, stream=True))
    assert asked(simulator) == 2


def test_many_deltas_are_kept_as_few(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """A hit costs the same however many there were."""
    simulator.script(Answer(text="word " * 3_000, deltas=3_000))
    question = {**QUESTION, "max_tokens": 20_000}
    assert len(list(client.messages.create(**question, stream=True))) > 3_000
    assert len(list(client.messages.create(**question, stream=True))) == 6
    responses().settle()
    assert len(list(client.messages.create(**question, stream=True))) == 6


# Rows -----------------------------------------------------------------------------------------------------------------


def test_the_row_of_a_hit(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """Nothing was billed, so it has no tokens; it says who answered, how it ended and what it saved."""
    client.messages.create(**QUESTION)
    client.messages.create(**QUESTION)
    live, hit = rows()
    assert (hit["input_tokens"], hit["output_tokens"], hit["cost_nanousd"]) == (0, 0, 0)
    assert hit["saved_usd"] == live["cost_usd"] > 0
    assert (hit["model"], hit["stop_reason"]) == (live["model"], live["stop_reason"])
    assert not hit["estimated"]
    assert hit["uid"] != live["uid"]
    total = llmnb.usage(by=[]).to_dict("records")[0]
    assert total["cost_nanousd"] == live["cost_nanousd"]
    assert total["input_tokens"] == live["input_tokens"]


def test_what_is_saved_counts_what_was_billed_beside_the_answer(
    simulator: Simulator, client: anthropic.Anthropic
) -> None:
    """A compaction is paid once, too."""
    iterations = [
        {"type": "compaction", "input_tokens": 1_000, "output_tokens": 100},
        {"type": "message", "input_tokens": 100, "output_tokens": 10},
    ]
    simulator.script(Answer(text="Hi", usage={"input_tokens": 100, "output_tokens": 10, "iterations": iterations}))
    client.messages.create(**QUESTION)
    client.messages.create(**QUESTION)
    every = llmnb.calls(children=True).to_dict("records")
    paid = [row["cost_usd"] for row in every if row["source"] == "live"]
    [saved] = [row["saved_usd"] for row in every if row["source"] == "cache"]
    assert len(paid) == 2
    assert saved == sum(paid)


def test_an_unpriced_answer_saves_an_unknown_sum(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """It costs nothing all the same."""
    simulator.script(Answer(text="Hi", model="claude-of-tomorrow"))
    for _ in range(2):
        client.messages.create(**QUESTION)
    live, hit = rows()
    assert pandas.isna(live["cost_usd"])
    assert (hit["source"], hit["cost_nanousd"]) == ("cache", 0)
    assert pandas.isna(hit["saved_usd"])


def test_the_content_of_a_hit_is_logged_when_asked_for(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """As that of any other call."""
    with calling(log_content=True):
        client.messages.create(**QUESTION)
        client.messages.create(**QUESTION)
    hit, live = (json.loads(row["content"]) for row in llmnb.calls(content=True).to_dict("records"))
    assert json.loads(hit["response"]) == json.loads(live["response"])


def test_the_tool_runner_goes_turn_by_turn(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """The second run asks nothing, and runs the tools as the first did."""

    def run() -> list[str]:
        runner = client.beta.messages.tool_runner(**WEATHER, tools=[weather])
        return [message.to_json() for message in runner]

    first = run()
    responses().settle()
    count = asked(simulator)
    assert run() == first
    assert asked(simulator) == count == 2


def test_nothing_of_the_cache_is_imported_where_it_is_off(tmp_path: Path) -> None:
    """`import llmnb` and a plain wrap load no diskcache."""
    import subprocess
    import sys

    code = (
        "import sys, anthropic, llmnb; llmnb.wrap(anthropic.Anthropic(api_key='k'));"
        "print([name for name in ('diskcache', 'redis') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
