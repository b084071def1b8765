"""The loop with tools: what is asked and run, what a failure does, where it ends, and what is not run twice."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import pickle
import re
import signal
import subprocess
import threading
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest

import llmnb
from llmnb.errors import IncompleteReply, InvalidRequest, ToolLoopLimit
from llmnb.events import Done, StreamEvent, Text, ToolCall, ToolResult
from llmnb.reply import Reply
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer
from llmnb.simulator.fault import Fault
from llmnb.views import views

from .. import processes


def look(city: str) -> str:
    """Looks out of the window."""
    return f"rain in {city}"


async def alook(city: str) -> str:
    """Looks out of the window, without haste."""
    await asyncio.sleep(0)
    return f"sun in {city}"


def calls(*asked: tuple[str, dict[str, Any]], text: str = "Let me see.") -> Answer:
    """An answer that asks for tools."""
    return Answer(text=text, tool_calls=asked)


OSLO = ("look", {"city": "Oslo"})
ROME = ("look", {"city": "Rome"})


def results(sim: Simulator, at: int = -1) -> list[tuple[Any, bool]]:
    """The tool results in a request, with whether each is an error."""
    blocks = sim.requests[at].body["messages"][-1]["content"]
    return [(block["content"], block.get("is_error", False)) for block in blocks]


class Counted:
    """A tool that says how often it ran."""

    def __init__(self, fails: bool = False) -> None:
        self.ran: list[str] = []
        self.fails = fails

    def look(self, city: str) -> str:
        """Looks out of the window."""
        self.ran.append(city)
        if self.fails:
            raise ValueError(f"no window in {city}")
        return f"rain in {city}"


# The loop -------------------------------------------------------------------------------------------------------------


async def _drained(events: AsyncGenerator[StreamEvent]) -> list[StreamEvent]:
    return [event async for event in events]


WAYS: dict[str, Callable[[llmnb.LLM], Any]] = {
    "ask": lambda llm: llm.ask("Q"),
    "aask": lambda llm: asyncio.run(llm.aask("Q")),
    "stream": lambda llm: list(llm.stream("Q")),
    "astream": lambda llm: asyncio.run(_drained(llm.astream("Q"))),
    "shown": lambda llm: llm.ask("Q", display="print"),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_asking_runs_the_loop(way: str, sim: Simulator) -> None:
    """Sync and async tools run, their results go back in the order of the calls, and books and bill agree."""
    sim.script(calls(OSLO, ("alook", {"city": "Rome"})), "It rains.")
    came = WAYS[way](llmnb.LLM(tools=[look, alook]))
    assert results(sim) == [("rain in Oslo", False), ("sun in Rome", False)]
    sent = sim.requests[1].body["messages"]
    assert [message["role"] for message in sent] == ["user", "assistant", "user"]
    if isinstance(came, Reply):
        done = came.done()
        assert came.text == "It rains."
        assert [turn.text for turn in came.turns] == ["Let me see.", "It rains."]
        assert [(call.name, result and result.content) for call, result in came.tool_results] == [
            ("look", "rain in Oslo"),
            ("alook", "sun in Rome"),
        ]
    else:
        kinds = [type(event) for event in came if not isinstance(event, Text)]
        assert kinds == [ToolCall, ToolCall, ToolResult, ToolResult, Done]
        done = came[-1]
    row, billed = llmnb.usage(by=[]).iloc[0], sim.billed()
    assert (row["calls"], row["cost_nanousd"]) == (2, billed.price_nanousd)
    assert done.turns == 2
    assert done.usage.total_input_tokens == billed.input_tokens
    assert int(done.cost_usd * 10**9) == billed.price_nanousd


def test_a_reply_of_a_loop_can_be_kept(sim: Simulator) -> None:
    """It survives pickling, its table of costs is of all turns, and it shows its tools as cards."""
    sim.script(calls(OSLO), "It rains.")
    reply = pickle.loads(pickle.dumps(llmnb.LLM(tools=[look])("Q")))
    assert len(reply.turns) == 2
    assert "2 turns" in repr(reply)
    assert sum(line.usd for line in reply.costs().lines) == reply.cost_usd == sum(turn.cost_usd for turn in reply.turns)
    assert "rain in Oslo" in reply._repr_mimebundle_()["text/html"]


def test_tools_of_a_turn_run_side_by_side(sim: Simulator) -> None:
    """Each of two tools waits for the other one to have begun."""
    both = threading.Barrier(2, timeout=30)

    def meet(city: str) -> str:
        """Meets the other."""
        both.wait()
        return city

    sim.script(calls(("meet", {"city": "a"}), ("meet", {"city": "b"})), "Met.")
    assert llmnb.LLM(tools=[meet])("Q").text == "Met."
    assert results(sim) == [("a", False), ("b", False)]


def test_a_paused_turn_goes_on(sim: Simulator) -> None:
    """What the API pauses is sent back to be continued, also where all tools are the API's own."""
    search = {"type": "web_search_20260209", "name": "web_search"}
    part = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
    sim.script(Answer(blocks=[part], stop_reason="pause_turn"), "Found.")
    reply = llmnb.LLM(tools=[search])("Q")
    assert reply.text == "Found."
    assert sim.requests[1].body["messages"][-1]["role"] == "assistant"


def test_a_forced_choice_is_for_the_first_answer(sim: Simulator) -> None:
    """Who had to call a tool at every turn would never come to an answer."""
    sim.script(calls(OSLO), "It rains.")
    llmnb.LLM(tools=[look])("Q", tool_choice="look")
    assert sim.requests[0].body["tool_choice"] == {"type": "tool", "name": "look"}
    assert "tool_choice" not in sim.requests[1].body


# What fails goes back to the model ------------------------------------------------------------------------------------


def test_failures_go_back_to_the_model(sim: Simulator) -> None:
    """An exception, an unknown tool and wrong arguments are error results, and the loop goes on."""

    def broken(city: str) -> str:
        """Fails."""
        raise ValueError(f"no window in {city}")

    sim.script(calls(("broken", {"city": "Oslo"}), ("lok", {}), ("look", {"town": 5}), OSLO), "Sorry.")
    assert llmnb.LLM(tools=[broken, look])("Q").text == "Sorry."
    told = results(sim)
    assert [failed for _, failed in told] == [True, True, True, False]
    expected = ("ValueError: no window in Oslo", "no tool 'lok'. The tools are: broken, look", "town: Extra")
    for (content, _), part in zip(told[:3], expected, strict=True):
        assert part in content


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_tool_has_its_time(kind: str, sim: Simulator) -> None:
    """One that takes too long is given up and the model told; an async one is cancelled, and hears of it."""
    ended, hang = threading.Event(), threading.Event()

    async def waits() -> str:
        """Sleeps."""
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return ""

    def blocks() -> str:
        """Never comes back by itself."""
        hang.wait(60)
        return ""

    name, tool = ("waits", waits) if kind == "async" else ("blocks", blocks)
    sim.script(calls((name, {})), "Sorry.")
    try:
        assert llmnb.LLM(tools=[tool])("Q", tool_timeout=0.05).text == "Sorry."
    finally:
        hang.set()
    assert results(sim) == [(f"{name} took longer than 0.05 s and was given up.", True)]
    assert kind == "sync" or ended.wait(30)


def test_the_sdks_tool_error_says_what_the_model_sees(sim: Simulator) -> None:
    """Content blocks of a ToolError are sent as they are."""
    import anthropic
    from anthropic.lib.tools import ToolError

    @anthropic.beta_tool
    def picky() -> str:
        """Is picky."""
        raise ToolError([{"type": "text", "text": "not today"}])

    sim.script(calls(("picky", {})), "Sorry.")
    llmnb.LLM(tools=[picky])("Q")
    assert results(sim) == [([{"type": "text", "text": "not today"}], True)]


def test_calls_that_were_cut_off_do_not_run(sim: Simulator) -> None:
    """An answer that ends at max_tokens in the middle of its arguments is given as it is."""
    counted = Counted()
    block = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {"city": "Os"}}
    sim.script(Answer(blocks=[{"type": "text", "text": "Let"}, block], stop_reason="max_tokens"))
    assert llmnb.LLM(tools=[counted.look])("Q").truncated
    assert counted.ran == []


# Not run twice --------------------------------------------------------------------------------------------------------


def test_a_cell_that_runs_again_runs_no_tool_again(sim: Simulator) -> None:
    """Answers come from the cache, results from the journal, nothing is billed; unless it is told to run them."""
    counted = Counted()
    sim.script(calls(OSLO), "It rains.")
    llm = llmnb.LLM(tools=[counted.look])
    first = llm("Q")
    again = llm("Q")
    assert (again.text, again.source, again.cost_usd) == (first.text, "cache", 0)
    assert counted.ran == ["Oslo"]
    assert sim.billed().requests == 2
    llm("Q", rerun_tools=True)
    assert counted.ran == ["Oslo", "Oslo"]
    sim.script(calls(OSLO), "It rains.")
    llm("Q", fresh=True)
    assert counted.ran == ["Oslo"] * 3


def test_a_loop_that_broke_off_goes_on_where_it_was(sim: Simulator) -> None:
    """When the second request fails, the first turn is not paid again, and its tool does not run again."""
    counted = Counted()
    sim.script(calls(OSLO), Fault("drop"), "It rains.")
    llm = llmnb.LLM(tools=[counted.look], display="print")
    with pytest.raises(IncompleteReply):
        llm("Q")
    assert llm("Q").text == "It rains."
    assert counted.ran == ["Oslo"]
    assert len(sim.requests) == 3


def test_what_failed_runs_again(sim: Simulator) -> None:
    """An error is no result to be kept; when it is the same again, the rest comes from the cache all the same."""
    counted = Counted(fails=True)
    sim.script(calls(OSLO), "Sorry.", "It rains.")
    llm = llmnb.LLM(tools=[counted.look])
    llm("Q")
    assert llm("Q").source == "cache"
    counted.fails = False
    assert llm("Q").text == "It rains."
    assert counted.ran == ["Oslo"] * 3


def test_an_edited_function_runs_again(sim: Simulator) -> None:
    """The result of the function as it was is not that of the function as it is."""
    sim.script(calls(OSLO), "One.", "Two.")
    for text in ("rain", "snow"):
        space: dict[str, Any] = {}
        exec(f"def look(city: str) -> str:\n    'Looks.'\n    return '{text} in ' + city\n", space)
        llmnb.LLM(tools=[space["look"]])("Q")
    assert results(sim) == [("snow in Oslo", False)]


def test_what_was_given_up_is_kept_when_it_ends(sim: Simulator) -> None:
    """A thread cannot be ended: what it did after its time was up is done, and is not done again."""
    ran, let = [], threading.Event()

    def slow() -> str:
        """Takes its time."""
        ran.append(1)
        let.wait(30)
        return "sent"

    sim.script(calls(("slow", {})), "Given up.", "Sent.")
    llm = llmnb.LLM(tools=[slow])
    assert llm("Q", tool_timeout=0.05).text == "Given up."
    let.set()
    for thread in threading.enumerate():
        if thread.name == "llmnb-tool-slow":
            thread.join(30)
    assert llm("Q").text == "Sent."
    assert (ran, results(sim)) == ([1], [("sent", False)])


def test_without_the_cache_nothing_is_kept(sim: Simulator, llmnb_home: Any) -> None:
    """cache=False asks anew, runs anew, and leaves no result on disk."""
    counted = Counted()
    sim.script(calls(OSLO), "One.", calls(OSLO), "Two.")
    for _ in range(2):
        llmnb.LLM(tools=[counted.look], cache=False)("Q")
    assert counted.ran == ["Oslo", "Oslo"]
    assert not (llmnb_home / "cache").exists()


KILLED = """
import os, signal, llmnb

def first() -> str:
    "Runs to its end."
    log("first")
    return "one"

def second() -> str:
    "Begins when the first is done."
    while "first" not in open(os.environ["LOG"]).read() or not kept():
        pass
    if os.environ["DIE"] == "yes":
        os.kill(os.getpid(), signal.SIGKILL)
    log("second")
    return "two"

def log(name):
    with open(os.environ["LOG"], "a") as file:
        file.write(name + " ")

def kept():
    from llmnb.cache.responses import responses
    return any(name.endswith("/tool") for name in responses().backend.names())

open(os.environ["LOG"], "a").close()
reply = llmnb.LLM(tools=[first, second])("Q")
print(reply.text, *(turn.source for turn in reply.turns))
"""


def test_a_killed_process_runs_no_finished_tool_twice(sim: Simulator, tmp_path: Path) -> None:
    """Killed while one of two tools runs: the next process pays neither the turn nor the other tool again."""
    sim.script(calls(("first", {}), ("second", {})), "Done.")
    log = tmp_path / "log"
    env = {**os.environ, **sim.environ(), "LOG": str(log)}
    killed = processes.Python(["-c", KILLED], env={**env, "DIE": "yes"}, stdout=subprocess.DEVNULL)
    assert killed.wait() == -signal.SIGKILL
    again = processes.Python(["-c", KILLED], env={**env, "DIE": "no"}, stdout=subprocess.PIPE)
    assert again.communicate()[0].split() == ["Done.", "cache", "live"]
    assert log.read_text().split() == ["first", "second"]
    assert sim.billed().requests == 2


# Where it ends --------------------------------------------------------------------------------------------------------


def test_too_many_turns_end_the_loop_with_all_that_was_said(sim: Simulator) -> None:
    """The error has the conversation so far with no call unanswered; a higher limit goes on from there for nothing."""
    counted = Counted()
    sim.script(calls(OSLO), calls(ROME), "At last.")
    llm = llmnb.LLM(tools=[counted.look])
    with pytest.raises(
        ToolLoopLimit, match=r"max_turns: 2 turns, after 2 turns \(look asked for and not run\)"
    ) as caught:
        llm("Q", max_turns=2)
    error = caught.value
    assert (error.limit, [call.input for call in error.pending]) == ("max_turns", [{"city": "Rome"}])
    assert [message["role"] for message in error.messages] == ["user", "assistant", "user"]
    assert int((error.cost_usd or 0) * 10**9) == sim.billed().price_nanousd
    assert len(error.replies) == 2
    assert counted.ran == ["Oslo"]
    assert pickle.loads(pickle.dumps(error)).limit == "max_turns"
    assert llm("Q", max_turns=3).text == "At last."
    assert counted.ran == ["Oslo", "Rome"]
    assert sim.billed().requests == 3


@pytest.mark.parametrize("way", WAYS)
def test_a_dollar_ceiling_is_one(way: str, sim: Simulator) -> None:
    """A turn that could pass it is not asked, and the tools of the turn before do not run: nobody would read them."""
    counted = Counted()
    sim.script(*[calls(OSLO, text="word " * 600)] * 5)
    with pytest.raises(ToolLoopLimit, match=r"budget_usd: the next turn can cost up to \$0\.0\d+") as caught:
        WAYS[way](llmnb.LLM(tools=[counted.look], max_tokens=1_000, budget_usd=0.03))
    error, billed = caught.value, sim.billed()
    assert (error.limit, [call.name for call in error.pending]) == ("budget_usd", ["look"])
    assert int(error.cost_usd * 10**9) == billed.price_nanousd <= 30_000_000
    assert billed.requests == len(error.replies) == len(counted.ran) + 1 > 1
    assert error.messages[-1]["role"] == "user"


def test_a_first_turn_that_could_pass_the_ceiling_is_not_sent(sim: Simulator) -> None:
    """The error says what it could cost and what makes it cheaper; the row says that a ceiling was in the way."""
    told = (
        r"up to \$0\.0\d+ \(less with a lower max_tokens\), and \$0\.0005 is left, after 0 turns\. Nothing was sent\."
    )
    with pytest.raises(ToolLoopLimit, match=told):
        llmnb.LLM(tools=[look])("Q", budget_usd=0.0005)
    assert sim.requests == []
    row = llmnb.calls().iloc[0]
    assert (row["status"], row["error_type"], row["cost_usd"]) == ("error", "BudgetExceeded", 0)


def test_a_large_result_ends_the_loop_before_it_is_read(sim: Simulator) -> None:
    """What a tool gives is known only when it has run: then the turn that would read it is looked at again."""

    def book() -> str:
        """Gives the whole book."""
        return "word " * 19_000

    sim.script(calls(("book", {})), "Read.")
    with pytest.raises(ToolLoopLimit, match="budget_usd") as caught:
        llmnb.LLM(tools=[book], max_tokens=500)("Q", budget_usd=0.03)
    assert [message["role"] for message in caught.value.messages] == ["user", "assistant", "user"]
    assert (sim.billed().requests, caught.value.pending) == (1, ())
    assert llmnb.LLM(tools=[book], max_tokens=500)("Q", budget_usd=0.1).text == "Read."
    assert sim.billed().requests == 2


def test_answers_from_the_cache_need_no_money(sim: Simulator) -> None:
    """A loop that ran once runs again under a ceiling that would allow none of its turns."""
    sim.script(calls(OSLO), "Done.")
    llm = llmnb.LLM(tools=[look])
    llm("Q")
    assert llm("Q", budget_usd=0.000001).text == "Done."


def test_a_ceiling_holds_with_budgets_off_and_without_tools(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is of this call alone, and has nothing to do with the budgets that LLMNB_BUDGETS switches."""
    monkeypatch.setenv("LLMNB_BUDGETS", "off")
    llm = llmnb.LLM(max_tokens=1_000)
    with pytest.raises(llmnb.BudgetExceeded, match=r"can cost up to \$0\.01") as caught:
        llm("Q", budget_usd=0.001)
    assert caught.value.budget == "budget_usd"
    assert sim.requests == []
    assert llm("Q", budget_usd=0.1).text
    with pytest.raises(ToolLoopLimit):
        llm("Q", tools=[look], budget_usd=0.001)


def test_a_ceiling_is_of_all_attempts_to_extract(sim: Simulator) -> None:
    """What an answer cost that did not fit is gone, with tools and without."""
    for tools in ([], [look]):
        sim.script(*["no JSON " * 800] * 3)
        billed = sim.billed().price_nanousd
        with pytest.raises((llmnb.BudgetExceeded, ToolLoopLimit)):
            llmnb.LLM(max_tokens=2_000, fresh=True, tools=tools).extract("Q", list[int], budget_usd=0.04)
        assert 0 < sim.billed().price_nanousd - billed <= 40_000_000


@pytest.mark.parametrize("way", WAYS)
def test_a_time_ceiling_ends_the_loop_and_its_tools(way: str, sim: Simulator) -> None:
    """A tool that would run for a minute is left; the calls and their results go out of the transcript together."""
    hang = threading.Event()

    def endless() -> str:
        """Takes its time."""
        hang.wait(60)
        return ""

    sim.script(calls(("endless", {})))
    began = time.monotonic()
    try:
        with pytest.raises(ToolLoopLimit) as caught:
            WAYS[way](llmnb.LLM(tools=[endless], time_limit=0.3))
    finally:
        hang.set()
    assert time.monotonic() - began < 30
    assert caught.value.limit == "time_limit"
    assert [message["role"] for message in caught.value.messages] == ["user"]
    assert len(sim.requests) <= 1  # on a busy machine the time can be up before anything was asked


@pytest.mark.parametrize("way", ["aask", "shown"])
def test_a_time_ceiling_ends_an_answer_that_has_gone_silent(way: str, sim: Simulator) -> None:
    """The server says nothing any more in the second turn: what was said before it is in the error."""
    sim.script(calls(OSLO), Answer(text="word " * 50, fault=Fault("stall")))
    with pytest.raises(ToolLoopLimit) as caught:
        WAYS[way](llmnb.LLM(tools=[look], time_limit=1))
    assert caught.value.limit == "time_limit"
    roles = [message["role"] for message in caught.value.messages]
    assert roles in (["user", "assistant", "user"], ["user"])  # the shorter one on a very busy machine


def test_a_budget_ends_the_loop_at_the_turn_it_does_not_allow(sim: Simulator) -> None:
    """Budgets are kept per turn, as for every call."""
    counted = Counted()
    sim.script(*[calls(OSLO, text="word " * 300)] * 6)
    llmnb.set_budget(usd=0.02, per="total", project="thesis")
    with pytest.raises(llmnb.BudgetExceeded):
        llmnb.LLM(tools=[counted.look], project="thesis", max_tokens=400)("Q")
    assert 1 <= len(counted.ran) == len(sim.requests)


@pytest.mark.parametrize("way", ["closed", "cancelled"])
def test_stop_ends_running_tools(way: str, sim: Simulator) -> None:
    """Closing the stream or cancelling the task ends at once: async tools hear of it, and no further turn is asked."""
    begun, ended, hang = threading.Event(), threading.Event(), threading.Event()

    async def endless() -> str:
        """Sleeps."""
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return ""

    def blocked() -> str:
        """Blocks."""
        hang.wait(60)
        return ""

    llm = llmnb.LLM(tools=[endless, blocked, look])

    async def cancel() -> None:
        task = asyncio.create_task(llm.aask("Q"))
        await asyncio.to_thread(begun.wait, 30)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def close() -> None:
        stream = llm.stream("Q")
        while not isinstance(next(stream), ToolResult):  # look's: the others do not end
            pass
        stream.close()

    sim.script(calls(("endless", {}), ("blocked", {}), OSLO))
    try:
        asyncio.run(cancel()) if way == "cancelled" else close()
        assert ended.wait(30)
    finally:
        hang.set()
    assert len(sim.requests) == 1


# Approval -------------------------------------------------------------------------------------------------------------


async def _no(call: ToolCall) -> str:
    return f"not {call.input['city']}"


@pytest.mark.parametrize(
    ("approve", "told"),
    [
        (lambda call: call.input["city"] == "Oslo", "The user did not approve this call. It was not run."),
        (
            lambda call: True if call.input["city"] == "Oslo" else "too far",
            "The user did not approve this call: too far",
        ),
    ],
    ids=["no", "reason"],
)
def test_who_is_asked_decides(approve: Callable[[ToolCall], Any], told: str, sim: Simulator) -> None:
    """A call that is not approved is not run, and the model is told, and why where that is said."""
    counted = Counted()
    sim.script(calls(OSLO, ROME), "Good.")
    llmnb.LLM(tools=[counted.look], approve=approve)("Q")
    assert counted.ran == ["Oslo"]
    assert results(sim) == [("rain in Oslo", False), (told, True)]


def test_an_async_function_may_decide(sim: Simulator) -> None:
    """It is awaited; what it says goes to the model."""
    sim.script(calls(OSLO), "Good.")
    llmnb.LLM(tools=[look], approve=_no)("Q")
    assert results(sim) == [("The user did not approve this call: not Oslo", True)]


@pytest.mark.parametrize("said", ["y", "n"])
@pytest.mark.parametrize("way", ["ask", "aask", "shown"])
def test_a_person_is_asked_at_the_keyboard(
    way: str, said: str, sim: Simulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a terminal approve=True shows the arguments, without control characters, and waits for y."""
    monkeypatch.setattr("llmnb.display.prompt.can_ask", lambda: True)
    monkeypatch.setattr("builtins.input", lambda prompt: said)
    views.view("none")  # the display room is there
    sim.script(calls(("look", {"city": "Os\x1b[2Jlo"})), "Good.")
    WAYS[way](llmnb.LLM(tools=[look], approve=True))
    assert results(sim)[0][1] is (said == "n")
    shown = capsys.readouterr().out
    assert "The model wants to run look with" in shown
    assert "\x1b[2J" not in shown


@pytest.mark.parametrize("way", WAYS)
def test_where_nobody_can_be_asked_nothing_is_sent(way: str, sim: Simulator) -> None:
    """approve=True in a script without a terminal, and in a stream, is refused before anything is paid."""
    with pytest.raises(InvalidRequest, match=r"asks a person|has no view to ask you in"):
        WAYS[way](llmnb.LLM(tools=[look], approve=True))
    assert sim.requests == []


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"tools": [look, look]}, "two tools are called 'look'"),
        ({"tools": [5]}, "a tool is a function"),
        ({"tools": [{"name": "look", "input_schema": {"type": "object"}}]}, "without a function to run"),
        ({"tools": [look], "max_turns": 0}, "max_turns"),
        ({"tools": [look], "budget_usd": -1}, "budget_usd"),
        ({"tools": [look], "time_limit": "soon"}, "time_limit"),
        ({"tools": [look], "tool_timeout": 0}, "tool_timeout"),
        ({"tools": [look], "approve": "yes"}, "approve must be"),
        ({"tools": [look], "approve": lambda: True}, "takes one argument"),
        ({"tools": [look], "tool_choice": "lok"}, "Did you mean 'look'"),
        ({"tool_choice": "any"}, "needs tools"),
        ({"tools": [look], "budget_usd": 1, "model": "my-own-model"}, "no price is known"),
    ],
    ids=lambda value: re.sub(r"\W+", "-", value) if isinstance(value, str) else None,
)
def test_what_cannot_work_is_refused_before_anything_is_sent(
    options: dict[str, Any], told: str, sim: Simulator
) -> None:
    """Each mistake has a sentence that says what to give."""
    with pytest.raises(InvalidRequest, match=told):
        llmnb.LLM(**options)("Q")
    assert sim.requests == []


# Values ---------------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Weather:
    """What is wanted in the end."""

    city: str
    wet: bool


@dataclasses.dataclass
class Notes:
    """A type with free keys, which the API's structured output does not take."""

    city: str
    wet: dict[str, bool]


@pytest.mark.parametrize(("into", "wet"), [(Weather, True), (Notes, {"now": True})])
def test_a_value_may_need_tools(into: Any, wet: Any, sim: Simulator) -> None:
    """`extract` runs the tools first, by the API's structured output and by a tool alike; a misfit is put right."""

    def value(**fields: Any) -> Answer:
        return Answer(text=json.dumps(fields)) if into is Weather else calls(("Notes", fields))

    sim.script(calls(OSLO, text="{}"), value(city="Oslo"), value(city="Oslo", wet=wet))
    assert llmnb.LLM(tools=[look]).extract("Is it wet in Oslo?", into) == into("Oslo", wet)
    roles = [message["role"] for message in sim.requests[2].body["messages"]]
    assert roles == ["user", "assistant", "user", "assistant", "user"]


def test_a_streamed_value_is_that_of_the_last_turn(sim: Simulator) -> None:
    """What the model says before it asks a tool is no part of the value."""
    sim.script(calls(OSLO, text='{"city": "not yet"'), '{"city": "Oslo", "wet": true}')
    came = list(llmnb.LLM(tools=[look]).stream("Is it wet?", into=Weather))
    assert [type(event) for event in came if isinstance(event, (ToolCall, ToolResult, Done))] == [
        ToolCall,
        ToolResult,
        Done,
    ]
    last = [event for event in came if isinstance(event, llmnb.Partial)][-1]
    assert (last.value, last.is_complete) == (Weather("Oslo", wet=True), True)
