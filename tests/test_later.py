"""Work that is done a moment after it was asked for: once for all that asked, and never in the way of an exit."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from functools import partial

import pytest

from llmnb import later
from llmnb.later import Later


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for company, and no lingering."""
    monkeypatch.setattr(later, "TOGETHER_S", 0.001)
    monkeypatch.setattr(later, "IDLE_S", 0.001)


def test_what_is_asked_for_is_done_in_another_thread() -> None:
    """Also when the thread has ended in between, as it does after a while without work."""
    done = threading.Semaphore(0)
    threads: list[int] = []

    def work() -> None:
        threads.append(threading.get_ident())
        assert soon.is_here()
        done.release()

    soon = Later(work)
    for _ in range(20):
        soon.ask()
        assert done.acquire(timeout=10)
        while soon._thread.is_running:  # pyright: ignore[reportPrivateUsage]
            pass
    assert threading.get_ident() not in threads
    assert len(threads) == 20
    assert not soon.is_here()


def test_many_askers_share_one_go() -> None:
    """While the work has not begun, asking again adds nothing; once it has, it is done again."""
    begun, go = threading.Semaphore(0), threading.Semaphore(0)

    def work() -> None:
        begun.release()
        go.acquire()

    soon = Later(work)
    soon.ask()
    assert begun.acquire(timeout=10)
    for _ in range(100):
        soon.ask()  # during the work: one more time
    go.release()
    assert begun.acquire(timeout=10)
    go.release()
    assert not begun.acquire(timeout=0.05)


def test_one_thread_does_the_work_of_all_but_what_is_done_apart() -> None:
    """What was asked for within a moment is done together, in the order of asking."""
    done: list[tuple[str, int]] = []
    over = threading.Semaphore(0)

    def work(name: str) -> None:
        done.append((name, threading.get_ident()))
        over.release()

    first, second, own = (Later(partial(work, name), apart=name == "own") for name in ("first", "second", "own"))
    for later_one in (second, first, own):
        later_one.ask()
    for _ in range(3):
        assert over.acquire(timeout=10)
    threads = dict(done)
    assert [name for name, _ in done if name != "own"] == ["second", "first"]
    assert threads["first"] == threads["second"] != threads["own"]


def test_what_is_due_later_is_done_then_or_with_what_is_asked_for_before() -> None:
    """Once, whichever comes first; also by a thread that waits for work already."""
    done: list[float] = []
    over, lingers = threading.Semaphore(0), Later(lambda: over.release())

    def work() -> None:
        done.append(time.monotonic())
        over.release()

    lingers.ask()
    assert over.acquire(timeout=10)
    soon, begin = Later(work), time.monotonic()
    soon.ask_after(0.05)
    assert over.acquire(timeout=10)
    assert done[0] - begin >= 0.05
    soon.ask_after(60.0)
    soon.ask()
    assert over.acquire(timeout=10)
    while soon._thread.is_running:  # pyright: ignore[reportPrivateUsage]
        pass  # it does not stay for what is done
    assert len(done) == 2


def test_work_that_fails_takes_none_with_it() -> None:
    """What was asked for together with it is done all the same."""
    over, failed = threading.Semaphore(0), threading.Semaphore(0)

    def fails() -> None:
        failed.release()
        raise SystemExit  # the one that says nothing where a thread ends by it

    Later(fails).ask()
    Later(over.release).ask()
    assert failed.acquire(timeout=10)
    assert over.acquire(timeout=10)


def test_asking_while_the_interpreter_ends_does_not_hang() -> None:
    """A finalizer may ask when no thread can run any more; the start of a `threading.Thread` waited for ever."""
    program = """
from llmnb.later import Later
class Kept:
    def __init__(self, soon): self.soon = soon
    def __del__(self): self.soon.ask()
kept = Kept(Later(print))
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, timeout=30, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
