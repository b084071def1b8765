"""What stands at the gate of one ledger: its budgets, what is usual for its calls, and who tidies up after the dead."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Collection
from pathlib import Path

from llmnb import origin
from llmnb.budgeting.blocks import let_go_of_stale
from llmnb.budgeting.budget import all_budgets
from llmnb.budgeting.definitions import recount
from llmnb.budgeting.past import Past
from llmnb.budgeting.reservations import Reservations, reservations
from llmnb.later import Later
from llmnb.ledger import books, open_ledger
from llmnb.ledger.sessions import is_dead, is_of_this_host
from llmnb.ledger.shelf import spool_folder
from llmnb.places import Place
from llmnb.settings import Settings
from llmnb.trouble import quietly

TIDY_S = 1.0
"""How often those who wait have the dead looked after."""
SETTLING_US = 5_000_000
"""How long a reservation of this process may be unknown to it: it may have been made in this moment."""
GIVE_UP_US = 24 * 3600 * 1_000_000
"""How long a process on another host, of which nothing can be known, may hold money."""


class Guard:
    """The budgets of the ledger of the settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.reservations: Reservations = reservations(settings.ledger_path)
        self.reservations.look_ahead()
        self.past = Past(lambda: self.reservations.ledger)
        self._janitor = Later(self._tidy_quietly, apart=True)
        self._tidied_at = -TIDY_S

    def tidy_soon(self) -> None:
        """Has money let go, in the background, that dead processes hold, or calls of this one whose row is lost."""
        now = time.monotonic()
        if now - self._tidied_at >= TIDY_S:
            self._tidied_at = now
            self._janitor.ask()

    def tidy(self) -> None:
        """The same here and now.

        Raises:
            StoreError: the ledger cannot be read or written.
        """
        kept = books(self._settings)
        all_written = kept.settle()
        kept.adopt()  # the calls of the dead are on the books now, which lets their money go
        ledger = open_ledger(self._settings.ledger_path)
        with ledger.transaction(reading=True) as connection:
            holders = [row[0] for row in connection.execute("SELECT DISTINCT session FROM reservations")]
            unfinished = [budget for budget in all_budgets(connection) if budget.counting is not None]
        dead = [session for session in holders if is_dead(session) and not self._has_notes(session)]
        if dead:
            ledger.sweep()  # after the look for notes: what somebody else adopted is no longer `running` now
        self._let_go(dead, all_written=all_written)
        for budget in unfinished:
            recount(ledger, budget)

    def _tidy_quietly(self) -> None:
        try:
            self.tidy()
        except Exception as trouble:
            quietly("letting go of what dead processes hold of budgets", trouble)

    def _has_notes(self, session: str) -> bool:
        """Whether what a process left is still to be put on the books, by whoever is at it."""
        start = f"{socket.gethostname()}-{session.rsplit(':', 3)[1]}-"
        folder = spool_folder(self._settings)
        return any(_has_files(place, start) for place in (folder, folder / "underway"))

    def _let_go(self, dead: Collection[str], *, all_written: bool) -> None:
        now_us, session = time.time_ns() // 1000, origin.session()
        if all_written:
            self.reservations.blocks.drop_lost(SETTLING_US / 1e6)
        with open_ledger(self._settings.ledger_path).transaction() as connection:
            rows = connection.execute("SELECT DISTINCT session, uid, taken_at FROM reservations").fetchall()
            gone = [
                uid
                for holder, uid, taken_at in rows
                if holder in dead
                or (not is_of_this_host(holder) and taken_at < now_us - GIVE_UP_US)
                or (holder == session and all_written and self._is_lost(uid, now_us - taken_at))
            ]
            connection.executemany("DELETE FROM reservations WHERE uid = ?", [(uid,) for uid in gone])
            let_go_of_stale(connection)

    def _is_lost(self, uid: str, age_us: int) -> bool:
        """Whether a call of this process has ended, everything is written, and still its money is held."""
        held = self.reservations
        return uid not in held.open and uid not in held.blocks and age_us > SETTLING_US


def _has_files(folder: Path, start: str) -> bool:
    return any(folder.glob(f"{start}*.jsonl"))


_by_place: dict[tuple[Place, Path], Guard] = {}
_lock = threading.Lock()


def guard(settings: Settings) -> Guard:
    """The guard of a ledger, the same one for the whole process."""
    key = (settings.ledger_path, spool_folder(settings))
    with _lock:
        if key not in _by_place:
            _by_place[key] = Guard(settings)
        return _by_place[key]
