"""Stop in a real kernel, by the view's button and by the notebook's own: it ends every kind of cell, at once.

The button is pressed as response.js does it: by a comm of its own in a subshell, and where a kernel has none, by the
interrupt that it falls back to.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from llmnb.interrupts import NOT_SENT, STOPPED
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer
from llmnb.simulator.fault import Fault
from llmnb.testing import serve_simulator

from .kernels import Kernel, Messages, output

Leg = Literal["button", "interrupt"]

STREAM = Answer(text="word " * 3000, deltas=3000, delta_delay_s=0.01)
SILENCE = Answer(text="never", fault=Fault("stall", after_events=-1))
SETUP = """
import asyncio, json, os, threading, time
os.environ.update({environ!r})
from concurrent.futures import ThreadPoolExecutor
import anthropic, llmnb
llm = llmnb.LLM()
"""
AT_ONCE_S = 5.0
"""Far more than a stop takes (the benchmarks say how long), and far less than the answers that are stopped would."""


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """A simulated API."""
    with serve_simulator() as simulator:
        yield simulator
        assert simulator.crashes == []


@pytest.fixture
def notebook(kernel: Kernel, sim: Simulator, llmnb_home: Any) -> Kernel:
    """A kernel that asks the simulator and has a ledger of this test's own."""
    output(kernel.run(SETUP.format(environ={**sim.environ(), "LLMNB_HOME": str(llmnb_home)})))
    return kernel


@dataclass(frozen=True)
class Stopping:
    """What a stopped cell left."""

    messages: Messages
    seconds: float
    pressed_at: float

    @property
    def traceback(self) -> list[str]:
        """What the cell shows in red."""
        (error,) = [m["content"]["traceback"] for m in self.messages if m["msg_type"] == "error"]
        return error

    @property
    def printed(self) -> str:
        """What the cell and its threads printed."""
        return "".join(m["content"]["text"] for m in self.messages if m["msg_type"] == "stream")

    @property
    def kept(self) -> list[str]:
        """The plain texts that stand in the place of the views."""
        updates = [m["content"]["data"] for m in self.messages if m["msg_type"] == "update_display_data"]
        return [update["text/plain"] for update in updates]


def stop(kernel: Kernel, sim: Simulator, code: str, leg: Leg, *, asked: int = 1, until: str = "") -> Stopping:
    """Run a cell, stop it once the server has `asked` requests and a view shows `until`, and wait for its end."""
    can_serve = kernel.has_subshells()
    subshell = kernel.subshell() if can_serve else None
    cell = kernel.client.execute(code)
    answer_id = kernel.shown()
    deadline = time.monotonic() + 30
    while len(sim.requests) < asked and time.monotonic() < deadline:
        time.sleep(0.01)
    if until:
        kernel.until(until)
    else:
        time.sleep(0.2)  # into the wait for what does not come
    start, pressed_at = time.monotonic(), time.time()
    if leg == "button" and can_serve:
        kernel.open_comm(f"stop-{answer_id}", {"stop": answer_id}, subshell)
    else:
        kernel.manager.interrupt_kernel()
    messages = kernel.finish(cell)
    return Stopping(messages, time.monotonic() - start, pressed_at)


def rows(kernel: Kernel) -> list[dict[str, Any]]:
    """The ledger, oldest first."""
    code = "print(llmnb.calls()[['status', 'estimated', 'output_tokens', 'cost_nanousd']].to_json(orient='records'))"
    return json.loads(output(kernel.run(code)))[::-1]


@pytest.mark.parametrize("leg", ["button", "interrupt"])
@pytest.mark.parametrize("answer", [STREAM, SILENCE], ids=["mid-stream", "before-the-first-token"])
@pytest.mark.parametrize("code", ["llm('Hi')", "await llm.aask('Hi')"], ids=["blocking", "await"])
def test_a_cell(notebook: Kernel, sim: Simulator, code: str, answer: Answer, leg: Leg) -> None:
    """The server sees it at once, the text stays, the row is an estimate, the traceback one line, and life goes on."""
    sim.script(answer)
    stopped = stop(notebook, sim, code, leg, until="word" if answer is STREAM else "")
    assert stopped.seconds < AT_ONCE_S
    assert stopped.traceback == [STOPPED]
    (kept,) = stopped.kept
    assert kept.startswith("word") is (answer is STREAM)
    assert "stopped" in kept
    sim.settle()
    gone_at = sim.requests[0].disconnected_at
    assert gone_at is not None
    assert gone_at - stopped.pressed_at < AT_ONCE_S
    (row,) = rows(notebook)
    assert (row["status"], row["estimated"]) == ("cancelled", True)
    assert (row["output_tokens"] > 0) is (answer is STREAM)
    assert (row["cost_nanousd"] or 0) > 0
    assert "Simulated answer" in output(notebook.run("print(llm('And now?', display='none').text)"))


THREADS = """
threads = [threading.Thread(target=llm, args=(str(number),), name=f"ask-{number}") for number in range(3)]
[thread.start() for thread in threads]; [thread.join() for thread in threads]
"""


def test_one_of_three_threads(notebook: Kernel, sim: Simulator) -> None:
    """A view's button stops its own answer and no other; the thread says so in one line."""
    if not notebook.has_subshells():
        pytest.skip("there the button is the interrupt, which stops all")
    sim.rule(Answer(text="word " * 100, deltas=100, delta_delay_s=0.01))
    stopped = stop(notebook, sim, THREADS, "button", asked=3)
    assert sorted(row["status"] for row in rows(notebook)) == ["cancelled", "ok", "ok"]
    assert len(stopped.kept) == 3
    assert [line.partition(": ")[2] for line in stopped.printed.splitlines()] == [STOPPED]


def test_the_interrupt_stops_all_threads(notebook: Kernel, sim: Simulator) -> None:
    """What the cell's threads ask ends with the cell, and nothing is paid in the background."""
    sim.rule(STREAM)
    stopped = stop(notebook, sim, THREADS, "interrupt", asked=3)
    output(notebook.run("[thread.join() for thread in threads]"))
    assert stopped.seconds < AT_ONCE_S
    sim.settle()
    assert all(request.disconnected_at for request in sim.requests)
    assert [row["status"] for row in rows(notebook)] == ["cancelled"] * 3


@pytest.mark.parametrize("take", ["list(pool.map(llm, questions))", "[f.result() for f in futures]"])
def test_the_interrupt_stops_a_pool(notebook: Kernel, sim: Simulator, take: str) -> None:
    """A pool that is left because of an interrupt waits for its workers: they stop, and take no further question."""
    sim.rule(STREAM)
    code = f"""
questions = [str(number) for number in range(12)]
with ThreadPoolExecutor(2) as pool:
    futures = [pool.submit(llm, question) for question in questions] if 'futures' in {take!r} else []
    {take}
"""
    stopped = stop(notebook, sim, code, "interrupt", asked=2)
    assert stopped.seconds < AT_ONCE_S
    sim.settle()
    assert len(sim.requests) == 2
    assert [row["status"] for row in rows(notebook)] == ["cancelled"] * 2
    if "futures" in take:
        told = output(notebook.run("print(*{str(future.exception()) for future in futures}, sep='\\n')"))
        assert set(told.splitlines()) == {STOPPED, NOT_SENT}
    output(notebook.run("with ThreadPoolExecutor(2) as pool: print(pool.submit(lambda: 'free').result())"))


def test_gathered(notebook: Kernel, sim: Simulator) -> None:
    """The interrupt stops all that a cell awaits."""
    sim.rule(STREAM)
    code = "await asyncio.gather(llm.aask('a'), llm.aask('b'))"
    stopped = stop(notebook, sim, code, "interrupt", asked=2)
    assert stopped.traceback == [STOPPED]
    sim.settle()
    assert [row["status"] for row in rows(notebook)] == ["cancelled"] * 2


@pytest.mark.parametrize("leg", ["button", "interrupt"])
def test_while_it_waits_to_try_again(notebook: Kernel, sim: Simulator, leg: Leg) -> None:
    """The SDK's wait between two attempts ends at once."""
    sim.fail("rate_limited", retry_after_s=30)
    stopped = stop(notebook, sim, "llm('Hi')", leg)
    assert stopped.seconds < AT_ONCE_S
    assert stopped.traceback == [STOPPED]
    assert len(sim.requests) == 1


@pytest.mark.parametrize("leg", ["button", "interrupt"])
def test_while_it_waits_in_line(notebook: Kernel, sim: Simulator, leg: Leg) -> None:
    """An answer that waits because others are under way can be stopped before anything was sent.

    The other is of another thread: for a task of the loop that it blocks it would not wait.
    """
    sim.script(SILENCE)
    code = """
os.environ["LLMNB_CONCURRENCY"] = "1"
one = llmnb.LLM(display="none")
del os.environ["LLMNB_CONCURRENCY"]
loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True).start()
ended = threading.Event()
async def first():
    try:
        async for event in one.astream("first"):
            pass
    finally:
        ended.set()
begun = asyncio.run_coroutine_threadsafe(first(), loop)
await asyncio.sleep(0.3)
"""
    output(notebook.run(code))
    stopped = stop(notebook, sim, "one('second', display='widget')", leg)
    assert stopped.seconds < AT_ONCE_S
    assert stopped.traceback == [STOPPED]
    assert len(sim.requests) == 1
    output(notebook.run("begun.cancel(), ended.wait(10)"))
    assert [row["status"] for row in rows(notebook)] == ["cancelled"]


TOOLS = """
client = llmnb.wrap(anthropic.Anthropic())

@anthropic.beta_tool
def weather(city: str) -> str:
    "The weather in a city."
    return {answer}

llm.ask  # the view that the test waits for
shown = llmnb.display.choose("widget")
shown.open("claude", None)
runner = client.beta.messages.tool_runner(
    model="claude-sonnet-5-5", max_tokens=500, tools=[weather], stream={stream},
    messages=[dict(role="user", content="What is the weather in Oslo?")])
try:
    for turn in runner:
        if {stream}:
            for event in turn:
                pass
finally:
    shown.close()
"""


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "whole"])
def test_a_tool_loop(notebook: Kernel, sim: Simulator, stream: bool) -> None:
    """The interrupt ends the SDK's own tool loop in its second turn; both turns are on the books."""
    second = Answer(text="word " * 9, deltas=9, fault=Fault("stall")) if stream else SILENCE
    sim.script(Answer(tool_calls=[("weather", {"city": "Oslo"})]), second)
    stopped = stop(notebook, sim, TOOLS.format(answer="'rain'", stream=stream), "interrupt", asked=2)
    assert stopped.seconds < AT_ONCE_S
    assert stopped.traceback == [STOPPED]
    sim.settle()
    assert [request.disconnected_at is not None for request in sim.requests] == [False, True]
    assert [row["status"] for row in rows(notebook)] == ["ok", "cancelled"]


@pytest.mark.parametrize("leg", ["button", "interrupt"])
def test_a_question_inside_a_tool(notebook: Kernel, sim: Simulator, leg: Leg) -> None:
    """Stopping an answer that a tool asked for ends the loop; the SDK does not take it for the tool's result."""
    sim.script(Answer(tool_calls=[("weather", {"city": "Oslo"})]), STREAM)
    code = TOOLS.format(answer="llm(city).text", stream=False).replace('shown.open("claude", None)', "")
    stopped = stop(notebook, sim, code, leg, asked=2)
    assert stopped.seconds < AT_ONCE_S
    assert stopped.traceback == [STOPPED]
    assert len(sim.requests) == 2
    assert [row["status"] for row in rows(notebook)] == ["ok", "cancelled"]
