"""Breakpoints through real clients and a simulated API: what is sent, what it saves to the nano-dollar, and why not."""

from __future__ import annotations

import copy
import gc
from collections.abc import Iterator
from typing import Any

import anthropic
import pandas as pd
import pytest
from anthropic import APIRequest
from anthropic._models import FinalRequestOptions
from pydantic import BaseModel

import llmnb
from llmnb.middleware import placement as room
from llmnb.middleware.marking import MarkingPart
from llmnb.middleware.sightings import Sightings
from llmnb.records import calling
from llmnb.settings import load
from llmnb.simulator import Clock, Simulator
from llmnb.simulator.answer import Answer
from llmnb.simulator.fault import Fault
from llmnb.testing import serve_simulator

from .conftest import rows

GUIDE = "Write plainly, and say what you measured. " * 200
MARK = {"type": "ephemeral"}
HOUR = {"type": "ephemeral", "ttl": "1h"}
INPUT, READ, WRITE_5M, WRITE_1H = 2_000, 100, 2_500, 4_000
"""Nano-dollars a token of claude-sonnet-5-5: $2, $0.10, $2.50 and $4 per million."""


@pytest.fixture
def clock() -> Clock:
    """The time of the server and of what llmnb remembers."""
    return Clock.jumping(1_795_000_000.0)


@pytest.fixture
def sim(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """A simulated API, and a memory that is empty and keeps the same time."""
    monkeypatch.setattr(room, "sightings", Sightings(clock.now))
    with serve_simulator(clock=clock) as running:
        yield running
        while _open:
            _open.pop().close()
        assert running.crashes == []


_open: list[anthropic.Anthropic] = []


def plain(sim: Simulator, **options: Any) -> anthropic.Anthropic:
    """A client of the SDK; the fixture closes it."""
    _open.append(sim.client(**options))
    return _open[-1]


def wrapped(sim: Simulator, mode: Any = "5m", **options: Any) -> anthropic.Anthropic:
    """A client whose prompts are cached."""
    return llmnb.wrap(plain(sim, **options), prompt_cache=mode)


def ask(*contents: Any, **more: Any) -> dict[str, Any]:
    """The arguments of a call whose messages have these contents, from user and assistant in turn."""
    messages = [
        {"role": "assistant" if number % 2 else "user", "content": content} for number, content in enumerate(contents)
    ]
    return {"model": "claude-sonnet-5-5", "max_tokens": 300, "messages": messages} | more


def sent(sim: Simulator) -> dict[str, Any]:
    """The body of the last request."""
    body = sim.requests[-1].body
    assert body is not None
    return body


def last(name: str) -> Any:
    """A column of the last row."""
    return rows()[-1][name]


def reasons() -> list[str | None]:
    """Why the cache was missed, call by call."""
    return [row["cache_miss_reason"] if isinstance(row["cache_miss_reason"], str) else None for row in rows()]


# What is sent ---------------------------------------------------------------------------------------------------------


def test_nothing_is_marked_unless_asked(sim: Simulator) -> None:
    """A wrapped client sends requests as they are; None says so, too, and a wrong value is refused."""
    for client in (llmnb.wrap(plain(sim)), llmnb.wrap(plain(sim), prompt_cache=None), wrapped(sim, "off")):
        client.messages.create(**ask("Hi", system=GUIDE))
        assert sent(sim)["system"] == GUIDE
    assert not any(isinstance(part, MarkingPart) for part in llmnb.wrap(plain(sim)).middleware)
    with pytest.raises(llmnb.InvalidRequest, match='"5m", "1h", "auto" or None, not \'10m\''):
        llmnb.wrap(plain(sim), prompt_cache="10m")  # type: ignore[arg-type]


def test_wrapping_again_keeps_the_mode(sim: Simulator) -> None:
    """It is replaced where another is given, and there is one part however often a client is wrapped."""
    again = llmnb.wrap(wrapped(sim, "1h"), tag="t")
    again.messages.create(**ask("Hi", system=GUIDE))
    assert sent(sim)["system"][0]["cache_control"] == HOUR
    off = llmnb.wrap(again, prompt_cache=None)
    off.messages.create(**ask("Hi", system=GUIDE))
    assert sent(sim)["system"] == GUIDE
    assert sum(isinstance(part, MarkingPart) for part in off.middleware) == 1


def test_what_the_caller_holds_is_not_changed(sim: Simulator) -> None:
    """Lists, dicts and texts stay as they were, over several calls."""
    arguments = ask([{"type": "text", "text": GUIDE}], "Yes", "And?", system=[{"type": "text", "text": GUIDE}])
    before = copy.deepcopy(arguments)
    client = wrapped(sim, "1h")
    for _ in range(3):
        client.messages.create(**arguments)
    assert arguments == before
    assert sent(sim)["system"][0]["cache_control"] == HOUR


def test_only_what_makes_a_model_write_is_marked(sim: Simulator) -> None:
    """Counting tokens and batches go out as they are."""
    client = wrapped(sim)
    client.messages.count_tokens(model="claude-sonnet-5-5", messages=ask("Hi")["messages"], system=GUIDE)
    assert sent(sim)["system"] == GUIDE
    client.messages.batches.create(requests=[{"custom_id": "a", "params": ask("Hi", system=GUIDE)}])
    assert sent(sim)["requests"][0]["params"]["system"] == GUIDE
    assert rows() == []


class City(BaseModel):
    """A schema for structured output."""

    name: str


def test_every_way_to_ask(sim: Simulator) -> None:
    """create, stream, parse, raw responses and the beta API are marked and answered as ever, and every one reads."""
    client = wrapped(sim)
    arguments = ask("Hi", system=GUIDE)
    client.messages.create(**arguments)
    written = last("cache_write_5m_tokens")
    assert client.messages.create(**arguments).usage.cache_read_input_tokens == written > 1000
    with client.messages.stream(**arguments) as stream:
        assert stream.get_final_message().usage.cache_read_input_tokens == written
    assert client.messages.parse(**arguments, output_format=City).parsed_output is not None
    assert client.messages.with_raw_response.create(**arguments).parse().content
    with client.messages.with_streaming_response.create(**arguments) as response:
        assert response.json()["type"] == "message"
    list(client.messages.create(**arguments, stream=True))
    assert client.beta.messages.create(**arguments).usage.cache_read_input_tokens == written
    assert [row["cache_breakpoints"] for row in rows()] == [1] * 8
    assert [row["cache_read_tokens"] for row in rows()] == [0] + [written] * 7
    assert sum(row["cost_nanousd"] for row in rows()) == sim.billed().price_nanousd


async def test_async_clients(sim: Simulator) -> None:
    """The same part serves them."""
    async with sim.async_client() as made:
        client = llmnb.wrap(made, prompt_cache="1h")
        for _ in range(2):
            message = await client.messages.create(**ask("Hi", system=GUIDE))
    assert message.usage.cache_read_input_tokens == rows()[0]["cache_write_1h_tokens"] > 1000


def test_a_call_can_say_otherwise(sim: Simulator) -> None:
    """The context of a call goes before the client's mode."""
    client = wrapped(sim, "off")
    with calling(prompt_cache="1h"):
        client.messages.create(**ask("Hi", system=GUIDE))
    assert sent(sim)["system"][0]["cache_control"] == HOUR


def test_a_retry_sends_the_same(sim: Simulator) -> None:
    """Attempts of one call carry the same breakpoints, and only one that was answered is remembered."""
    client = wrapped(sim, "auto", max_retries=2)
    sim.fail(Fault("overloaded"), times=2)
    client.messages.create(**ask("Hi", system=GUIDE))
    assert [seen.body["system"] for seen in sim.requests] == [GUIDE] * 3
    sim.fail(Fault("overloaded"), times=1)
    client.messages.create(**ask("Hi", system=GUIDE))
    first, second = sim.requests[-2:]
    assert first.body == second.body
    assert first.body["system"][0]["cache_control"] == MARK


def test_what_a_reply_keeps_of_its_marks_holds_no_prompt(sim: Simulator) -> None:
    """A loop over long documents keeps its replies, and not each prompt a second time."""
    found: list[Any] = []
    with calling(on_marked=found.append):
        wrapped(sim, "auto").messages.create(**ask(f"{GUIDE} And?", system=GUIDE))
    seen: set[int] = set()
    open_ = [found[0]]
    while open_:
        one = open_.pop()
        if id(one) in seen or isinstance(one, (type, type(sim), type(copy))) or callable(one):
            continue
        seen.add(id(one))
        assert not (isinstance(one, str) and len(one) > 1_000)
        open_ += gc.get_referents(one)
    assert len(seen) > 50


def test_a_fault_in_here_does_not_stop_a_call(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails while marking is said once, and the request goes out as it is."""

    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(room, "outline", broken)
    client = wrapped(sim)
    with pytest.warns(UserWarning, match="placing the prompt cache's breakpoints"):
        client.messages.create(**ask("Hi", system=GUIDE))
    assert sent(sim)["system"] == GUIDE
    assert last("status") == "ok"


def test_a_fault_after_the_answer_does_not_lose_its_row(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails while finding out about the cache is said once; the row is on the books."""

    def broken(*_: object) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(Sightings, "settled", broken)
    with pytest.warns(UserWarning, match="why the prompt cache was missed"):
        wrapped(sim).messages.create(**ask("Hi", system=GUIDE))
    assert last("cache_write_5m_tokens") > 1000


# Money ----------------------------------------------------------------------------------------------------------------


def run(sim: Simulator, mode: Any, conversation: list[dict[str, Any]]) -> int:
    """The simulator's bill for the calls, in nano-dollars."""
    sim.clear_prompt_cache()
    before = sim.billed().price_nanousd
    client = wrapped(sim, mode)
    for arguments in conversation:
        client.messages.create(**arguments)
    return sim.billed().price_nanousd - before


def test_saved_is_the_difference_of_two_bills(sim: Simulator) -> None:
    """What rows say was saved is what the API bills without breakpoints less what it bills with them, exactly."""
    turns: list[Any] = [GUIDE]
    conversation = []
    for number in range(5):
        conversation.append(ask(*turns, system=GUIDE))
        turns += ["Yes.", f"And number {number}? " * 20]
    without = run(sim, "off", conversation)
    for mode in ("5m", "1h"):
        booked = len(rows())
        with_them = run(sim, mode, conversation)
        new = rows()[booked:]
        assert sum(row["cost_nanousd"] for row in new) == with_them
        saved = [round(row["saved_usd"] * 1e9) for row in new]
        assert sum(saved) == without - with_them
        assert saved[0] < 0 < saved[-1]


def test_saved_by_hand(sim: Simulator) -> None:
    """Written: 0.25 of the input price lost for five minutes, all of it for an hour; read: 0.95 of it saved."""
    client = wrapped(sim, "5m")
    for _ in range(2):
        client.messages.create(**ask("Hi", system=GUIDE))
    write, read = rows()
    tokens = write["cache_write_5m_tokens"]
    assert tokens > 1000
    assert round(write["saved_usd"] * 1e9) == tokens * (INPUT - WRITE_5M) == -tokens * 500
    assert round(read["saved_usd"] * 1e9) == tokens * (INPUT - READ) == tokens * 1_900
    sim.clear_prompt_cache()
    wrapped(sim, "1h").messages.create(**ask("Hi", system=GUIDE))
    assert round(last("saved_usd") * 1e9) == tokens * (INPUT - WRITE_1H)


def test_a_model_without_a_price(sim: Simulator) -> None:
    """What was saved is then not known."""
    sim.rule(Answer("Hi", model="nobody-knows"))
    wrapped(sim).messages.create(**ask("Hi", system=GUIDE))
    assert last("cache_write_5m_tokens") > 0
    assert pd.isna(last("saved_usd"))
    assert pd.isna(last("cost_usd"))


def test_auto_leaves_a_model_alone_whose_cache_saves_nothing(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """A price of the user's own without a discount for reading: no breakpoint could pay, and none is set."""
    monkeypatch.setenv("LLMNB_PRICES", '{"claude-sonnet-5-5": {"input": "2", "output": "10"}}')
    client = wrapped(sim, "auto")
    for _ in range(3):
        client.messages.create(**ask("Hi", system=GUIDE))
    assert modes(sim) == [None] * 3


def test_a_call_without_any_cache_says_nothing_of_savings(sim: Simulator) -> None:
    """Nothing read and nothing written: no number, not 0."""
    wrapped(sim, "auto").messages.create(**ask("Hi"))
    assert pd.isna(last("saved_usd"))
    assert pd.isna(last("cache_breakpoints"))


# "auto" ---------------------------------------------------------------------------------------------------------------


def modes(sim: Simulator) -> list[str | None]:
    """The TTL on the system prompt, request by request."""
    found: list[str | None] = []
    for seen in sim.requests:
        assert seen.body is not None
        system = seen.body["system"]
        found.append(system[0]["cache_control"].get("ttl", "5m") if isinstance(system, list) else None)
    return found


@pytest.mark.parametrize("model", ["claude-3-haiku-20240307", "some-other-model"])
def test_auto_leaves_models_alone_that_may_not_take_breakpoints(model: str) -> None:
    """A default must not make a call fail; asked for by name, they are marked."""
    marking = room.Marking(load(), "auto", memory=Sightings())
    body = ask(GUIDE * 5, "Yes", "And?", system=GUIDE * 5, model=model)
    for mode, expected in (("auto", 0), ("5m", 3)):
        request = APIRequest(
            options=FinalRequestOptions(method="post", url="/v1/messages", json_data=body), cast_to=dict
        )
        for _ in range(3):
            with calling(chat="c", prompt_cache=mode):
                flow = MarkingPart(marking).flow(request)
                outgoing = next(flow)
            assert str(outgoing.json).count("cache_control") == expected


def test_auto_waits_for_a_repetition(sim: Simulator, clock: Clock) -> None:
    """A single question writes nothing; the second within five minutes does, and the third reads it."""
    client = wrapped(sim, "auto")
    for number in range(4):
        client.messages.create(**ask(f"Question {number}?", system=GUIDE))
        clock.advance(60)
    assert modes(sim) == [None, "5m", "5m", "5m"]
    assert [row["cache_read_tokens"] > 0 for row in rows()] == [False, False, True, True]
    assert [str(row["cache_breakpoints"]) for row in rows()] == ["0", "1", "1", "1"]


def test_auto_takes_an_hour_for_slow_questions(sim: Simulator, clock: Clock) -> None:
    """Twenty minutes between them: five minutes would be written every time and never read."""
    client = wrapped(sim, "auto")
    for number in range(4):
        client.messages.create(**ask(f"Question {number}?", system=GUIDE))
        clock.advance(1_200)
    assert modes(sim) == [None, "1h", "1h", "1h"]
    assert [row["cache_read_tokens"] > 0 for row in rows()] == [False, False, True, True]


def test_auto_leaves_rare_questions_alone(sim: Simulator, clock: Clock) -> None:
    """Two hours between them: no TTL would ever be read."""
    client = wrapped(sim, "auto")
    for number in range(4):
        client.messages.create(**ask(f"Question {number}?", system=GUIDE))
        clock.advance(7_200)
    assert modes(sim) == [None] * 4


def test_auto_caches_a_chat_from_its_first_turn(sim: Simulator) -> None:
    """A conversation is there to go on."""
    client = wrapped(sim, "auto")
    with calling(chat="c"):
        client.messages.create(**ask(GUIDE))
        client.messages.create(**ask(GUIDE, "Yes.", "And?"))
    assert rows()[0]["cache_write_5m_tokens"] == rows()[1]["cache_read_tokens"] > 1000


@pytest.mark.parametrize("mode", ["5m", "auto"])
def test_examples_before_a_question_are_read(sim: Simulator, mode: str) -> None:
    """A loop over questions behind the same worked examples, which are turns of a conversation that never goes on."""
    client = wrapped(sim, mode)
    for number in range(4):
        client.messages.create(**ask(GUIDE, "Positive.", f"And number {number}?"))
    assert [row["cache_read_tokens"] > 1000 for row in rows()] == [False, True, True, True]
    assert all(row["cache_write_5m_tokens"] < 50 for row in rows()[1:])


def test_auto_gives_up_on_chats_that_never_go_on(sim: Simulator) -> None:
    """A chat for every row of a table, each with a long text and one question: it stops paying for their ends."""
    client = wrapped(sim, "auto")
    for number in range(6):
        with calling(chat=f"c{number}"):
            client.messages.create(**ask(f"{number}: {GUIDE}"))
    written = [row["cache_write_5m_tokens"] > 0 for row in rows()]
    assert written[0]
    assert written[-2:] == [False, False]


def test_auto_learns_that_a_chat_is_slow(sim: Simulator, clock: Clock) -> None:
    """Someone who thinks for ten minutes gets an hour, from the second turn on."""
    client = wrapped(sim, "auto")
    turns: list[Any] = [GUIDE]
    with calling(chat="c"):
        for _ in range(4):
            client.messages.create(**ask(*turns))
            turns += ["Yes.", "And?"]
            clock.advance(600)
    hour = [row["cache_write_1h_tokens"] > 0 for row in rows()]
    assert hour == [False, True, True, True]
    assert [row["cache_read_tokens"] > 0 for row in rows()] == [False, False, True, True]


def test_auto_never_loses(sim: Simulator, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the habit of whoever asks the same thing again and again, it costs no more than without a cache."""
    for gap in (1, 30, 290, 310, 900, 3_500, 3_700, 8_000):
        monkeypatch.setattr(room, "sightings", Sightings(clock.now))
        conversation = [ask(f"Question {number}?", system=f"{gap}: {GUIDE}") for number in range(8)]
        without = run(sim, "off", conversation)
        sim.clear_prompt_cache()
        before = sim.billed().price_nanousd
        client = wrapped(sim, "auto")
        for arguments in conversation:
            client.messages.create(**arguments)
            clock.advance(gap)
        assert sim.billed().price_nanousd - before <= without


def test_auto_takes_new_prompts_for_like_those_before(sim: Simulator) -> None:
    """Where each new system prompt was soon used again, the next one is cached at once; and the other way round."""
    client = wrapped(sim, "auto")
    for number in range(3):
        for _ in range(2):
            client.messages.create(**ask("Hi", system=f"{number}: {GUIDE}"))
    assert modes(sim) == [None, "5m", "5m", "5m", "5m", "5m"]
    for number in range(20):
        client.messages.create(**ask("Hi", system=f"Once, {number}: {GUIDE}"))
    assert modes(sim)[6] == "5m"
    assert modes(sim)[-5:] == [None] * 5


def test_two_servers_are_two_caches(sim: Simulator) -> None:
    """What was sent with another key says nothing: the API keeps their entries apart."""
    wrapped(sim, "auto", api_key="sk-ant-one").messages.create(**ask("Hi", system=GUIDE))
    wrapped(sim, "auto", api_key="sk-ant-two").messages.create(**ask("Hi", system=GUIDE))
    assert modes(sim) == [None, None]


# Tool loops and threads -----------------------------------------------------------------------------------------------


def test_the_tool_runner_reads_what_it_wrote(sim: Simulator) -> None:
    """On threads, as it works by default: each turn reads the one before, and the loop comes out as ever."""

    @anthropic.beta_tool
    def weather(city: str) -> str:
        """Today's weather in a city."""
        return f"Sunny in {city}. " + GUIDE

    client = wrapped(sim)
    runner = client.beta.messages.tool_runner(
        **ask("What is the weather in Oslo?", system=GUIDE), tools=[weather]
    )  # fmt: skip
    assert "Sunny" in str(runner.until_done().content)
    first, second = rows()
    assert first["cache_write_5m_tokens"] > 1000
    assert second["cache_read_tokens"] == first["cache_write_5m_tokens"]
    assert second["cache_write_5m_tokens"] > 1000
    assert "thread" in sent(sim)
    assert sum(row["cost_nanousd"] for row in rows()) == sim.billed().price_nanousd


def test_long_threads_go_through(sim: Simulator) -> None:
    """Turn after turn reads what the ones before wrote, also after the server has forgotten the thread."""
    client = wrapped(sim)
    thread = client.beta.messages.thread(model="claude-sonnet-5-5", max_tokens=100, system=GUIDE)
    for number in range(8):
        if number == 5:
            sim.forget_threads()
        thread.send({"role": "user", "content": f"Question {number}? " * 30})
    read = [row["cache_read_tokens"] for row in rows() if row["status"] == "ok"]
    assert read[:5] == sorted(read[:5])
    assert read[5:] == sorted(read[5:])
    assert min(read[1:]) > 1000
    assert set(reasons()) == {None}


def test_without_threads_the_loop_is_marked_alike(sim: Simulator) -> None:
    """A loop that sends its whole history reads what it wrote."""

    @anthropic.beta_tool
    def weather(city: str) -> str:
        """Today's weather in a city."""
        return f"Sunny in {city}."

    client = wrapped(sim, "auto")
    list(client.beta.messages.tool_runner(**ask("Weather in Oslo?", system=GUIDE), tools=[weather], thread=False))
    first, second = rows()
    assert second["cache_read_tokens"] == first["cache_write_5m_tokens"] > 1000


# Misses ---------------------------------------------------------------------------------------------------------------


def test_expired(sim: Simulator, clock: Clock) -> None:
    """It was there, and five minutes have passed since."""
    client = wrapped(sim)
    client.messages.create(**ask("Hi", system=GUIDE))
    clock.advance(299)
    client.messages.create(**ask("Hi", system=GUIDE))
    clock.advance(299)
    client.messages.create(**ask("Hi", system=GUIDE))
    clock.advance(301)
    client.messages.create(**ask("Hi", system=GUIDE))
    assert reasons() == [None, None, None, "expired"]


def test_a_changed_system_prompt(sim: Simulator) -> None:
    """A time of day in it: every call writes it anew, and says why."""
    client = wrapped(sim)
    for minute in range(3):
        client.messages.create(**ask("Hi", system=f"It is 10:0{minute}. {GUIDE}"))
    assert reasons() == [None, "system_changed", "system_changed"]


def test_two_different_prompts_in_turn_are_no_change(sim: Simulator) -> None:
    """Whoever asks with two system prompts that have nothing in common misses nothing."""
    client = wrapped(sim)
    for number in range(4):
        client.messages.create(**ask("Hi", system=GUIDE if number % 2 else "Be exact. " * 900))
    assert reasons() == [None] * 4


def test_changed_tools(sim: Simulator) -> None:
    """A tool that was added in front of a long system prompt."""
    tool = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}
    client = wrapped(sim)
    client.messages.create(**ask("Hi", system=GUIDE, tools=[tool]))
    client.messages.create(**ask("Hi", system=GUIDE, tools=[tool, tool | {"name": "find"}]))
    assert reasons() == [None, "tools_changed"]


def test_a_changed_message(sim: Simulator) -> None:
    """An earlier turn that was edited: the system prompt is still read, the conversation is not."""
    client = wrapped(sim)
    turns = [f"One. {GUIDE}", "Yes.", f"Two. {GUIDE}", "No.", "Three?"]
    with calling(chat="c"):
        client.messages.create(**ask(*turns[:3], system=GUIDE))
        client.messages.create(**ask(turns[0], "Else.", *turns[2:], system=GUIDE))
    assert reasons() == [None, "messages_changed"]
    assert last("cache_read_tokens") > 1000


def test_changed_settings_and_models_in_a_chat(sim: Simulator) -> None:
    """Thinking changes how messages are read; another model has a cache of its own."""
    client = wrapped(sim)
    with calling(chat="c"):
        client.messages.create(**ask(GUIDE, model="claude-opus-5-5"))
        client.messages.create(**ask(GUIDE, "Yes.", "And?", model="claude-opus-5-5", thinking={"type": "disabled"}))
        client.messages.create(**ask(GUIDE, "Yes.", "And?", "Yes.", "And?"))
    assert reasons() == [None, "settings_changed", "model_changed"]


def test_not_found(sim: Simulator) -> None:
    """Nothing changed and no time has passed: the API has dropped it, which llmnb can only state."""
    client = wrapped(sim)
    client.messages.create(**ask("Hi", system=GUIDE))
    sim.clear_prompt_cache()
    client.messages.create(**ask("Hi", system=GUIDE))
    assert reasons() == [None, "not_found"]


def test_below_the_minimum(sim: Simulator) -> None:
    """Where caching was asked for by name and the prefix is too short, and where the estimate was too high."""
    client = wrapped(sim)
    client.messages.create(**ask("Hi", system="Be brief. " * 20))
    client.messages.create(**ask("Hi", system=GUIDE, model="claude-haiku-4-5"))
    wrapped(sim, "auto").messages.create(**ask("Hi", system="Be brief. " * 20))
    assert reasons() == ["below_minimum", "below_minimum", None]
    assert sent(sim)["system"] == "Be brief. " * 20
    own = [{"type": "text", "text": "Be brief. " * 20, "cache_control": MARK}]
    client.messages.create(**ask("Hi", system=own))
    assert last("cache_miss_reason") == "below_minimum"
    assert last("cache_breakpoints") == 1


def test_what_the_api_says_itself_counts(sim: Simulator) -> None:
    """With `diagnostics` the API compares for itself, also with a request that this process never saw."""
    first = plain(sim).messages.create(
        **ask("Hi", system=[{"type": "text", "text": GUIDE, "cache_control": MARK}]),
        diagnostics={"previous_message_id": None},
    )
    client = wrapped(sim)
    client.messages.create(
        **ask("Hi", system=f"New. {GUIDE}"), diagnostics={"previous_message_id": first.id}
    )  # fmt: skip
    assert reasons() == ["system_changed"]
    client.messages.create(
        **ask("Hi", system=f"Newer {GUIDE}"), diagnostics={"previous_message_id": "msg_gone"}
    )  # fmt: skip
    assert reasons()[-1] == "system_changed"  # the API knows nothing of that message, and llmnb does


def test_concurrent_first_calls_miss_nothing(sim: Simulator) -> None:
    """Calls that were sent together each write; that is no miss of anything written before."""
    from concurrent.futures import ThreadPoolExecutor

    client = wrapped(sim)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: client.messages.create(**ask(f"{number}?", system=GUIDE)), range(16)))
    assert len(rows()) == 16
    assert set(reasons()) <= {None, "not_found"}
    assert sum(row["cost_nanousd"] for row in rows()) == sim.billed().price_nanousd


def test_an_early_end_still_settles(sim: Simulator) -> None:
    """A stream that is closed after its first event has written its prefix, and the next call reads it."""
    client = wrapped(sim, "auto")
    with calling(chat="c"):
        stream = client.messages.create(**ask(GUIDE), stream=True)
        next(iter(stream))
        stream.close()
        client.messages.create(**ask(GUIDE, "Yes.", "And?"))
    assert [row["status"] for row in rows()] == ["cancelled", "ok"]
    assert last("cache_read_tokens") > 1000
    assert reasons() == [None, None]
