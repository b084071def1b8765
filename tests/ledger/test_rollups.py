"""Roll-ups + changes + rows not folded yet = all rows, at every moment and whatever happened before."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from llmnb.errors import StoreBusy
from llmnb.ledger import Ledger, Store, cover, new_ledger, usage
from llmnb.ledger.connection import open_writer
from llmnb.ledger.costs import StoredCosts
from llmnb.ledger.fold import Folder, prune
from llmnb.ledger.postgres import ledger as postgres_ledger
from llmnb.ledger.postgres.connection import LOCK
from llmnb.ledger.remaking import make_anew, recut
from llmnb.ledger.rollups import state
from llmnb.ledger.sql import Connection
from llmnb.ledger.sums import Group, Question, Sums, sums_in_transaction
from llmnb.ledger.zones import start_of_day_us
from llmnb.places import Place, PostgresPlace
from llmnb.pricing.repricing import Repriced
from llmnb.records import Call, Cost
from llmnb.trouble import LlmnbWarning

from ..postgres_server import PostgresServer
from ..processes import Python

OSLO, TOKYO, KATHMANDU = ZoneInfo("Europe/Oslo"), ZoneInfo("Asia/Tokyo"), ZoneInfo("Asia/Kathmandu")
DAY_US = 86_400_000_000
FIRST_US = 1_792_620_000_000_000  # 2026-10-21 22:00 UTC: clocks go back in Oslo on the 25th
LAST_US = FIRST_US + 8 * DAY_US

QUESTIONS: list[dict[str, Any]] = [
    {"names": ()},
    {"names": ("model",)},
    {"names": ("day", "model")},
    {"names": ("hour",)},
    {"names": ("week", "project")},
    {"names": ("project", "user", "tag")},
    {"names": ("provider",), "where": {"project": ["a", None]}},
    {"names": ("day",), "where": {"tag": None, "user": "u"}},
    {"names": ("model",), "span": (FIRST_US + DAY_US + 12_345_678, LAST_US - 2 * DAY_US - 7)},
    {"names": ("hour", "model"), "span": (FIRST_US + 3 * DAY_US + 99, None)},
    {"names": ("project", "month"), "span": (None, FIRST_US + 5 * DAY_US + 60_000_000)},
    {"names": ("project",), "span": (FIRST_US + 1, FIRST_US + 2)},
    {"names": ("status", "notebook")},  # only rows know these
    {"names": ("day",), "where": {"status": "ok"}},
]


def writer_of(place: Place) -> Connection:
    """A connection that may fold."""
    return open_writer(place) if isinstance(place, Path) else postgres_ledger.open_writer(place)


def asked(connection: Connection, zone: ZoneInfo, **question: Any) -> dict[Group, Sums]:
    whole = {"span": (None, None), "where": {}, **question}
    return sums_in_transaction(connection, Question(zone=zone, **whole))


def both(connection: Connection, zone: ZoneInfo, **question: Any) -> tuple[Any, Any]:
    """The answer with roll-ups and the one of the rows alone, on one snapshot."""
    with pytest.MonkeyPatch.context() as patch:
        connection.execute("BEGIN")
        try:
            patch.setattr(cover, "FEW_ROWS", 0)
            rolled = asked(connection, zone, **question)
            patch.setattr(cover, "FEW_ROWS", 10**12)
            return rolled, asked(connection, zone, **question)
        finally:
            connection.execute("ROLLBACK")


def integers(found: dict[Group, Sums]) -> dict[Group, list[int]]:
    return {group: sums.measures for group, sums in found.items()}


def random_calls(seed: int, number: int) -> list[Call]:
    """Calls of every kind; uids repeat. From a seed: to draw every field takes hypothesis a hundred times longer."""
    chance = random.Random(seed)
    maybe = lambda value: chance.choice([None, value])  # noqa: E731
    return [
        Call(
            uid=f"call-{chance.randrange(60)}",
            ts=chance.randrange(FIRST_US, LAST_US),
            model_requested="m",
            model=chance.choice(["a", "b", "", None]),
            project=chance.choice(["a", "b", "", None]),
            user=chance.choice(["u", "v", None]),
            tag=maybe("t"),
            notebook=maybe("n.ipynb"),
            provider=chance.choice(["anthropic", "openai"]),
            status=chance.choice(["ok", "ok", "error", "cancelled", "truncated", "running"]),
            source=chance.choice(["live", "live", "cache"]),
            is_call=chance.random() < 0.7,
            estimated=chance.random() < 0.3,
            attempts=chance.randrange(1, 5),
            wait_ms=chance.random() * 1e4,
            latency_ms=maybe(chance.lognormvariate(7, 2)),
            ttft_ms=maybe(chance.choice([0.0, chance.lognormvariate(5, 2)])),
            input_tokens=chance.randrange(10**9),
            cache_read_tokens=chance.randrange(10**6),
            cache_write_1h_tokens=chance.randrange(10**6),
            output_tokens=chance.randrange(10**6),
            thinking_tokens=maybe(chance.randrange(10**6)),
            cost_nanousd=maybe(chance.randrange(10**14)),
            saved_nanousd=maybe(chance.randrange(10**14)),
        )
        for _ in range(number)
    ]


some_calls = st.builds(random_calls, st.integers(0, 2**40), st.integers(1, 12))


class Books(RuleBasedStateMachine):
    """A ledger that is written, folded, repriced, cut anew and interrupted, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.ledger = new_ledger(self.new_place())
        self.connection = writer_of(self.ledger.path)
        self.zone = OSLO
        self.steps = 0

    def new_place(self) -> Place:
        """Where nothing is yet."""
        return Path(self._folder.name) / "ledger.db"

    @initialize(rows=some_calls)
    def some_are_there(self, rows: list[Call]) -> None:
        for call in rows:
            self.ledger.write(call)

    @rule(rows=some_calls)
    def write(self, rows: list[Call]) -> None:
        """New calls, and later words on old ones: uids repeat."""
        self.ledger.write_all([(call, ()) for call in rows])

    @rule(rows=some_calls)
    def write_with_children(self, rows: list[Call]) -> None:
        """Children take the place of those written before."""
        parent, *children = rows
        parent = replace(parent, is_call=True)
        made = [
            replace(c, uid=f"{parent.uid}.{n}", parent_uid=parent.uid, is_call=False) for n, c in enumerate(children)
        ]
        self.ledger.write(parent, made)

    @rule(rows=st.integers(1, 40))
    def fold(self, rows: int) -> None:
        folder = Folder(self.connection, self.zone)
        folder.rows = rows
        folder.fold()

    @rule()
    def fold_all(self) -> None:
        Folder(self.connection, self.zone).fold_all()

    @rule(rows=st.integers(1, 40), other=some_calls)
    def fold_while_another_writes(self, rows: int, other: list[Call]) -> None:
        """Between adding up and writing, rows come in and change, and another process folds."""
        folder = Folder(self.connection, self.zone)
        folder.rows = rows
        added_up, wrote = folder._added_up, []

        def interrupted(*arguments: Any) -> Any:
            found = added_up(*arguments)
            if not wrote:
                wrote.append(1)
                self.connection.execute("ROLLBACK")  # the snapshot is over: others may write
                self.ledger.write_all([(call, ()) for call in other])
                if rows % 2:
                    with closing(writer_of(self.ledger.path)) as second:
                        Folder(second, self.zone).fold()
            return found

        folder._added_up = interrupted  # type: ignore[method-assign]
        folder.fold()

    @rule(rows=st.integers(1, 40))
    def fold_and_die(self, rows: int) -> None:
        """The process dies before the commit."""
        folder = Folder(self.connection, self.zone)
        folder.rows = rows
        connection = self.connection

        def dies(*_: Any) -> Any:
            raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("llmnb.ledger.fold._write", dies)
            if folder.pending():
                with pytest.raises(KeyboardInterrupt):
                    folder.fold()
        assert not connection.in_transaction

    @rule(zone=st.sampled_from([OSLO, TOKYO, KATHMANDU]))
    def cut_anew(self, zone: ZoneInfo) -> None:
        self.zone = zone
        recut(self.connection, zone)

    @rule(zone=st.sampled_from([OSLO, TOKYO, KATHMANDU]))
    def make_anew_beside(self, zone: ZoneInfo) -> None:
        """The sums are made anew by the folds that follow, while those that are there answer."""
        make_anew(self.connection, zone, few_rows=-1)

    @rule(zone=st.sampled_from([OSLO, TOKYO, KATHMANDU]), rows=st.integers(1, 40))
    def insist(self, zone: ZoneInfo, rows: int) -> None:
        """Another process has another timezone."""
        folder = Folder(self.connection, zone, insists=True, few_rows=-1)
        folder.rows = rows
        folder.fold()

    @rule(chance=st.randoms(use_true_random=False))
    def reprice(self, chance: random.Random) -> None:
        costs = StoredCosts(self.connection)
        rows = costs.after(0, 20, None, None)
        costs.set_costs([Repriced(row, Cost(chance.randrange(10**12), "new")) for row in rows if chance.random() < 0.5])

    @rule()
    def sweep(self) -> None:
        self.connection.execute("UPDATE calls SET status = 'interrupted', estimated = TRUE WHERE status = 'running'")

    @invariant()
    def roll_ups_equal_rows(self) -> None:
        self.steps += 1
        for question in QUESTIONS[self.steps % 3 :: 3]:
            for zone in {self.zone, OSLO}:
                rolled, plain = both(self.connection, zone, **question)
                assert integers(rolled) == integers(plain), question

    def teardown(self) -> None:
        self.connection.close()
        self.ledger.close()
        self._folder.cleanup()


TestBooks = Books.TestCase
TestBooks.settings = settings(
    max_examples=12, stateful_step_count=10, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.parametrize("examples", [4, pytest.param(40, marks=[pytest.mark.soak, pytest.mark.timeout(900)])])
def test_books_in_postgres(postgres_server: PostgresServer, examples: int) -> None:
    """The same of a team's database."""

    class TeamBooks(Books):
        def new_place(self) -> Place:
            return PostgresPlace(postgres_server.new_database())

        def teardown(self) -> None:
            super().teardown()
            postgres_server.drop(self.ledger.path.url)

    run_state_machine_as_test(
        TeamBooks,
        settings=settings(
            max_examples=examples, stateful_step_count=8, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )


# Percentiles ----------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(some_calls, st.integers(0, 30))
def test_percentiles_are_there_when_values_are(rows: list[Call], folded: int) -> None:
    """Whether a row was folded, changed since, or not folded yet."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.db")
        with closing(open_writer(ledger.path)) as connection:
            for call in rows:
                ledger.write(call)
            fold = Folder(connection, OSLO)
            fold.rows = max(folded, 1)
            fold.fold()
            for call in rows[::2]:  # changed after they were folded
                ledger.write(replace(call, latency_ms=(call.latency_ms or 1) * 2, status="ok"))
            rolled, plain = both(connection, OSLO, names=("model",))
        ledger.close()
    for group, found in plain.items():
        exact = found.percentiles
        for ours, latency in zip(rolled[group].percentiles, exact, strict=True):
            assert (ours is None) == (latency is None)
    # the values at the ranks around it are not known here: `test_percentiles_of_many_values` holds the accuracy
    assert rolled.keys() == plain.keys()


@pytest.mark.parametrize("share", [0.5, 0.95])
def test_percentiles_of_many_values(tmp_path: Path, make_call, share: float) -> None:
    """A thousand latencies of a usual kind: within 2 % of numpy's percentile."""
    chance = random.Random(5)
    ledger = Ledger(tmp_path / "ledger.db")
    values = [chance.lognormvariate(7, 0.8) for _ in range(1_000)]
    ledger.write_all([(make_call(ts=FIRST_US + at, latency_ms=value), ()) for at, value in enumerate(values)])
    with closing(open_writer(ledger.path)) as connection:
        Folder(connection, OSLO).fold_all()
        rolled, plain = both(connection, OSLO, names=())
    place = 0 if share == 0.5 else 1
    assert rolled[()].percentiles[place] == pytest.approx(np.percentile(values, 100 * share), rel=0.021)
    assert plain[()].percentiles[place] == pytest.approx(np.percentile(values, 100 * share), rel=1e-9)
    ledger.close()


def test_an_open_range_reads_no_row_before_it(ledger: Ledger, make_call, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last day of a long history takes no more steps of SQLite than a short one does."""
    monkeypatch.setattr(cover, "FEW_ROWS", 0)
    ledger.write_all([(make_call(ts=FIRST_US + n, latency_ms=1.0, ttft_ms=1.0), ()) for n in range(5_000)])
    ledger.write(make_call(ts=LAST_US, latency_ms=1.0, ttft_ms=1.0))
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    with closing(open_writer(ledger.path)) as connection:
        Folder(connection, OSLO).fold_all()
        connection.set_progress_handler(count, 1_000)
        connection.execute("BEGIN")
        found = asked(connection, OSLO, names=("model",), span=(LAST_US - DAY_US, None))
    assert found["claude-sonnet-5-5",]["calls"] == 1
    assert steps < 10


def test_changes_are_folded_some_at_a_time(ledger: Ledger, make_call) -> None:
    """A new price for all calls is no work of one piece; how many rows were folded is how many there were."""
    calls = [make_call(ts=FIRST_US + number) for number in range(50)]
    ledger.write_all([(call, ()) for call in calls])
    with closing(open_writer(ledger.path)) as connection:
        folder = Folder(connection, OSLO)
        assert folder.fold_all() == 50
        ledger.write_all([(replace(call, cost_nanousd=7), ()) for call in calls])
        waiting: list[int] = []
        folder.rows = 10
        while (rows := folder.fold()) is not None:
            assert rows == 0
            folder.rows = 10  # it grows where folds are quick
            waiting.append(folder.pending())
        rolled, plain = both(connection, OSLO, names=())
    assert waiting == [90, 80, 70, 60, 50, 40, 30, 20, 10, 0]
    assert integers(rolled) == integers(plain)
    assert rolled[()]["cost_nanousd"] == 350


# Pruning --------------------------------------------------------------------------------------------------------------

OF_ROLL_UPS: list[dict[str, Any]] = [
    {"names": ()},
    {"names": ("model", "day")},
    {"names": ("project", "user", "tag")},
    {"names": ("week", "project"), "where": {"user": "u"}},
    {"names": ("hour",)},
]


@settings(deadline=None, max_examples=12)
@given(some_calls, some_calls, st.integers(0, 9), st.booleans())
def test_pruning_keeps_the_totals(rows: list[Call], late: list[Call], days: int, rebuilds: bool) -> None:
    """Rows go, their sums stay: also when late rows come for the time that was pruned, and after a rebuild."""
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.db")
        with closing(open_writer(ledger.path)) as connection:
            for call in rows:
                ledger.write(replace(call, status="ok"))
            fold = Folder(connection, OSLO)
            fold.fold_all()
            before_us = start_of_day_us(FIRST_US + days * DAY_US, OSLO)
            expected = [integers(both(connection, OSLO, **question)[0]) for question in OF_ROLL_UPS]
            for _ in prune(connection, before_us, rows=3):
                for question, wanted in zip(OF_ROLL_UPS, expected, strict=True):
                    assert integers(both(connection, OSLO, **question)[0]) == wanted
            assert connection.execute("SELECT count(*) FROM calls WHERE ts < ?", (before_us,)).fetchone() == (0,)
            gone = {call.uid for call in rows if call.ts < before_us}
            for call in late:  # new ones, and changes of rows that are still there
                if call.uid not in gone:
                    ledger.write(call)
            expected = [integers(both(connection, OSLO, **question)[0]) for question in OF_ROLL_UPS]
            fold.fold_all()
            if rebuilds:
                recut(connection, OSLO)
                for question, wanted in zip(OF_ROLL_UPS, expected, strict=True):
                    assert integers(both(connection, OSLO, **question)[0]) == wanted
                fold.fold_all()
            for question, wanted in zip(OF_ROLL_UPS, expected, strict=True):
                assert integers(both(connection, OSLO, **question)[0]) == wanted
        ledger.close()


def test_what_pruning_took_is_said(ledger: Ledger, make_call) -> None:
    """A table by something that only rows know lacks the pruned calls, and one warning says so."""
    ledger.write(make_call(ts=FIRST_US, notebook="n.ipynb"))
    with closing(open_writer(ledger.path)) as connection:
        Folder(connection, OSLO).fold_all()
        for _ in prune(connection, start_of_day_us(LAST_US, OSLO)):
            pass
    assert usage(by="model", path=ledger.path)["calls"].tolist() == [1]
    with pytest.warns(LlmnbWarning, match="calls that were pruned are missing"):
        assert usage(by="notebook", path=ledger.path).empty


# Made anew ------------------------------------------------------------------------------------------------------------


def test_what_was_there_answers_until_the_new_is_whole(store: Store, make_call) -> None:
    """In a new timezone: from the sums in the old one and the tail, then at once from the new; nothing is left over."""
    store.write_all([(make_call(ts=FIRST_US + n * 10**10, project=None), ()) for n in range(60)])
    with closing(writer_of(store.path)) as connection:
        Folder(connection, OSLO).fold_all()
        folder, seen = Folder(connection, TOKYO, insists=True, few_rows=-1), list[tuple[str, int, int]]()
        folder.rows = 25
        while (rows := folder.fold()) is not None:
            folder.rows = 25
            found = state(connection)
            assert found is not None
            made = found.making
            seen.append((found.zone, found.watermark, -1 if made is None else made.watermark))
            rolled, plain = both(connection, OSLO, names=("day", "project"))
            assert integers(rolled) == integers(plain)
            assert rows <= 25
        counts = [
            connection.execute(f"SELECT count(*) FROM rollup_{name}").fetchone()[0]
            for name in ("days", "people", "sketches", "changes", "making_changes")
        ]
    assert seen[:3] == [("Europe/Oslo", 60, 25), ("Europe/Oslo", 60, 50), ("Asia/Tokyo", 60, -1)]
    assert counts == [0] * 5
    assert state_of(store) == ("Asia/Tokyo", 1, None)


def state_of(store: Store) -> tuple[str, int, object]:
    """The timezone of the sums, the side that answers, and what is made anew."""
    with store.transaction(reading=True) as connection:
        found = state(connection)
    assert found is not None
    return found.zone, found.side, found.making


def test_back_to_the_timezone_before(ledger: Ledger, make_call) -> None:
    """What is made for another one is given up."""
    ledger.write(make_call())
    with closing(open_writer(ledger.path)) as connection:
        Folder(connection, OSLO).fold_all()
        assert Folder(connection, TOKYO, insists=True, few_rows=-1).is_making
        assert Folder(connection, TOKYO).is_making  # gone on with
        assert not Folder(connection, OSLO, insists=True, few_rows=-1).is_making
    assert state_of(ledger) == ("Europe/Oslo", 0, None)


# Several processes ----------------------------------------------------------------------------------------------------

WRITER = """
import itertools, random, sys, time
from pathlib import Path
from llmnb.ledger import new_ledger
from llmnb.places import PostgresPlace
from llmnb.records import Call
place = PostgresPlace(sys.argv[1]) if "://" in sys.argv[1] else Path(sys.argv[1])
ledger, name, chance = new_ledger(place), sys.argv[2], random.Random(sys.argv[2])
print("ready", flush=True)
for number in itertools.count():
    call = Call(
        uid=f"{name}-{chance.randrange(min(number + 1, 400))}", ts=FIRST + chance.randrange(8 * 86_400_000_000),
        model_requested="m",
        model=chance.choice("abc"), project=chance.choice("pq"), status=chance.choice(["ok", "running", "error"]),
        attempts=number, cost_nanousd=chance.randrange(10**9), output_tokens=number, latency_ms=chance.random() * 1e4,
    )
    ledger.write(call)
    time.sleep(0.002)
""".replace("FIRST", str(FIRST_US))

FOLDER = """
import sys, time
from pathlib import Path
from zoneinfo import ZoneInfo
from llmnb.ledger import connection
from llmnb.ledger.fold import Folder
from llmnb.ledger.postgres import ledger
from llmnb.ledger.remaking import make_anew, recut
from llmnb.places import PostgresPlace
if "://" in sys.argv[1]:
    connection = ledger.open_writer(PostgresPlace(sys.argv[1]))
else:
    connection = connection.open_writer(Path(sys.argv[1]))
zone = ZoneInfo("Europe/Oslo")
if sys.argv[2] == "empty":
    recut(connection, zone)
if sys.argv[2] == "rebuild":
    make_anew(connection, zone, few_rows=-1)
folder = Folder(connection, zone)
print("ready", flush=True)
while True:
    folder.rows = 50
    if folder.fold() is None and sys.argv[2] == "rebuild":
        make_anew(connection, zone, few_rows=-1)
    time.sleep(0.002)
"""


def started(code: str, place: Place, name: str) -> Python:
    where = str(place) if isinstance(place, Path) else place.url
    process = Python(["-c", code, where, name], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture
def processes() -> Iterator[list[Python]]:
    """Processes that are ended when the test is over."""
    running: list[Python] = []
    yield running
    for process in running:
        process.kill()
        process.communicate()


def test_exact_at_every_moment_while_four_write_and_two_fold(store: Store, processes: list[Python]) -> None:
    """On any snapshot the answer with roll-ups is that of the rows, whatever is under way.

    In PostgreSQL rows do not commit in the order of their ids: a fold must not pass one that is still on its way.
    """
    path = store.path
    store.close()
    processes += [started(WRITER, path, f"w{number}") for number in range(4)]
    processes += [started(FOLDER, path, what) for what in ("fold", "rebuild")]
    with closing(writer_of(path)) as connection:
        rounds, sides = 0, set[int]()
        while rounds < 4 or len(sides) < 2:  # the other side answered, too
            for question in QUESTIONS[:6]:
                rolled, plain = both(connection, OSLO, **question)
                assert integers(rolled) == integers(plain)
                found = state(connection)
                assert found is not None
                sides.add(found.side)
            rounds += 1
    assert found.watermark > 50


@pytest.mark.skipif(sys.platform == "win32", reason="there is no kill -9")
def test_a_fold_that_is_killed_is_gone_on_with(tmp_path: Path, processes: list[Python]) -> None:
    """Kill -9 of a fold or a rebuild at any moment leaves exact answers, and the next one goes on from there."""
    path, chance = tmp_path / "ledger.db", random.Random(7)
    ledger = Ledger(path)
    rows = [
        Call(uid=f"{n}", ts=FIRST_US + n * 10**8, model_requested="m", model="abc"[n % 3], status="ok")
        for n in range(6_000)
    ]
    ledger.write_all([(row, ()) for row in rows])
    with closing(open_writer(path)) as connection:
        for what in ("fold", "rebuild", "empty", "fold", "rebuild", "fold"):
            process = started(FOLDER, path, what)
            time.sleep(chance.random() * 0.15)
            os.kill(process.pid, signal.SIGKILL)
            process.communicate()
            rolled, plain = both(connection, OSLO, names=("day", "model"))
            assert integers(rolled) == integers(plain)
        Folder(connection, OSLO).fold_all()
        found = state(connection)
        assert found is not None
        assert found.watermark == 6_000
        rolled, plain = both(connection, OSLO, names=("day", "model"))
        assert integers(rolled) == integers(plain)
    ledger.close()


def test_a_fold_waits_for_rows_with_smaller_ids(postgres: PostgresPlace, make_call) -> None:
    """A row that was given its id before others, and is committed after them, is passed by no watermark."""
    ledger = new_ledger(postgres)
    with closing(postgres_ledger.open_writer(postgres, busy_timeout_s=0.1)) as connection:
        folder = Folder(connection, OSLO)
        with closing(postgres_ledger.open_writer(postgres)) as late:
            late.run(f"BEGIN; SELECT pg_advisory_xact_lock_shared({LOCK})")
            postgres_ledger.write(late, [(make_call(uid="late"), ())])
            ledger.write(make_call(uid="early"))
            with pytest.raises(StoreBusy):
                folder.fold()
            late.execute("COMMIT")
        assert folder.fold() == 2
        rolled, plain = both(connection, OSLO, names=("day", "model"))
        assert integers(rolled) == integers(plain)
    ledger.close()
