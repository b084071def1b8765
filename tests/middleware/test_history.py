"""The history of earlier processes: read in the background, once, and never in the way of a call."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import llmnb
from llmnb.ledger import open_ledger
from llmnb.middleware import history as room
from llmnb.middleware import placement
from llmnb.middleware.history import History, history
from llmnb.middleware.sightings import Sightings
from llmnb.prompt_cache import Gaps
from llmnb.records import Call
from llmnb.settings import load
from llmnb.simulator import Simulator
from llmnb.testing import serve_simulator
from llmnb.trouble import LlmnbWarning, forget_warnings

GUIDE = "Write plainly, and say what you measured. " * 200
MODEL = "claude-sonnet-5-5"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A memory and a history that know nothing."""
    monkeypatch.setattr(placement, "sightings", Sightings())
    monkeypatch.setattr(room, "_by_path", {})
    forget_warnings()
    yield
    forget_warnings()


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """A simulated API."""
    with serve_simulator(environ=True) as running:
        yield running


def write(count: int, gap_s: float, **more: Any) -> None:
    """Calls of an earlier kernel, the last one two hours ago."""
    now = time.time_ns() // 1000
    begin = now - int((7_200 + count * gap_s) * 1e6)
    known: dict[str, Any] = {"model_requested": MODEL, "status": "ok", "session": "earlier", **more}
    calls = [Call(f"c{number}", begin + int(number * gap_s * 1e6), **known) for number in range(count)]
    open_ledger(load().ledger_path).write_all([(call, ()) for call in calls])


def known() -> History:
    """The history of the ledger of the settings, once it was read."""
    found = history(load().ledger_path)
    found.gaps(None, MODEL, in_chat=False)
    assert found.wait(10)
    return found


def system(sim: Simulator) -> Any:
    """The system prompt of the last request."""
    body = sim.requests[-1].body
    assert body is not None
    return body["system"]


def test_loops_of_earlier_kernels_are_cached_at_once(sim: Simulator) -> None:
    """Where prompts were read again and again, the first call of a new kernel writes."""
    write(60, 2, cache_breakpoints=1, cache_read_tokens=2_000)
    llm = llmnb.LLM(system=GUIDE)  # which begins to read
    assert history(load().ledger_path).wait(10)
    llm("Hi")
    assert system(sim)[0]["cache_control"] == {"type": "ephemeral"}


def test_prompts_that_were_never_read_are_not_written(sim: Simulator) -> None:
    """Chats of one turn each: the first turn of a new one is not worth writing."""
    for number in range(12):
        open_ledger(load().ledger_path).write(
            Call(
                f"x{number}", time.time_ns() // 1000 - 8_000_000_000 - number, MODEL, status="ok", session="earlier",
                chat=f"chat-{number}",
            )
        )  # fmt: skip
    known()
    llmnb.LLM(system=GUIDE).chat()("Hi")
    assert system(sim) == GUIDE


def test_a_call_does_not_wait_for_it(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is being read, calls are decided without it."""
    import threading

    gate = threading.Event()

    def slow(*_: object, **__: object) -> dict[Any, Gaps]:
        gate.wait(10)
        return {}

    monkeypatch.setattr(room, "rereads", slow)
    llmnb.LLM(system=GUIDE)("Hi")
    assert system(sim) == GUIDE
    gate.set()
    assert history(load().ledger_path).wait(10)


def test_a_ledger_that_cannot_be_read_is_no_history(llmnb_home: Path) -> None:
    """It is said once, and nothing is known."""
    llmnb_home.mkdir()
    (llmnb_home / "ledger.db").write_bytes(b"not a database, whatever it may look like" * 100)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LlmnbWarning)
        assert known().gaps(None, MODEL, in_chat=False) == Gaps()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
def test_a_forked_child_reads_for_itself() -> None:
    """What the parent's thread was about to read, the child's own does."""
    write(60, 2, cache_breakpoints=1, cache_read_tokens=2_000)
    assert known().gaps(None, MODEL, in_chat=False).within_5m > 0
    child = os.fork()
    if child == 0:
        ok = known().gaps(None, MODEL, in_chat=False).within_5m > 0
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
