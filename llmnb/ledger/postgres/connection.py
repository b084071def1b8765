"""Connections to a ledger in PostgreSQL that run SQLite's statements; the only file that imports psycopg.

Who writes rows holds a shared lock of the ledger for that transaction, who must be alone (`BEGIN IMMEDIATE`: folds,
budgets) the exclusive one. So rows of many processes are written at once, and all that was proven where one process
writes at a time holds here, too: in particular, nobody who is alone can miss a row with a smaller id that is not
committed yet.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import unquote

from llmnb.errors import MissingExtra, StoreBusy, StoreError
from llmnb.ledger.postgres.dialect import MISSING, STEPS, in_postgres
from llmnb.ledger.sql import BEGIN_SETTLED, Cuts, Rows
from llmnb.places import PostgresPlace

if TYPE_CHECKING:
    import psycopg

SCHEMA = "llmnb"
LOCK = 0x6C6C6D6E62
"""Of the ledger: shared by those who write rows. The letters of "llmnb"."""
FOLD_LOCK = LOCK + 1
"""Held by the one process that folds."""
CONNECT_TIMEOUT_S = 5
BUSY_TIMEOUT_S = 5.0
_SHORTEST_BUSY_S = 0.05
_AT_ONCE = 200
"""Statements of `executemany` that are sent together."""

_OPTIONS = {
    "connect_timeout": CONNECT_TIMEOUT_S,
    "application_name": "llmnb",
    # a server that vanished is noticed within half a minute, and not after the two hours of the defaults
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
_WHY = {
    "28P01": "the password is not accepted; check the user and password in LLMNB_STORE_URL",
    "28000": "this user may not connect from here; check LLMNB_STORE_URL, and the server's pg_hba.conf",
    "3D000": "there is no such database; create it, or correct the name in LLMNB_STORE_URL",
    "42501": "this user may not do that; have the owner open the ledger once, or grant CREATE on the database",
    "53100": "the disk of the server is full",
    "53300": "the server has too many connections",
    "25006": "the server only lets read; LLMNB_STORE_URL must name the primary, not a standby",
}
_WHY_UNREACHABLE = "is the server running, and can it be reached from here?"
_BUSY = {"55P03", "40001", "40P01", "57014"}


@cache
def driver() -> Any:
    """The package psycopg.

    Raises:
        MissingExtra: it is not installed.
    """
    try:
        import psycopg
    except ImportError:
        raise MissingExtra("a ledger in PostgreSQL", "postgres") from None
    return psycopg


def explained(error: Exception, place: PostgresPlace) -> StoreError:
    """The same trouble as a `StoreError` that says what to do, and never the password."""
    code = getattr(error, "sqlstate", None)
    text = _without_password(" ".join(str(error).split()), place)
    if code in _BUSY:
        return StoreBusy(f"the ledger {place} is busy ({text}); the next call tries again.", path=str(place))
    why = _WHY.get(code or "") or next((_WHY[of] for sign, of in _SIGNS.items() if sign in text), None)
    if why is None and code is None:
        why = _WHY_UNREACHABLE if isinstance(error, driver().OperationalError) else "correct LLMNB_STORE_URL"
    elif why is None and code is not None and code.startswith(("08", "57P")):
        why = _WHY_UNREACHABLE
    return StoreError(
        f"the ledger {place} cannot be used ({text}): {why or '`llmnb doctor` may say more'}.", path=str(place)
    )


# an error while connecting has no code
_SIGNS = {
    "password authentication failed": "28P01",
    "no password supplied": "28P01",
    "pg_hba.conf": "28000",
    "role ": "28000",
    "database ": "3D000",
    "too many": "53300",
}


def _without_password(text: str, place: PostgresPlace) -> str:
    text = text.replace(place.url, str(place))
    for secret in sorted({place.password, unquote(place.password)} - {""}, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


@contextmanager
def in_our_words(place: PostgresPlace) -> Generator[None]:
    """Turns what psycopg raises inside into a `StoreError`; what is wrong with a value stays as it is."""
    errors = driver()
    try:
        yield
    except (errors.DataError, errors.IntegrityError):
        raise
    except errors.Error as error:
        raise explained(error, place) from None  # its traceback may hold the URL


class PostgresConnection:
    """A connection that understands what the ledger's queries say (`llmnb.ledger.sql.Connection`).

    Raises:
        MissingExtra: psycopg is not installed.
        StoreError: the database cannot be reached.
    """

    def __init__(self, place: PostgresPlace, *, busy_timeout_s: float = BUSY_TIMEOUT_S, reads: bool = False) -> None:
        self.place = place
        self._cuts: dict[str, Cuts] = {}
        self._process = os.getpid()
        psycopg = driver()
        lock_timeout_ms = int(1000 * max(busy_timeout_s, _SHORTEST_BUSY_S))
        settings = f"-c search_path={SCHEMA} -c lock_timeout={lock_timeout_ms}"
        if reads:
            settings += " -c default_transaction_read_only=on"
        with in_our_words(place):
            given = psycopg.conninfo.conninfo_to_dict(place.url)
            options = {**_OPTIONS, **given, "options": f"{settings} {given.get('options', '')}".strip()}
            self._raw: psycopg.Connection[tuple[Any, ...]] = psycopg.connect(
                **options, autocommit=True, cursor_factory=psycopg.ClientCursor, context=_adapters()
            )

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open, be it one that failed."""
        return self._raw.info.transaction_status.name in ("INTRANS", "INERROR")

    @property
    def is_usable(self) -> bool:
        """Whether it was not lost, and is this process's own."""
        return not self._raw.closed and self._process == os.getpid()

    def execute(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = (), /) -> Rows:
        """Runs one of SQLite's statements."""
        with in_our_words(self.place):
            special = _SPECIAL.get(sql)
            if special is not None:
                return special(self)
            return self._run(self._filled_in(in_postgres(sql)), parameters)

    def executemany(self, sql: str, parameters: Iterable[Sequence[Any]], /) -> Rows:
        """Runs one statement for each of many parameters, many of them in one message."""
        with in_our_words(self.place):
            said, cursor = self._filled_in(in_postgres(sql)), self._raw.cursor()
            merge, rows = cast("Any", cursor).mogrify, _ROWS.match(said)
            waiting = list(parameters)
            for begin in range(0, len(waiting), _AT_ONCE):
                together = waiting[begin : begin + _AT_ONCE]
                if rows is not None:
                    self.insert(rows[1], together, rows[2])
                else:
                    cursor.execute(";".join(merge(said, row) for row in together).encode())
            return cursor

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> Rows:
        """Runs statements that are PostgreSQL's own."""
        with in_our_words(self.place):
            return self._run(sql, parameters)

    def insert(self, begin: str, rows: Iterable[Iterable[Any]], end: str) -> None:
        """Runs one INSERT of many rows; quicker by half than to have psycopg look for their places in a long text."""
        with in_our_words(self.place):
            literal = driver().adapt.Transformer(self._raw).as_literal
            texts: dict[str, bytes] = {}  # most are the same in the next row

            def said(value: Any) -> bytes:
                if type(value) is not str:
                    return literal(value)
                if (known := texts.get(value)) is None:
                    texts[value] = known = literal(value)
                return known

            values = b"),(".join(b",".join(map(said, row)) for row in rows)
            self._raw.execute(b"%s(%s)%s" % (begin.encode(), values, end.encode()))

    def close(self) -> None:
        """Ends it; in a process forked from the one that opened it, nothing is done to the server."""
        if self._process == os.getpid():
            self._raw.close()

    def __del__(self) -> None:
        try:
            self.close()
        except Exception:  # the interpreter is ending, and the server notices by itself
            return

    def define_steps(self, name: str, cuts: Cuts) -> None:
        """See `llmnb.ledger.sql.define_steps`."""
        self._cuts[name] = cuts

    def _run(self, sql: str, parameters: Sequence[Any] | Mapping[str, Any]) -> Rows:
        cursor = self._raw.cursor()
        cursor.execute(sql.encode(), parameters)
        return cursor

    def _filled_in(self, sql: str) -> str:
        if STEPS not in sql:
            return sql
        for name, cuts in self._cuts.items():
            if f"{STEPS}{name}{STEPS}" in sql:
                steps = ",".join(map(str, cuts()))
                sql = sql.replace(f"{STEPS}{name}{STEPS}", f"'{{{steps}}}'::bigint[]")
        return sql

    # Transactions -----------------------------------------------------------------------------------------------------

    def _begin_reading(self) -> Rows:
        return self._run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY", ())

    def _begin_alone(self) -> Rows:
        try:
            return self._run(f"BEGIN; SELECT pg_advisory_xact_lock({LOCK})", ())
        except Exception:
            self._roll_back()
            raise

    def _begin_settled(self) -> Rows:
        self._run(f"SELECT pg_advisory_lock({LOCK})", ())  # the lock of the session: before the transaction has begun
        try:
            self._begin_reading()
            return self._run("SELECT 1", ())  # the first query fixes the moment, when nobody else is writing
        finally:
            with suppress(driver().Error):  # of a lost connection the lock is lost, too
                self._run(f"SELECT pg_advisory_unlock({LOCK})", ())

    def _roll_back(self) -> None:
        with suppress(driver().Error):
            self._raw.execute("ROLLBACK")

    def _version(self) -> Rows:
        there = self._run("SELECT to_regclass('migrations') IS NOT NULL", ()).fetchone()[0]
        return self._run("SELECT coalesce(max(number), 0) FROM migrations" if there else "SELECT 0", ())


_ROWS = re.compile(r"(.*\bVALUES )\(%s(?:, %s)*\)(?=\s*(?:ON CONFLICT|$))(.*)", re.DOTALL)
"""An INSERT whose values all are parameters; of many rows it is one statement, in which no key may come twice."""
_SPECIAL = {
    "BEGIN": PostgresConnection._begin_reading,  # pyright: ignore[reportPrivateUsage]
    "BEGIN IMMEDIATE": PostgresConnection._begin_alone,  # pyright: ignore[reportPrivateUsage]
    BEGIN_SETTLED: PostgresConnection._begin_settled,  # pyright: ignore[reportPrivateUsage]
    "PRAGMA user_version": PostgresConnection._version,  # pyright: ignore[reportPrivateUsage]
}


@cache
def _adapters() -> Any:
    """How values come and go: sums as int, JSON as text, and no bytes as what is missing in a key."""
    psycopg = driver()
    found = psycopg.adapt.AdaptersMap(psycopg.adapters)

    class Number(psycopg.adapt.Loader):
        def load(self, data: Any) -> int | float:
            number = bytes(data)
            return float(number) if b"." in number or b"N" in number else int(number)

    class Text(psycopg.adapt.Loader):
        def load(self, data: Any) -> str | bytes:
            text = bytes(data).decode()
            return b"" if text == MISSING else text

    class Json(psycopg.adapt.Loader):
        def load(self, data: Any) -> str:
            return bytes(data).decode()

    class Missing(psycopg.adapt.Dumper):
        oid = 0

        def dump(self, obj: bytes) -> bytes:
            return MISSING.encode()

    class Bytes(psycopg.types.string.BytesDumper):
        def get_key(self, obj: bytes, format: Any) -> Any:
            return self.cls if obj else (self.cls, "missing")

        def upgrade(self, obj: bytes, format: Any) -> Any:
            return self if obj else Missing(self.cls, None)

    found.register_loader("numeric", Number)
    for name in ("text", "varchar"):
        found.register_loader(name, Text)
    for name in ("json", "jsonb"):
        found.register_loader(name, Json)
    found.register_dumper(bytes, Bytes)
    return _Context(found)


class _Context:
    """What psycopg takes adapters from."""

    def __init__(self, adapters: Any) -> None:
        self.adapters = adapters
        self.connection = None
