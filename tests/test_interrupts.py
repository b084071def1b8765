"""Interrupts where the main thread does not wait for the answer itself; tests/display/test_stop.py has real kernels."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from llmnb import interrupts
from llmnb.interrupts import Stopped
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer

from . import processes


def raising(error: BaseException) -> None:
    """Raises."""
    raise error


def pressed(times: int) -> None:
    """Ctrl-C, so often."""
    for _ in range(times):
        signal.raise_signal(signal.SIGINT)


def heard_in_a_thread() -> bool:
    """Whether a thread that asks now hears of an interrupt."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: interrupts.of_this_cell()()).result(10)


def test_the_main_thread_is_left_alone() -> None:
    """Python tells it itself: it is never refused, and never told twice."""
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt:
        interrupts.refuse()
        interrupts.refuse()
        assert interrupts.of_this_cell()() is False


def test_a_thread_hears_that_the_main_thread_unwinds() -> None:
    """While the main thread deals with an interrupt, and not with another error, threads hear of it."""
    heard: dict[str, bool] = {}
    for error in (
        KeyboardInterrupt(),
        ValueError(),
        interrupts.stopped(by_view=True),
        interrupts.stopped(by_view=False),
    ):
        try:
            raise error
        except BaseException as raised:
            name = f"{type(raised).__name__} {getattr(raised, 'by_view', '')}".strip()
            heard[name] = heard_in_a_thread()
    assert heard == {"KeyboardInterrupt": True, "ValueError": False, "Stopped True": False, "Stopped False": True}
    assert heard_in_a_thread() is False


def test_only_who_asked_before_is_refused() -> None:
    """A worker that goes on is stopped; a thread that is new, such as one of an except block, may ask."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(interrupts.refuse).result(10)
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            with pytest.raises(Stopped, match="before this question was sent"):
                pool.submit(interrupts.refuse).result(10)
            with ThreadPoolExecutor(1) as another:
                another.submit(interrupts.refuse).result(10)
        pool.submit(interrupts.refuse).result(10)


def test_a_new_cell_is_not_interrupted() -> None:
    """What was interrupted counts until the next cell begins."""
    cells = interrupts._Cells()
    cells._begins(None)
    cells._ended(SimpleNamespace(error_in_exec=ValueError()))
    assert cells.interrupted() is False
    cells._ended(SimpleNamespace(error_in_exec=KeyboardInterrupt()))
    assert cells.interrupted() is True
    cells._begins(None)
    assert cells.interrupted() is False
    cells._ended(None)  # ipykernel has no result of an await cell that was interrupted
    assert cells.interrupted() is False


def test_who_asks_while_no_cell_runs_is_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interrupt of a cell ends what was asked in it, and not what a thread of an earlier one asks afterwards."""
    cells = interrupts._Cells()
    monkeypatch.setattr(interrupts, "_cells", cells)
    with ThreadPoolExecutor(1) as pool:
        cells._begins(None)
        cells._begins(None)  # which it runs itself
        cells._ended(SimpleNamespace(error_in_exec=None))
        ear = pool.submit(interrupts.of_this_cell).result(10)
        cells._ended(SimpleNamespace(error_in_exec=KeyboardInterrupt()))
        assert ear() is True
        assert heard_in_a_thread() is False
        try:
            raise KeyboardInterrupt  # of what runs between cells
        except KeyboardInterrupt:
            assert heard_in_a_thread() is False
        cells._begins(None)
        assert heard_in_a_thread() is False


def test_interrupts_are_put_off() -> None:
    """They come when what must be whole is whole, if they are asked for; a fourth one does not wait."""
    done: list[int] = []
    with interrupts.put_off() as late:
        pressed(2)
        done.append(1)
    assert done == [1]
    with pytest.raises(KeyboardInterrupt):
        late.strike()
    with pytest.raises(KeyboardInterrupt), interrupts.put_off() as late:
        pressed(10)
    assert late.times == 4
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    with interrupts.put_off() as late:
        pass
    late.strike()


def test_the_end_of_a_thread_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """A stopped thread says so in a line; another error is told as before."""
    before = threading.excepthook
    told: list[type[BaseException]] = []
    threading.excepthook = lambda args: told.append(args.exc_type)
    try:
        for end in (lambda: raising(interrupts.stopped(by_view=True)), lambda: raising(ValueError())):
            thread = threading.Thread(target=end, name="worker")
            thread.start()
            thread.join()
    finally:
        threading.excepthook = before
    assert capsys.readouterr().err == f"worker: {interrupts.STOPPED}\n"
    assert told == [ValueError]


async def test_a_coroutine_hears_while_its_loop_rests() -> None:
    """A signal wakes the loop; where it would have raised, `stop` is called, the second time it raises."""
    usual = signal.getsignal(signal.SIGINT)
    struck = asyncio.Event()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with interrupts.heard(struck.set) as hearing:
            killer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
            killer.start()
            await asyncio.wait_for(struck.wait(), 10)
            assert hearing.struck
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, usual)


async def test_the_handler_that_was_there_goes_on() -> None:
    """asyncio's and ipykernel's handlers are called, and put back by the last of several coroutines that goes."""
    usual = signal.getsignal(signal.SIGINT)
    called: list[int] = []

    def mine(number: int, frame: object) -> None:
        called.append(number)

    signal.signal(signal.SIGINT, mine)
    try:
        first, second = interrupts.heard(lambda: called.append(0)), interrupts.heard(lambda: called.append(0))
        hearings = first.__enter__(), second.__enter__()
        signal.raise_signal(signal.SIGINT)
        assert called == [signal.SIGINT]
        assert [hearing.struck for hearing in hearings] == [True, True]
        first.__exit__(None, None, None)
        assert signal.getsignal(signal.SIGINT) != mine
        second.__exit__(None, None, None)
        assert signal.getsignal(signal.SIGINT) == mine
    finally:
        signal.signal(signal.SIGINT, usual)


SCRIPT = """
import sys
from concurrent.futures import ThreadPoolExecutor
import llmnb
llm = llmnb.LLM()
with ThreadPoolExecutor(2) as pool:
    asked = [pool.submit(llm, str(number)) for number in range(20)]
    print("asked", flush=True)
    [future.result() for future in asked]
"""


def test_a_script_sends_no_more(llmnb_simulator: Simulator) -> None:
    """Ctrl-C on a script's pool: what was sent comes to its end, and nothing more is sent."""
    llmnb_simulator.rule(Answer(text="word", first_token_s=0.5))  # an answer in one piece knows no delay of deltas
    script = processes.Python(["-c", SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert script.stdout is not None
    with script.stdout:
        assert script.stdout.readline() == "asked\n"
        while len(llmnb_simulator.requests) < 2:
            time.sleep(0.01)
        script.send_signal(signal.SIGINT)
        script.wait()
    assert len(llmnb_simulator.requests) == 2
