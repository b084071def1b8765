"""The queue for requests: its limit holds, it is fair, and giving up loses nothing."""

from __future__ import annotations

import asyncio
import random
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from llmnb.slots import Slots, this_owner


def test_limit_and_order() -> None:
    """Waiters get their turn first come, first served."""
    slots, order = Slots(), list[int]()
    with slots.hold(1, (0, 0)):
        threads: list[threading.Thread] = []
        for n in range(5):
            threads.append(threading.Thread(target=_note, args=(slots, n, order)))
            threads[-1].start()
            while len(slots._waiting) <= n:
                pass
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]
    assert slots.under_way == 0


def _note(slots: Slots, n: int, order: list[int]) -> None:
    with slots.hold(1, (n + 1, 0)):
        assert slots.under_way == 1
        order.append(n)


async def test_a_cancelled_waiter_gives_its_turn_on() -> None:
    """A task that is cancelled while it waits neither keeps nor loses a slot."""
    slots, got = Slots(), asyncio.Event()

    async def wait(owner: int) -> None:
        async with slots.ahold(1, (owner, 0)):
            got.set()

    async with slots.ahold(1, (0, 0)):
        first, second = asyncio.create_task(wait(1)), asyncio.create_task(wait(2))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
    await asyncio.wait_for(second, 5)
    assert got.is_set()
    assert slots.under_way == 0


async def test_cancelled_in_the_moment_of_the_grant() -> None:
    """A slot granted to a task that is being cancelled goes to the next."""
    slots = Slots()

    async def wait(owner: int) -> None:
        async with slots.ahold(1, (owner, 0)):
            pass

    hold = slots.ahold(1, (0, 0))
    await hold.__aenter__()
    first, second = asyncio.create_task(wait(1)), asyncio.create_task(wait(2))
    await asyncio.sleep(0)
    await hold.__aexit__(None, None, None)  # grants the first, whose task has not run yet
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await asyncio.wait_for(second, 5)
    assert slots.under_way == 0


def test_the_same_owner_does_not_wait_for_itself() -> None:
    """Who holds a slot gets another at once, even ahead of others."""
    slots = Slots()
    with slots.hold(1, (1, 0)), slots.hold(1, (1, 0)):
        assert slots.under_way == 2
    assert slots.under_way == 0


async def test_who_blocks_a_loop_does_not_wait_for_its_tasks() -> None:
    """A blocking call goes ahead of tasks that it holds up, whether they have a slot or wait for one; tasks wait."""
    slots, here = Slots(), threading.get_ident()
    async with slots.ahold(1, (here, 1)):
        with slots.hold(1, (here, 2)):
            assert slots.under_way == 2
        waiting = asyncio.create_task(slots.aenter(1, (here, 3)))
        await asyncio.sleep(0)
        assert slots.under_way == 1
    await waiting
    slots.leave((here, 3))
    with slots.hold(1, (here + 1, 0)):  # another thread's, which goes on
        waiting = asyncio.create_task(slots.aenter(1, (here, 3)))
        await asyncio.sleep(0)
        with slots.hold(1, (here, 2)):  # stands behind the task
            assert slots.under_way == 2
    await waiting
    slots.leave((here, 3))
    assert slots.under_way == 0


def test_threads_and_loops_under_load() -> None:
    """Threads and tasks of several loops, a third of which give up, never pass the limit and leave nothing behind."""
    slots, most, lock = Slots(), 0, threading.Lock()

    def count() -> None:
        nonlocal most
        with lock:
            most = max(most, slots.under_way)

    async def task(n: int, dice: random.Random) -> None:
        async with slots.ahold(3, (n, 1)):
            count()
            await asyncio.sleep(dice.random() / 1000)

    async def many(seed: int) -> None:
        dice = random.Random(seed)
        tasks = [asyncio.create_task(task(seed * 1000 + n, dice)) for n in range(30)]
        await asyncio.sleep(0.002)
        for one in tasks[::3]:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def blocking(n: int) -> None:
        for m in range(20):
            with slots.hold(3, (-n, m)):
                count()

    with ThreadPoolExecutor(6) as pool:
        futures: list[Future[None]] = [pool.submit(blocking, n) for n in range(1, 4)]
        futures += [pool.submit(asyncio.run, many(seed)) for seed in range(1, 4)]
        for future in futures:
            future.result(30)
    assert most == 3
    assert slots.under_way == 0
    assert not slots._waiting
    assert not slots._held


async def test_owner_is_thread_and_task() -> None:
    """Two tasks of one thread are two owners."""

    async def own() -> tuple[int, int]:
        return this_owner()

    first, second = await asyncio.gather(asyncio.create_task(own()), asyncio.create_task(own()))
    assert first[0] == second[0] == threading.get_ident()
    assert first[1] != second[1]


@pytest.mark.timeout(20)
def test_a_finalizer_gives_a_slot_back_in_the_middle_of_anything() -> None:
    """A dropped stream ends wherever the garbage collector strikes, also while this thread has the queue's lock."""
    slots = Slots()
    dropped = slots.hold(2, (1, 0))
    dropped.__enter__()

    class Struck(int):
        """A part of an owner whose look-up, in the queue's critical section, is struck by a collection."""

        def __hash__(self) -> int:
            nonlocal dropped
            if dropped is not None:
                ending, dropped = dropped, None
                ending.__exit__(None, None, None)
            return 2

    with slots.hold(2, (Struck(2), 0)):
        assert slots.under_way == 1
    assert slots.under_way == 0
