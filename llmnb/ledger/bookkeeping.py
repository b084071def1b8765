"""Keeps the books whatever happens: records calls, and when the ledger cannot be written keeps them until it can.

A row goes to the ledger, else to the spool on disk, else (disk full) to memory. What waits is written before anything
newer of this process, so that a late row never overwrites a later one.

A caller does not wait for the ledger: its row is put into the notes of calls under way, from which the next process
would take it after a kill, and a thread commits what came together within a moment. So a locked ledger delays nobody,
and a commit is shared by many calls. Reading the ledger in the same process settles first.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from llmnb import forks
from llmnb.errors import StoreError
from llmnb.later import Later
from llmnb.ledger.answered import AnsweredCall, EndedCall, UnbilledCall
from llmnb.ledger.beginning import Origin, encode_beginning, encode_fields
from llmnb.ledger.shelver import Shelver
from llmnb.ledger.spool import Record
from llmnb.ledger.sql import Store
from llmnb.ledger.underway import Underway
from llmnb.pricing import cost_of_call
from llmnb.records import Call
from llmnb.settings import PriceOverride
from llmnb.trouble import LlmnbWarning, warn_once_of

MOST_QUEUED = 10_000

Queued: TypeAlias = "Record | EndedCall"


class Books:
    """Records calls into the ledger that `opened` gives, and never raises."""

    def __init__(
        self,
        opened: Callable[[], Store],
        spool_folder: Path,
        *,
        prices: Mapping[str, PriceOverride] | None = None,
        behind: bool = False,
        remote: bool = False,
        wrote: Callable[[int], object] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`behind`: rows are written by a thread, a moment later; otherwise before `record` returns.

        `remote`: the ledger is on another machine, of which no caller ever waits to hear: what cannot be noted goes
        into the spool instead, and so does what more than `MOST_QUEUED` rows have to wait for.

        `wrote` is told by that thread, outside of all locks, how many rows it wrote.
        """
        self._opened = opened
        self._folder = spool_folder
        self._prices = prices
        self._behind = behind
        self._remote = remote
        self._wrote = wrote
        self._shelver = Shelver(opened, spool_folder, warn=self._warn, again=self._again, clock=clock)
        self._underway = Underway(spool_folder / "underway")
        self._begin()
        forks.tell(self)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._queue: deque[Queued] = deque()
        self._writing: int | None = None  # the thread that is writing
        self._orphans_done = False
        self._later = Later(self._flush_behind, apart=self._remote)
        self._unsaid: deque[tuple[str, str]] = deque()  # warnings of the writing thread, for the user's to say

    @property
    def waiting(self) -> int:
        """How many records of this process are not in the ledger yet."""
        return len(self._queue) + self._shelver.waiting

    @property
    def has_work(self) -> bool:
        """Whether anything is not in the ledger yet, or is on its way there."""
        # in this order: between the two the other thread may take what waits
        return bool(self.waiting) or self._writing is not None

    def begin(self, call: Mapping[str, Any], origin: Origin | None = None) -> None:
        """Notes that a call is sent, by the fields of its row that are known; never raises.

        Should the process die before the call is recorded, the next one records it as interrupted. `origin` has those
        of the fields that it shares with other calls.
        """
        if not self._note(call["uid"], call.get("attempts", 1), encode_beginning(call, origin)):
            self.record(self._priced(Call(**call)))  # slower: a provisional row in the ledger itself

    def answered(self, call: AnsweredCall) -> None:
        """Puts a call on the books that was told of when it began and that was answered in one piece; never raises."""
        noted = False
        try:  # noted before it is queued: noted after it was written, it would stay noted
            if self._behind:
                line = call.line()
                noted = line is not None and self._underway.add(call.uid, call.attempt, line)
                noted = noted or self._note_rows(call)
        except OSError:
            noted = self._note_rows(call)  # says why
        finally:
            self._queue.append(call)
        if noted and not self._remote:
            self._later.ask()
            if self._unsaid:
                self._say()
        else:
            self._written(noted)

    def record(self, call: Call, children: Sequence[Call] = ()) -> None:
        """Puts a call and its child rows on the books; never raises.

        Can be called from any thread, and from a finalizer that runs in the middle of another record.
        """
        noted = False
        try:
            noted = self._behind and self._note_row(call, *children)
        finally:
            self._queue.append((call, tuple(children)))
        self._written(noted)

    def _written(self, noted: bool) -> None:
        """Has what is queued written: soon, when what was queued last would outlive the process."""
        if self._remote and (not noted or len(self._queue) > MOST_QUEUED):
            self._spill()
            self._later.ask()
        elif noted:
            self._later.ask()
        else:
            self._flush()
        self._say()

    def _spill(self) -> None:
        """Puts what is queued into the spool, whoever is writing just now: late rows undo nothing."""
        with suppress(IndexError):  # the writing thread takes the rest
            while True:
                record = self._record_of(self._queue.popleft())
                self._shelver.keep(record)
                self._put_down(record[0])

    def unbilled(self, call: UnbilledCall) -> None:
        """Puts a call on the books that cost nothing, a moment later; never raises.

        It is noted nowhere before that: a process that is killed within the moment loses the row, and no money.
        """
        self._queue.append(call)
        if self._behind:
            self._later.ask()
        else:
            self._flush()
        if self._unsaid:
            self._say()

    def settle(self) -> bool:
        """Writes now what waits, as far as that is possible; whether nothing waits any more."""
        with self._alone():
            self._shelver.try_now()
            self._shelver.catch_up()
        self._flush()
        self._say()
        return self.waiting == 0

    def adopt(self) -> None:
        """Writes what processes that have died by now left unwritten; never raises."""
        with self._alone():
            self._orphans_done = False
            self._adopt_orphans()
        self._flush()
        self._say()

    def close(self) -> None:
        """Writes what waits, or leaves it in the spool for the next process."""
        self.settle()
        with self._alone():
            self._shelver.spool_memory()
            self._shelver.spool.close()
            self._underway.close()

    # The writing thread -----------------------------------------------------------------------------------------------

    def _note(self, uid: str, attempt: int, line: bytes) -> bool:
        try:
            return self._underway.note(uid, attempt, line)
        except Exception as error:
            self._warn(
                "underway",
                f"calls under way cannot be noted in {self._folder} ({error}): they go into the ledger itself, "
                "which takes longer.",
            )
            return False

    def _note_rows(self, call: EndedCall) -> bool:
        row, children = self._record_of(call)
        return self._note_row(row, *children)

    def _note_row(self, call: Call, *children: Call) -> bool:
        return not children and self._note(call.uid, call.attempts, encode_fields(vars(call)))

    # ------------------------------------------------------------------------------------------------------------------

    def _flush_behind(self) -> None:
        rows = len(self._queue)
        self._flush()
        if self.waiting:  # from an earlier time: it may work again
            with self._alone():
                self._shelver.catch_up()
        if self._wrote is None or not rows:
            return
        try:
            self._wrote(rows)
        except StoreError:  # locked, say: what is not folded is read all the same
            return
        except Exception as error:
            self._warn("fold", f"the ledger's roll-ups cannot be brought up to date ({error}): reading takes longer.")

    def _flush(self) -> None:
        # a finalizer in the middle of a write: the frame below writes this record, too, as soon as it is done
        while self._queue and self._writing != threading.get_ident():
            with self._alone():
                self._put_together(self._taken())

    def _taken(self) -> deque[Queued]:
        """What is queued, the last word on each call only."""
        latest: dict[str, Queued] = {}
        while self._queue:
            queued = self._queue.popleft()
            uid = queued.uid if isinstance(queued, EndedCall) else queued[0].uid
            latest.pop(uid, None)
            latest[uid] = queued
        return deque(latest.values())

    def _put_together(self, queued: deque[Queued]) -> None:
        try:
            if len(queued) > 1 and self._wrote_at_once([self._record_of(each) for each in queued]):
                queued.clear()
            while queued:
                self._put(self._record_of(queued[0]))
                queued.popleft()
        finally:
            self._queue.extendleft(reversed(queued))  # Ctrl-C in the middle of it

    def _record_of(self, queued: Queued) -> Record:
        if not isinstance(queued, EndedCall):
            return queued
        try:
            return queued.rows[0], queued.rows[1:]
        except Exception as error:
            self._warn("answer", f"an answer could not be read for its tokens ({type(error).__name__}: {error}).")
            return queued.unread(), ()

    def _wrote_at_once(self, records: Collection[Record]) -> bool:
        try:
            if not self._shelver.catch_up():
                return False
            self._opened().write_all(records)
        except StoreError as error:
            self._shelver.failed(error)
            return False
        except Exception:  # which of them it was is found out one by one
            return False
        for call, _ in records:
            self._put_down(call)
        self._adopt_orphans()
        return True

    def _put_down(self, call: Call) -> None:
        """The call is in the ledger, the spool or memory: unless it goes on, it need not be noted any more."""
        if call.status != "running":
            self._underway.end(call.uid, call.attempts)

    @contextmanager
    def _alone(self) -> Generator[None]:
        with self._lock:
            try:
                self._writing = threading.get_ident()
                yield
            finally:
                self._writing = None

    def _put(self, record: Record) -> None:
        try:
            if self._shelver.catch_up():
                self._shelver.write(record)
                self._adopt_orphans()
            else:
                self._shelver.keep(record)
        except Exception as error:
            self._shelver.failed(error)
            self._shelver.keep(record)
        except BaseException:  # Ctrl-C in the middle of it: the row is kept before the interrupt goes on
            self._shelver.keep(record)
            raise
        self._put_down(record[0])

    def _adopt_orphans(self) -> None:
        """Writes, once a process, what dead processes left in their spools."""
        if self._orphans_done:
            return
        self._orphans_done = True
        try:
            adopted = self._shelver.spool.drain_orphans(self._shelver.write_many) + self._underway.drain_orphans(
                self._write_priced, self._prices
            )
            if adopted:
                self._opened().sweep()  # their last rows may say `running`
        except Exception as error:
            self._warn("orphans", f"rows of an earlier process still wait in {self._folder} ({error}).")

    def _write_priced(self, records: Sequence[Record]) -> None:
        # one that is not running had ended, and was about to be written
        self._shelver.write_many(
            [(self._priced(call) if call.status == "running" else call, children) for call, children in records]
        )

    def _priced(self, call: Call) -> Call:
        cost = cost_of_call(call, self._prices)
        return replace(call, estimated=True, cost_nanousd=cost.nanousd, price_id=cost.price_id)

    def _again(self, pause_s: float) -> None:
        if self._remote:
            self._later.ask_after(pause_s)

    def _warn(self, topic: str, message: str) -> None:
        """Keeps a warning until the user's thread is at a place to say it; one trouble may have several sides."""
        self._unsaid.append((topic, message))

    def _say(self) -> None:
        if not self._unsaid or self._later.is_here():
            return
        troubles: list[tuple[str, str]] = []
        with suppress(IndexError):  # another thread says the rest
            while self._unsaid:
                troubles.append(self._unsaid.popleft())
        if any(topic.startswith("books: ") for topic, _ in troubles):  # which does not take calls under way, either
            troubles = [(topic, "" if topic == "underway" else message) for topic, message in troubles]
        # the user may have turned warnings into errors, and recording a call is not the place for one
        with suppress(LlmnbWarning):
            warn_once_of(troubles)

    def after_fork(self) -> None:
        """Begins anew in a forked child."""
        self._shelver.spool.forget()
        self._underway.forget()
        self._shelver.begin()
        self._begin()  # what waits is the parent's to write
