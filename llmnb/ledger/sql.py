"""What the ledger's queries need of a database, whichever it is.

All of them are written once, in SQLite's words, and as far as that goes in words that PostgreSQL has, too; the rest is
said in PostgreSQL's by `llmnb.ledger.postgres`. `sqlite3.Connection` is a `Connection` as it is.
"""

from __future__ import annotations

import sqlite3
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, cast

from llmnb.places import Place
from llmnb.records import Call

if TYPE_CHECKING:
    from llmnb.ledger.costs import StoredCosts

BEGIN_SETTLED = "BEGIN DEFERRED"
"""Begins a look at one moment of the ledger in which no row with a smaller id can still be on its way.

For SQLite that is every moment. In PostgreSQL ids do not commit in order.
"""


class Rows(Protocol):
    """What a query found."""

    @property
    def rowcount(self) -> int:
        """How many rows were changed."""
        ...

    def fetchone(self) -> Any:
        """The next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """All that is left."""
        ...

    def __iter__(self) -> Iterator[Any]: ...

    def __next__(self) -> Any: ...


class Connection(Protocol):
    """A connection to a ledger."""

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        ...

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ..., /) -> Rows:
        """Runs one statement."""
        ...

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Rows:
        """Runs one statement for each of many parameters."""
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...


StepOf = Callable[[int], int | None]
Cuts = Callable[[], Sequence[int]]


class _Stepped(Protocol):
    def define_steps(self, name: str, cuts: Cuts) -> None: ...


def define_steps(connection: Connection, name: str, step_of: StepOf, cuts: Cuts) -> None:
    """Makes `name(ts)` the last cut at or before a moment, in the queries of this connection.

    `step_of` finds it for one moment, `cuts` gives all cuts there are. Before the first and after the last it is NULL.
    """
    if isinstance(connection, sqlite3.Connection):
        connection.create_function(name, 1, step_of, deterministic=True)
    else:
        cast("_Stepped", connection).define_steps(name, cuts)


class Store(ABC):
    """A ledger that can be written, from any thread, and again after a fork."""

    @property
    @abstractmethod
    def path(self) -> Place:
        """Where it is."""

    @abstractmethod
    def write_all(self, records: Collection[tuple[Call, Sequence[Call]]]) -> None:
        """Inserts calls with their child rows or updates them by their uids, in one transaction: all, or none.

        Children given replace those written before. A call that has ended is never set back to `running`.

        Raises:
            StoreError: they were not written, because of the store.
            Exception: they were not, because a field holds what no column can.
        """

    def write(self, call: Call, children: Sequence[Call] = ()) -> None:
        """The same for one call."""
        self.write_all([(call, children)])

    @abstractmethod
    def sweep(self) -> int:
        """Marks rows that dead processes left `running` as `interrupted`; the number of rows.

        Raises:
            StoreError: the store cannot be read or written.
        """

    @abstractmethod
    def transaction(self, *, reading: bool = False) -> AbstractContextManager[Connection]:
        """One transaction: committed at the end of the block, undone by what is raised inside.

        Nobody else writes meanwhile. `reading` keeps nobody from it: one moment of the ledger is seen, and nothing may
        be written.

        Raises:
            StoreBusy: others kept the ledger locked for too long; nothing was done.
            StoreError: the store cannot be read or written, or this thread is inside another transaction.
        """

    @abstractmethod
    def snapshot(self) -> Connection:
        """A connection of its own that sees the ledger as it is now, before the transaction that is open.

        Raises:
            StoreError: the store cannot be read.
        """

    @abstractmethod
    def repricing(self) -> AbstractContextManager[StoredCosts]:
        """The rows and their costs, on a connection of its own: the work may take long, and no call waits for it.

        Raises:
            StoreError: the store cannot be read or written.
        """

    @abstractmethod
    def upkeep(self) -> AbstractContextManager[Connection]:
        """A connection of its own for folding and pruning, one at a time in this process; no call waits for it.

        Raises:
            StoreError: the store cannot be read or written.
        """

    @abstractmethod
    def close(self) -> None:
        """Closes the connection; the next write opens it again."""
