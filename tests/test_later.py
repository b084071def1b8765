"""Work that is done a moment after it was asked for: once for all that asked, and never in the way of an exit."""

from __future__ import annotations

import subprocess
import sys
import threading

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
        while soon._running:  # pyright: ignore[reportPrivateUsage]
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
