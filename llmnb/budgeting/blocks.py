"""Blocks: money that a process holds for many calls at once, so that not each of them has to ask the ledger.

A block is two reservations of the ledger for each of its budgets: what its calls hold, and what is free. Calls take
slices of it, in memory; what a call did not use is free for the next as soon as it has ended, and what it did use stays
held until its row is on the books: for a moment it counts twice, and never not at all. A call that took more than was
held for it takes the rest from what is free, so that a block passes a limit by no more than the calls under way do
without one.

There is a block only where calls come thick and fast. It has room for those of about the next quarter of a second, and
never for more than an eighth of what nobody has spent or holds: near the limit every call asks for itself. A process
that has to wait gives back what it holds for calls to come, and so does one that has made no call for a moment.

A process on another machine that was killed, or cut off, renews nothing any more. When what was free of its block has
not been written for `STALE_US`, by the clock of the ledger, others let go of it, and long before that, after `LEASE_S`,
the process itself gives nothing of it any more, should it only have slept. What its calls held stays held like that of
any call on another machine: until they are on the books, or for a day. (What calls were given between the last renewal
and the kill, mostly a quarter of a second, is let go with the rest: they are on the books when that machine is back.)
"""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from llmnb import origin
from llmnb.budgeting import counting
from llmnb.budgeting.budget import Budget, Unit
from llmnb.budgeting.desk import Ask
from llmnb.ledger.sql import Connection
from llmnb.ledger.zones import SLOT_US

FEW = 8
"""So many calls within `WINDOW_S` make a block worth its while."""
WINDOW_S = 0.25
SHARE = 8
"""At most this part of what nobody has spent or holds is held for calls to come."""
_MOST_AT_ONCE = 32
"""For so many calls what they may take is held at most; the next have what those before them did not use."""
LEASE_S = 10.0
"""So long after it was written down last what is free of a block is given out. It is written down each second."""
STALE_US = 10 * 60 * 1_000_000
"""What is free of a block that was written down longer ago is nobody's. It is so much longer than a lease because a
transaction takes its time, and clocks go apart."""
_PREFIX, _FREE = "block:", ":free"
_NOW_US = "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"
"""Of the ledger: where that is on another machine, of its server."""
_HELD = f"""
    INSERT INTO reservations VALUES (?, ?, ?, ?, ?, ?, ?, {_NOW_US}) ON CONFLICT (uid, budget_id) DO UPDATE SET
    amount = excluded.amount, excess = excluded.excess, taken_at = excluded.taken_at
"""  # noqa: S608 - our own text
_IS_STALE = f"uid LIKE '{_PREFIX}%{_FREE}' AND taken_at < {_NOW_US} - {STALE_US}"
_numbers = itertools.count(1)

Needs = Callable[[Unit, int], int]


@dataclass(slots=True)
class _Slice:
    """What a call holds of a block, by budget; less, once it is known what it took."""

    amounts: list[int]
    ended_at: float | None = None


# not compared: two are never the same
@dataclass(slots=True, eq=False)
class Block:
    """Money of some budgets, in one quarter of an hour: a period begins and ends with one. All lists are by budget."""

    uid: str
    budgets: tuple[Budget, ...]
    ts: int
    free: list[int]
    excess: list[int]
    needs: list[int] = field(default_factory=list[int])
    slices: dict[str, _Slice] = field(default_factory=dict[str, _Slice])
    taken: list[int] = field(default_factory=list[int])
    """What calls took that have ended since the block was last filled."""
    asks: int = 0
    """How many calls wanted something since then."""
    is_in_ledger: bool = False
    """Whether the ledger may hold money for it, be it more than is known here: a transaction may have failed."""
    written_at: tuple[float, float] = (0.0, 0.0)
    """When the ledger was last told what is free, by two clocks: one stands still in a sleep, one may be set."""

    @property
    def free_uid(self) -> str:
        """Under which what is free is in the ledger."""
        return f"{self.uid}{_FREE}"

    @property
    def slot(self) -> int:
        return self.ts // SLOT_US

    def in_slices(self) -> list[int]:
        """What calls hold of it."""
        amounts = [one.amounts for one in list(self.slices.values())]
        return [sum(column) for column in zip(*amounts, strict=True)] if amounts else [0] * len(self.budgets)


class Blocks:
    """The blocks of this process. What is given out in memory is never more than the ledger says is held.

    Whoever changes them in the ledger does so inside a transaction, and one at a time (`Reservations` sees to both).
    """

    def __init__(self, is_under_way: Callable[[str], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._is_under_way = is_under_way
        self._clock = clock
        self.forget()

    def forget(self) -> None:
        """In a forked child: what is held is the parent's."""
        self._desk = threading.RLock()
        self._lock = threading.RLock()  # reentrant: a finalizer may end a call in the middle of anything
        self._blocks: list[Block] = []
        self._since, self._asks, self._before = self._clock(), 0, 0
        self._filled: list[tuple[Block, list[int], bool, tuple[float, float]]] = []
        self._alone: list[tuple[Block, str, _Slice]] = []

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def __contains__(self, uid: str) -> bool:
        """Whether it is the uid of one of them."""
        return any(uid in (block.uid, block.free_uid) for block in self._blocks)

    # In memory --------------------------------------------------------------------------------------------------------

    def give(self, ask: Ask, budgets: tuple[Budget, ...]) -> bool:
        """Gives a call what it needs of these budgets, if that is at hand."""
        block = self._of(budgets, ask.ts)
        if block is None or ask.attempt > 1 or ask.holder is not None or self._is_late(block):
            return False
        amounts: list[int] = []
        for budget, most_excess in zip(budgets, block.excess, strict=True):
            need = ask.needs[budget.unit]
            if need is None or need.excess > most_excess:
                return False
            amounts.append(need.amount)
        with self._lock:
            block.asks += 1
            if any(amount > free for amount, free in zip(amounts, block.free, strict=True)):
                block.needs = [max(pair) for pair in zip(block.needs, amounts, strict=True)]
                return False
            block.free = [free - amount for amount, free in zip(amounts, block.free, strict=True)]
            block.slices[ask.uid] = _Slice(amounts)
        self._count()
        return True

    def stretch(self, ask: Ask, budgets: tuple[Budget, ...], output_tokens: int, needs: Needs) -> bool:
        """Has a call hold what it needs with that many tokens, more or less than before, if that is at hand."""
        block = self._with(ask.uid)
        if block is None or block.budgets != budgets or self._is_late(block):
            return False
        amounts = [needs(budget.unit, output_tokens) for budget in budgets]
        with self._lock:
            held = block.slices.get(ask.uid)
            if held is None:  # another thread had it hold this for itself just now
                return False
            free = [free + had - now for free, had, now in zip(block.free, held.amounts, amounts, strict=True)]
            if any(new < 0 and new < old for new, old in zip(free, block.free, strict=True)):
                return False
            block.free, held.amounts = free, amounts
        return True

    def settle(self, uid: str, took: Mapping[Unit, int]) -> bool:
        """A call has ended; whether it held anything here. The rest is free; what it took beyond is taken from that."""
        block = self._with(uid)
        if block is None:
            return False
        amounts = [took[budget.unit] for budget in block.budgets]
        with self._lock:
            held = block.slices.get(uid)
            if held is None:
                return False
            block.free = [free + had - now for free, had, now in zip(block.free, held.amounts, amounts, strict=True)]
            block.taken = [before + now for before, now in zip(block.taken, amounts, strict=True)]
            held.amounts, held.ended_at = amounts, self._clock()
        return True

    def calls(self, uids: Iterable[str]) -> tuple[str, ...]:
        """The same uids, with those of the calls in place of the blocks of this process."""
        calls: dict[str, list[str]] = {block.uid: list(block.slices) for block in self._blocks}
        calls |= {block.free_uid: [] for block in self._blocks}
        return tuple(uid for one in uids for uid in calls.get(one, [one]))

    def drop_lost(self, age_s: float) -> None:
        """Lets go of what calls took that ended so long ago, though everything is written: their rows are lost."""
        now = self._clock()
        with self._lock:
            for block in self._blocks:
                for uid, held in list(block.slices.items()):
                    if self._is_under_way(uid):  # it may have looked ended while it began
                        held.ended_at = None
                    elif held.ended_at is None:
                        held.ended_at = now
                    elif now - held.ended_at > age_s:
                        del block.slices[uid]

    # In the ledger ----------------------------------------------------------------------------------------------------

    def fill(self, connection: Connection, ask: Ask, budgets: tuple[Budget, ...]) -> None:
        """Holds money for calls to come that are like this one, if many of them are to be expected."""
        self._count()
        calls = self._expected()
        needs = [ask.needs[budget.unit] for budget in budgets]
        if calls < FEW or not budgets or ask.attempt > 1 or ask.holder is not None:
            return
        given = [need for need in needs if need is not None]
        if len(given) < len(needs):
            return
        block = self._of(budgets, ask.ts) or self._new(budgets, ask.ts)
        block.needs = [need.amount for need in given]
        excess = [need.excess for need in given]
        block.excess = [max(pair) for pair in zip(block.excess, excess, strict=True)] if block.slices else excess
        self._renew(connection, block, calls)

    def renew(self, connection: Connection, known: Collection[Budget], *, keeps: bool) -> None:
        """Lets go of what calls took that are on the books, and of what is free where no calls come any more.

        Unless `keeps`: of all that is free.
        """
        calls = self._expected()
        for block in list(self._blocks):
            goes_on = keeps and block.asks > 0 and calls >= FEW and all(budget in known for budget in block.budgets)
            self._renew(connection, block, calls if goes_on else 0)

    def single_out(self, connection: Connection, uid: str) -> None:
        """Has a call hold for itself what it has of a block."""
        block = self._with(uid)
        if block is not None:
            free = self._set_aside(block)
            self._forget_written(connection, block, [uid])
            self._hold_alone(connection, block, [uid])
            self._put(connection, block, free)

    def dissolve(self, connection: Connection) -> None:
        """Has every call hold for itself what it has; nothing is held for calls to come."""
        for block in list(self._blocks):
            self._forget_written(connection, block, list(block.slices))
            self._hold_alone(connection, block, list(block.slices))
            self._put(connection, block, [0] * len(block.budgets))

    @contextmanager
    def changing(self) -> Generator[None]:
        """Around a transaction that changes them. What it holds is given out from its end on; if it fails, nothing.

        Calls have their slices back then.
        """
        with self._desk:
            self._filled, self._alone = [], []
            try:
                yield
            except BaseException:
                self._take_back()
                raise
            self._publish()

    def _publish(self) -> None:
        with self._lock:
            for block, amounts, is_in_ledger, written_at in self._filled:
                block.free = [free + more for free, more in zip(block.free, amounts, strict=True)]
                block.written_at = written_at
                block.is_in_ledger = is_in_ledger
            self._blocks = [one for one in self._blocks if one.slices or any(one.free) or one.is_in_ledger]
            self._filled, self._alone = [], []

    def _take_back(self) -> None:
        with self._lock:
            for block, uid, held in self._alone:
                block.slices[uid] = held  # whole, though the call may have ended meanwhile: until its row is there
            self._filled, self._alone = [], []

    # Below ------------------------------------------------------------------------------------------------------------

    def _of(self, budgets: tuple[Budget, ...], ts: int) -> Block | None:
        slot = ts // SLOT_US
        for block in self._blocks:
            if block.slot == slot and block.budgets == budgets:
                return block
        return None

    def _with(self, uid: str) -> Block | None:
        return next((block for block in self._blocks if uid in block.slices), None)

    def _new(self, budgets: tuple[Budget, ...], ts: int) -> Block:
        uid = f"{_PREFIX}{origin.session()}:{next(_numbers)}"
        nothing = [0] * len(budgets)
        block = Block(uid, budgets, ts, nothing, nothing, taken=nothing)
        self._blocks = [*self._blocks, block]
        return block

    def _count(self) -> None:
        """A call has got what it needs, here or of the ledger."""
        now = self._clock()
        if now - self._since >= WINDOW_S:
            self._before = self._asks if now - self._since < 2 * WINDOW_S else 0
            self._since, self._asks = now, 0
        self._asks += 1

    def _expected(self) -> int:
        """How many calls may come in the next moment: as many as came in this one, or in the last."""
        age_s = self._clock() - self._since
        if age_s >= 2 * WINDOW_S:
            return 0
        return max(self._asks, self._before if age_s < WINDOW_S else 0)

    def _renew(self, connection: Connection, block: Block, calls: int) -> None:
        self._forget_written(connection, block, [uid for uid in list(block.slices) if not self._is_under_way(uid)])
        self._set_aside(block)
        taken, block.taken, block.asks = block.taken, [0] * len(block.budgets), 0
        slices = block.in_slices()
        free = [0] * len(block.budgets)
        if calls:
            most_calls = min(calls, _MOST_AT_ONCE)
            wanted = [2 * one + need * most_calls for one, need in zip(taken, block.needs, strict=True)]
            rooms = [self._room(connection, block, i, held) for i, held in enumerate(slices)]
            more = [max(0, min(want, room // SHARE)) for want, room in zip(wanted, rooms, strict=True)]
            if all(amount >= 2 * need for amount, need in zip(more, block.needs, strict=True)):
                free = more
        self._put(connection, block, free)

    def _room(self, connection: Connection, block: Block, index: int, in_slices: int) -> int:
        """What nobody has spent or holds of a budget, with room for one answer that gets longer."""
        budget = block.budgets[index]
        spent = counting.spent(connection, budget, budget.period(block.ts)).amount
        most, excess = counting.held_at_most(connection, budget, besides=block.uid, also=block.free_uid)
        return budget.allowance - spent - most - in_slices - max(excess, block.excess[index])

    def _set_aside(self, block: Block) -> list[int]:
        """Has nothing more given out before what is held now is in the ledger; what was free, and is still ours."""
        with self._lock:
            free, block.free = block.free, [0] * len(block.budgets)
        return [min(0, one) for one in free] if self._is_late(block) else free

    def _is_late(self, block: Block) -> bool:
        """Whether others may soon take what is free of it."""
        now, now_s = self._now()
        before, before_s = block.written_at
        return max(now - before, now_s - before_s) > LEASE_S

    def _now(self) -> tuple[float, float]:
        return self._clock(), time.time()

    def _put(self, connection: Connection, block: Block, free: Sequence[int]) -> None:
        """Writes down what the block holds: its slices, and what is free, to be given out once that is committed."""
        with self._lock:
            block.free = [0] * len(block.budgets)
            wanted: dict[str, list[int]] = {}
            if any(in_slices := block.in_slices()) or block.slices:
                wanted[block.uid] = in_slices
            if any(spare := [max(0, more) for more in free]):
                wanted[block.free_uid] = spare
            before = [one for one in self._filled if one[0] is not block]  # what is written now takes its place
            self._filled = [*before, (block, list(free), bool(wanted), self._now())]
        block.is_in_ledger = block.is_in_ledger or bool(wanted)  # from now on, whatever becomes of the transaction
        for uid, amounts in wanted.items():
            _hold(connection, uid, block, amounts)
        if len(wanted) < 2:
            gone = [uid for uid in (block.uid, block.free_uid) if uid not in wanted]
            connection.execute(
                "DELETE FROM reservations WHERE uid IN (SELECT value FROM json_each(?))", (json.dumps(gone),)
            )

    def _forget_written(self, connection: Connection, block: Block, uids: Sequence[str]) -> None:
        if not uids:
            return
        sql = "SELECT uid FROM calls WHERE uid IN (SELECT value FROM json_each(?)) AND status <> 'running'"
        for (uid,) in connection.execute(sql, (json.dumps(uids),)):
            block.slices.pop(uid, None)

    def _hold_alone(self, connection: Connection, block: Block, uids: Sequence[str]) -> None:
        for uid in uids:
            held = block.slices.pop(uid, None)
            if held is not None:
                self._alone.append((block, uid, held))
                _hold(connection, uid, block, held.amounts)


def _hold(connection: Connection, uid: str, block: Block, amounts: Sequence[int]) -> None:
    for budget, amount, excess in zip(block.budgets, amounts, block.excess, strict=True):
        row = (uid, budget.id, 1, block.ts, amount, excess, origin.session())
        connection.execute(_HELD, row)


def has_stale(connection: Connection) -> bool:
    """Whether money is held for calls to come by a process that has said nothing of it for `STALE_US`."""
    return connection.execute(f"SELECT 1 FROM reservations WHERE {_IS_STALE} LIMIT 1").fetchone() is not None  # noqa: S608


def let_go_of_stale(connection: Connection) -> None:
    """Lets go of it, inside a transaction. What calls hold is left alone."""
    connection.execute(f"DELETE FROM reservations WHERE {_IS_STALE}")  # noqa: S608


def is_block(uid: str) -> bool:
    """Whether money is held under this uid for many calls at once, by whatever process."""
    return uid.startswith(_PREFIX)
