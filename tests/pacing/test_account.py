"""Whose turn it is, and what processes that share an account see of each other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmnb.errors import StoreError
from llmnb.ledger import new_ledger
from llmnb.ledger.sql import Store
from llmnb.pacing import Account, Need, Pacer
from llmnb.pacing.allowance import Allowance
from llmnb.pacing.shelves import MemoryShelf, Shelf, in_redis, in_store
from llmnb.places import PostgresPlace
from llmnb.settings import load

ONE = Need(1, 0, 0)


def limited(shelf: Shelf, requests: float = 60) -> Account:
    """An account that may make so many requests a minute, by the user's own word."""
    return Account("account model", shelf, {"requests": requests})


def use_up(account: Account, now: float, calls: int) -> None:
    """Has so many calls go."""
    for number in range(calls):
        assert account.ask(f"{now} {number}", "", ONE, now) == 0


def test_a_chat_does_not_wait_for_a_whole_map() -> None:
    """Twenty rows wait when a chat asks: it goes after one of them, and they go on in their order."""
    account = limited(MemoryShelf())
    use_up(account, 1_000, 58)
    rows = [f"row {number}" for number in range(20)]
    for row in rows:
        assert account.ask(row, "map", ONE, 1_000) > 0
    assert account.ask("question", "chat", ONE, 1_000) > 0
    went: list[str] = []
    for second in range(1_001, 1_022):
        went += [
            uid for uid in [*rows, "question"] if uid not in went and account.ask(uid, _lane(uid), ONE, second) == 0
        ]
    assert went.index("question") <= 1
    assert [uid for uid in went if uid != "question"] == rows


def _lane(uid: str) -> str:
    return "chat" if uid == "question" else "map"


def test_a_limit_of_the_users_own_holds_whatever_the_api_allows() -> None:
    """The API's much higher one does not lift it, and what others have used of the account counts."""
    account = limited(MemoryShelf())
    use_up(account, 1_000, 57)
    assert account.ask("last", "", ONE, 1_000) == 0
    account.answered("last", {"requests": (4_000, 3_940)}, 1_000, is_whole=True, refused=False, retry_after_s=None)
    account.ended("last", ONE, 0, 1_000, is_ok=True)
    assert account.ask("one more", "", ONE, 1_000) > 0
    account.give_up("one more")
    for number in range(57):
        account.ended(f"1000 {number}", ONE, 0, 1_000, is_ok=True)
    account.answered("", {"requests": (4_000, 3)}, 1_030, is_whole=True, refused=False, retry_after_s=None)
    use_up(account, 1_030, 1)
    assert account.ask("after others", "", Need(2, 0, 0), 1_030) > 0


def test_who_gives_up_holds_nobody_up() -> None:
    """The next one is told the time of the first."""
    account = limited(MemoryShelf())
    use_up(account, 1_000, 58)
    account.ask("a", "", ONE, 1_000)
    second = account.ask("b", "", ONE, 1_000)
    account.give_up("a")
    assert account.ask("b", "", ONE, 1_000) < second
    assert account.waiting == 1


def test_while_much_is_left_nothing_is_kept() -> None:
    """Then most calls are not even looked at; when half is used they are counted, until most is back."""
    account = Account("account model", MemoryShelf(), {})
    assert account.is_due(100, 1_000)
    account.seen({"requests": (1_000, 900)}, 1_000)
    assert sum(account.is_due(100, 1_000.5) for _ in range(100)) == 0
    assert sum(account.is_due(100, 1_000.5) for _ in range(100)) > 0
    assert account.is_due(100, 1_002)
    assert not account.is_near
    account.seen({"requests": (1_000, 400)}, 1_002)
    assert account.is_near
    assert account.ask("a", "", ONE, 1_002) == 0
    account.answered("a", {"requests": (1_000, 990)}, 1_060, is_whole=True, refused=False, retry_after_s=None)
    assert not account.is_near


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def shelves(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Shelf, Shelf]]:
    """The shelves of two processes on one store."""
    if request.param == "redis":
        url = request.getfixturevalue("redis_server").url
        yield in_redis(url), in_redis(url)
        return
    place = tmp_path / "ledger.db"
    if request.param == "postgres":
        place = request.getfixturevalue("postgres")
        assert isinstance(place, PostgresPlace)
    stores = [new_ledger(place), new_ledger(place)]
    yield in_store(lambda: stores[0]), in_store(lambda: stores[1])
    for store in stores:
        store.close()


def test_two_processes_share_a_minute(shelves: tuple[Shelf, Shelf]) -> None:
    """What one takes the other has not; what one learns the other knows."""
    here, there = (limited(shelf) for shelf in shelves)
    use_up(here, 1_000, 40)
    use_up(there, 1_000.5, 19)
    assert here.ask("late", "", ONE, 1_000.5) > 0
    there.answered("", {}, 1_001, is_whole=True, refused=True, retry_after_s=30)
    assert here.ask("late", "", ONE, 1_020) > 1


def test_a_store_that_fails_is_done_without() -> None:
    """One warning, and this process keeps to the limits by itself."""

    def gone() -> Store:
        raise StoreError("the disk is gone")

    account = limited(in_store(gone))
    with pytest.warns(UserWarning, match="sharing rate limits"):
        use_up(account, 1_000, 58)
    assert account.ask("late", "", ONE, 1_000) > 0


def test_a_forked_child_begins_anew() -> None:
    """It does not know what its parent has under way, and takes none of its locks."""
    pacer = Pacer(load(requests_per_minute=60), MemoryShelf())
    account = pacer.account("scope", "model")
    pacer.after_fork()
    assert pacer.account("scope", "model") is not account


def test_threads_and_tasks_take_no_more_than_there_is() -> None:
    """However many ask at once, sixty less the margin go in the first moment."""
    account = limited(MemoryShelf())

    async def ask(number: int) -> float:
        return await asyncio.to_thread(account.ask, str(number), "", ONE, 1_000)

    async def all_at_once() -> list[float]:
        return await asyncio.gather(*map(ask, range(100)))

    assert sum(wait == 0 for wait in asyncio.run(all_at_once())) == 58


def test_a_finalizer_in_the_middle_of_an_update_is_heard_later() -> None:
    """A dropped stream may end while the same thread counts another call: neither waits, and both are counted."""
    shelf = MemoryShelf()
    account = limited(shelf)
    assert account.ask("first", "", ONE, 1_000) == 0

    def change(allowance: Allowance) -> float:
        account.ended("first", ONE, 0, 1_001, is_ok=True)  # what garbage collection does at any moment
        return float(len(allowance.held))

    assert account._update(change) == 1
    assert account._update(lambda allowance: float(len(allowance.held))) == 0
