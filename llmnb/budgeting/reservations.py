"""Holds money for calls under way, so that no two of them spend the same: the transactions on one ledger's budgets.

Money is held in the transaction that finds it free (`BEGIN IMMEDIATE`), and let go by the ledger itself in the
transaction that writes the call's row: at no moment is a call counted twice, or not at all. Where calls come thick and
fast, money is held for many of them at once (see `llmnb.budgeting.blocks`).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from llmnb import forks
from llmnb.budgeting import counting
from llmnb.budgeting.alerts import LEVELS, Alert, due, said
from llmnb.budgeting.blocks import Blocks
from llmnb.budgeting.budget import Budget, Unit, all_budgets
from llmnb.budgeting.desk import Ask, Desk, Ended, Granted, MustWait, Need, Stretched, Verdict
from llmnb.budgeting.look_behind import LookBehind
from llmnb.errors import StoreBusy, StoreError
from llmnb.later import Later
from llmnb.ledger import Store, new_ledger
from llmnb.ledger.connection import reading
from llmnb.ledger.sql import Connection
from llmnb.places import Place
from llmnb.slots import Owner
from llmnb.trouble import quietly

LOOK_S = 0.1
"""How old what is known of the budgets may be when a call begins: one set by another process counts within this time.
Where any budget concerns a call, they are read anew in the transaction that holds the money."""
BUSY_S = 0.01
"""How long one try waits for a locked ledger: an event loop may be waiting with it."""

_LONGEST_PAUSE_S = 60.0
_LONGEST_REMOTE_PAUSE_S = 5.0
"""Nobody waits for these looks, while calls under a budget are refused until one succeeds."""
_MOST_ENDED = 1_000
_RENEW_S = 1.0
"""How soon somebody looks again whether calls have ended that hold a share of a block."""
_TRIES = 20
_NEVER = 1 << 62


@dataclass(slots=True)
class _Seen:
    """What this process last saw of a budget, and has spent of it since."""

    period: int
    spent: int
    next_at: int
    """A hundred times what has to be spent for there to be something to say."""


class Reservations:
    """The budgets of the ledger at `path`, and what this process holds of them. Safe in threads and after a fork."""

    def __init__(self, path: Place, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        self._ledger: Store | None = None
        self._known: tuple[Budget, ...] = ()
        self._looked_at: float | None = None
        self._is_ahead = False
        self._pause_s = 0.0
        self.open: dict[str, Owner] = {}
        """Calls of this process that hold money, and who made them."""
        self._seen: dict[int, _Seen] = {}
        self._ended: dict[str, Ended] = {}
        """Calls of this process that ended a moment ago: their rows may not be on the books yet."""
        self.trouble: StoreError | None = None
        """Why the budgets could not be read when that was last tried."""
        self._is_remote = not isinstance(path, Path)
        self._behind = LookBehind(self._look)
        self.blocks = Blocks(self.open.__contains__, clock)
        self._renewing = Later(self._renew_behind, apart=self._is_remote)
        self._renew_pause_s = 0.0
        forks.tell(self)

    # Which budgets there are ------------------------------------------------------------------------------------------

    def known(self) -> tuple[Budget, ...]:
        """The budgets, as they were at most `LOOK_S` ago; those last known while they cannot be read. Never raises."""
        now = self._clock()
        if self._is_ahead:
            self._is_ahead = False
            if self._behind.has_looked and self.trouble is None:  # long ago, perhaps; the connection is warm by now
                self.forget()
        if self._looked_at is None or now - self._looked_at >= (self._pause_s or LOOK_S):
            self._looked_at = now
            if self._is_remote:
                self._behind.look()
            else:
                self._look()
        if self._is_remote:
            self._behind.wait()
        return self._known

    def look_ahead(self) -> None:
        """Begins to look for a team's budgets, so that the first call has less to wait for. Never raises."""
        if self._is_remote and self._looked_at is None:
            self._looked_at, self._is_ahead = self._clock(), True
            self._behind.look()

    @property
    def last_known(self) -> tuple[Budget, ...]:
        """The budgets as they were when they were last read."""
        return self._known

    def forget(self) -> None:
        """Has the budgets read anew for the next call."""
        self._looked_at = None
        self._pause_s = 0.0
        self._behind.forget()

    def _look(self) -> None:
        try:
            self._known = self._read() if self.path.exists() else ()
        except StoreBusy as error:  # at the next look, then
            self.trouble = error
        except StoreError as error:
            self.trouble = error
            longest_s = _LONGEST_REMOTE_PAUSE_S if self._is_remote else _LONGEST_PAUSE_S
            self._pause_s = min(longest_s, self._pause_s * 2 or 1.0)
        else:
            self.trouble = None
            self._pause_s = 0.0

    def _read(self) -> tuple[Budget, ...]:
        if self._is_remote:  # in a thread: not on the connection that callers hold money with
            with reading(self.path) as connection:
                return () if connection is None else all_budgets(connection)
        try:
            with self.ledger.transaction(reading=True) as connection:
                return all_budgets(connection)
        except StoreBusy:
            raise
        except StoreError:  # one that cannot be written can perhaps be read, so that what it forbids is known
            with reading(self.path) as connection:
                return () if connection is None else all_budgets(connection)

    @property
    def ledger(self) -> Store:
        """The ledger on a connection of its own, which does not wait for long.

        Raises:
            StoreError: it cannot be opened.
        """
        if self._ledger is None:
            self._ledger = new_ledger(self.path, busy_timeout_s=BUSY_S)
        return self._ledger

    def _transaction(self, *, reading: bool = False) -> AbstractContextManager[Connection]:
        """A transaction; while another machine is away, at once what was wrong when it was last looked for."""
        if self._is_remote and self.trouble is not None and not isinstance(self.trouble, StoreBusy):
            raise self.trouble
        return self.ledger.transaction(reading=reading)

    # Holding ----------------------------------------------------------------------------------------------------------

    def reserve(self, ask: Ask, owner: Owner) -> Verdict:
        """Holds what a call needs of every budget that concerns it, or of none.

        Raises:
            StoreBusy: the ledger is locked just now.
            StoreError: it cannot be read or written.
        """
        return self._reserved(ask, owner)

    def given(self, ask: Ask, owner: Owner, budgets: tuple[Budget, ...]) -> Granted | None:
        """Gives a call what it needs of what is held for many of them at once; None: there is not so much.

        `budgets` are those of `known` that can stop the call.
        """
        if not self.blocks.give(ask, budgets):
            return None
        self.open[ask.uid] = owner
        self._renewing.ask()
        return Granted(budgets)

    def draw(self, ask: Ask, owner: Owner) -> Verdict:
        """As `reserve`; holds money for others like this call as well, if many are to be expected.

        Raises:
            StoreBusy, StoreError: as in `reserve`.
        """
        try:
            return self._reserved(ask, owner, for_many=True)
        except StoreBusy:
            raise
        except StoreError:  # when the ledger went away at the end, it may hold a block all the same
            if self.blocks:
                self._renewing.ask()
            raise

    def _reserved(self, ask: Ask, owner: Owner, *, for_many: bool = False) -> Verdict:
        with self.blocks.changing(), self._transaction() as connection:
            self.blocks.single_out(connection, ask.uid)
            known = all_budgets(connection)
            concerned = [budget for budget in known if budget.concerns(ask.call)]
            desk = Desk(connection, ask)
            verdict = desk.judge(concerned)
            if self.blocks and not isinstance(
                verdict, Granted
            ):  # what others may need more is not kept for calls to come
                self.blocks.renew(connection, known, keeps=False)
                said_before, verdict = verdict.alerts, desk.judge(concerned)
                verdict = replace(verdict, alerts=(*said_before, *verdict.alerts))
            if isinstance(verdict, Granted):
                desk.hold(verdict.budgets)
                self.open[ask.uid] = owner
                if for_many:
                    self.blocks.fill(connection, ask, verdict.budgets)
            elif isinstance(verdict, MustWait):
                verdict = replace(verdict, uids=self.blocks.calls(verdict.uids))
        self._note(desk)
        if self.blocks:
            self._renewing.ask()
        return verdict

    def stretch(self, ask: Ask, used: int, wanted: int, needs: Callable[[Unit, int], int]) -> Stretched:
        """Holds more, or less, for an answer that goes on: as many output tokens up to `wanted` as there is money for.

        `needs` says what the call costs with that many tokens. What is held is never less than what it costs with the
        tokens that were `used` already.

        Raises:
            StoreBusy, StoreError: as in `reserve`.
        """
        if self.blocks and self.blocks.stretch(ask, self._stopping(self.known(), ask), max(wanted, used), needs):
            return Stretched(wanted)
        with self.blocks.changing(), self._transaction() as connection:
            self.blocks.single_out(connection, ask.uid)
            known = all_budgets(connection)
            concerned = self._stopping(known, ask)
            desk = Desk(connection, ask)
            granted = self._stretched(desk, concerned, wanted, needs)
            if self.blocks and granted.output_tokens < wanted:
                self.blocks.renew(connection, known, keeps=False)
                granted = self._stretched(desk, concerned, wanted, needs)
            for budget in concerned:
                if ask.needs[budget.unit] is not None:
                    desk.set(budget, Need(needs(budget.unit, max(granted.output_tokens, used))))
        return granted

    def _stretched(
        self, desk: Desk, concerned: Sequence[Budget], wanted: int, needs: Callable[[Unit, int], int]
    ) -> Stretched:
        granted = Stretched(wanted)
        for budget in concerned:
            found = desk.stretched(budget, wanted, needs)
            if found.output_tokens < granted.output_tokens:
                granted = found
        return granted

    def _stopping(self, known: Sequence[Budget], ask: Ask) -> tuple[Budget, ...]:
        return tuple(budget for budget in known if budget.action == "stop" and budget.concerns(ask.call))

    def ended(self, uid: str) -> None:
        """The call has ended; the ledger lets its money go when it writes the row."""
        self.open.pop(uid, None)

    def let_go(self, uid: str) -> None:
        """Lets go of what is held under a uid that no row will have.

        Raises:
            StoreBusy, StoreError: as in `reserve`.
        """
        self.open.pop(uid, None)
        with self._transaction() as connection:
            connection.execute("DELETE FROM reservations WHERE uid = ?", (uid,))

    # For many calls at once -------------------------------------------------------------------------------------------

    def give_back(self) -> None:
        """Lets go of what is held for calls to come, and of what calls took whose rows are on the books.

        Raises:
            StoreBusy, StoreError: as in `reserve`.
        """
        if self.blocks:
            self._renew(keeps=False)

    def _renew(self, *, keeps: bool) -> None:
        with self.blocks.changing(), self._transaction() as connection:
            known = all_budgets(connection)
            self.blocks.renew(connection, known, keeps=keeps)
            for budget in known:
                seen = self._seen.get(budget.id)
                if seen is not None:  # others may have spent; what is to be said is said when a call of ours ends
                    spent = counting.spent(connection, budget, budget.period(time.time_ns() // 1000)).amount
                    seen.spent = max(seen.spent, spent)

    def _renew_behind(self) -> None:
        try:
            if self.blocks:
                self._renew(keeps=True)
            self._renew_pause_s = 0.0
        except StoreError:
            self._renew_pause_s = min(_LONGEST_PAUSE_S, self._renew_pause_s * 2 or LOOK_S)
        except Exception as trouble:
            self._renew_pause_s = _LONGEST_PAUSE_S
            quietly("settling what is held for many calls", trouble)
        if self.blocks:  # calls whose rows are not on the books yet, or that are under way
            self._renewing.ask_after(self._renew_pause_s or _RENEW_S)

    # Alerts -----------------------------------------------------------------------------------------------------------

    def look(self, call: Mapping[str, Any], ts: int) -> tuple[Alert, ...]:
        """What is to be said of the budgets that concern a call, to be said by whoever asks, and by nobody again.

        Raises:
            StoreBusy, StoreError: as in `reserve`.
        """
        desk = None
        with self._transaction(reading=True) as connection:
            desk = Desk(connection, Ask("", 1, ts, call, {}), self._unwritten(connection))
            alerts = desk.alerts([budget for budget in all_budgets(connection) if budget.concerns(call)])
        self._note(desk)
        return self._claim(alerts) if alerts else ()

    def settled(self, call: Mapping[str, Any], amounts: Mapping[Unit, int]) -> tuple[Alert, ...]:
        """The same when a call has ended which took `amounts`; the ledger is asked only when a line may be crossed.

        Raises:
            StoreBusy, StoreError: as in `reserve`.
        """
        crossing = False
        if self.blocks.settle(call["uid"], amounts):
            self._renewing.ask()
        self._ended[call["uid"]] = Ended(call, amounts)
        if len(self._ended) > _MOST_ENDED:
            self._ended.pop(next(iter(self._ended)), None)
        for budget in self._known:
            seen = self._seen.get(budget.id)
            if seen is not None and budget.concerns(call):
                seen.spent += amounts[budget.unit]
                crossing = crossing or seen.spent * 100 >= seen.next_at
        if not crossing:
            return ()
        with self._transaction(reading=True) as connection:
            ask = Ask(call["uid"], 1, call["ts"], call, {})
            desk = Desk(connection, ask, self._unwritten(connection))
            alerts = desk.alerts([budget for budget in all_budgets(connection) if budget.concerns(call)])
        self._note(desk)
        return self._claim(alerts) if alerts else ()

    def _claim(self, alerts: tuple[Alert, ...]) -> tuple[Alert, ...]:
        with self._transaction() as connection:
            now = {budget.id: budget for budget in all_budgets(connection)}
            return tuple(alert for alert in alerts if said(connection, now.get(alert.budget.id), alert))

    def _unwritten(self, connection: Connection) -> Sequence[Ended]:
        """The calls that have ended and are not on the books yet; those that are by now are forgotten."""
        ended = dict(self._ended)
        if not ended:
            return ()
        sql = "SELECT uid FROM calls WHERE uid IN (SELECT value FROM json_each(?)) AND status <> 'running'"
        written = {uid for (uid,) in connection.execute(sql, (json.dumps(list(ended)),))}
        for uid in written:
            self._ended.pop(uid, None)
        return [one for uid, one in ended.items() if uid not in written]

    def _note(self, desk: Desk) -> None:
        for budget, (period, count) in desk.looked_up.items():
            before = self._seen.get(budget.id)
            # what calls of this process took that ended a moment ago may not be in what was counted
            known = before.spent if before is not None and before.period == period else 0
            percent = due(count.amount, budget.allowance)
            next_level = min((level for level in LEVELS if level > percent), default=_NEVER)
            self._seen[budget.id] = _Seen(period, max(known, count.amount), next_level * budget.allowance)

    def close(self) -> None:
        """Lets go of the ledger, and of what no call holds; it is opened again when it is asked for."""
        for _ in range(_TRIES if self.blocks else 0):
            try:
                with self.blocks.changing(), self._transaction() as connection:
                    self.blocks.dissolve(connection)
                break
            except StoreBusy:
                continue
            except StoreError:  # whoever looks after the dead lets it go
                break
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            ledger.close()

    def after_fork(self) -> None:
        """Begins anew in a forked child."""
        self._behind.after_fork()
        self._looked_at, self._is_ahead = None, False
        self._ended.clear()
        self.blocks.forget()
        self.open.clear()  # these calls are the parent's


# One set a process and ledger -----------------------------------------------------------------------------------------

_of_process: forks.OnePerPlace[Place, Reservations] = forks.OnePerPlace()


def reservations(path: Place) -> Reservations:
    """The budgets of a ledger, the same for the whole process; nothing is opened before they are asked for."""
    return _of_process.at(path, lambda: Reservations(path))


def let_go(path: Place) -> None:
    """Has this process let go of what it holds for calls to come, so far as the ledger lets it just now."""
    found = _of_process.known.get(path)
    if found is not None:
        with suppress(StoreError):
            found.give_back()
