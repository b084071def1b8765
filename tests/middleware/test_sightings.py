"""What a process remembers of its prompts: bounded, safe in threads, finalizers and forks, and never text."""

from __future__ import annotations

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from llmnb.messages.prompt_outline import outline
from llmnb.middleware import sightings as room
from llmnb.middleware.sightings import Sent, Sightings
from llmnb.prompt_cache import Candidate, Gaps, candidates, kind_of
from llmnb.records import Usage

SECRET = "The launch code is 0000. "


class Clock:
    """A time that is set."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


def sent(memory: Sightings, system: str, question: str = "Hi", *, ttl: str = "5m") -> Sent:
    """A request whose system prompt bears a breakpoint."""
    body: dict[str, Any] = {
        "model": "claude-sonnet-5-5",
        "system": system,
        "messages": [{"role": "user", "content": question}],
    }
    made = outline(body)
    wanted = tuple(candidates(made, kind_of(body, made, in_chat=False), 0))
    return Sent(made, b"", "single", None, memory.clock(), ((0, ttl),), wanted)


def ask(memory: Sightings, system: str, *, read: int = 0, written: int = 0) -> Any:
    """A call that read and wrote so many tokens; why it missed the cache."""
    request = sent(memory, system)
    memory.answered(request)
    usage = Usage(cache_read_tokens=read, cache_write_5m_tokens=written)
    return memory.settled(request, usage, None)


SYSTEM = Candidate("system", 0)


def test_gaps_are_counted_with_the_one_just_passed() -> None:
    """A new prefix has none; then each time it comes again says how soon."""
    clock = Clock()
    memory = Sightings(clock)
    made = sent(memory, SECRET).outline
    assert memory.gaps(made, SYSTEM, "single") == Gaps()
    ask(memory, SECRET)
    clock.now_s += 60
    assert memory.gaps(made, SYSTEM, "single") == Gaps(within_5m=1)
    ask(memory, SECRET)
    clock.now_s += 1_200
    assert memory.gaps(made, SYSTEM, "single") == Gaps(within_5m=1, within_1h=1)


def test_a_new_habit_soon_outweighs_an_old_one() -> None:
    """However often it came at once, what is counted has a bound."""
    clock = Clock()
    memory = Sightings(clock)
    for _ in range(200):
        ask(memory, SECRET)
        clock.now_s += 1
    for _ in range(12):
        clock.now_s += 9_000
        ask(memory, SECRET)
    clock.now_s += 9_000
    gaps = memory.gaps(sent(memory, SECRET).outline, SYSTEM, "single")
    assert gaps.total <= room.MOST_GAPS + 1
    assert gaps.later > 4 * gaps.within_5m


def test_held_as_long_as_the_api_holds_it() -> None:
    """From the start of the request that wrote or read it, for its TTL; not at all when nothing was cached."""
    clock = Clock()
    memory = Sightings(clock)
    made = sent(memory, SECRET).outline
    ask(memory, SECRET)
    assert memory.held(made, 0) is None
    ask(memory, SECRET, written=900)
    clock.now_s += 299
    assert memory.held(made, 0) == "5m"
    ask(memory, SECRET, read=900)
    clock.now_s += 299
    assert memory.held(made, 0) == "5m"
    clock.now_s += 2
    assert memory.held(made, 0) is None


def test_no_text_is_kept() -> None:
    """Hashes, sizes, times and the names of models: nothing that was said."""
    memory = Sightings()
    ask(memory, SECRET * 100, written=900)
    kept = pickle.dumps([memory._prefixes, list(memory._recent), memory._openings])
    assert b"launch code" not in kept


def test_memory_has_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest is forgotten."""
    monkeypatch.setattr(room, "MOST_PREFIXES", 50)
    memory = Sightings()
    for number in range(200):
        ask(memory, f"{number} {SECRET}", written=900)
    assert len(memory._prefixes) <= 51
    assert len(memory._recent) == room.MOST_REQUESTS


def test_many_threads() -> None:
    """Sixteen at once, and nothing breaks or is lost."""
    memory = Sightings()
    with ThreadPoolExecutor(16) as pool:
        missed = list(pool.map(lambda number: ask(memory, f"{number % 5} {SECRET}", written=900), range(400)))
    assert len(missed) == 400
    gaps = memory.gaps(sent(memory, f"0 {SECRET}").outline, SYSTEM, "single")
    assert gaps.within_5m == pytest.approx(gaps.total)


def test_a_finalizer_in_the_middle_of_it_does_not_wait_for_itself() -> None:
    """A stream that is collected as garbage while its own thread is in here is not remembered, and nothing hangs."""
    memory = Sightings()
    with memory._alone():
        assert ask(memory, SECRET, written=900) is None
    assert len(memory._recent) == 0
    ask(memory, SECRET, written=900)
    assert len(memory._recent) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
def test_a_forked_child_goes_on() -> None:
    """Also when another thread of the parent was in here at that moment."""
    memory = Sightings()
    ask(memory, SECRET, written=900)
    memory._lock.acquire()
    child = os.fork()
    if child == 0:
        os._exit(0 if memory.held(sent(memory, SECRET).outline, 0) == "5m" else 1)
    memory._lock.release()
    assert os.waitpid(child, 0)[1] == 0
