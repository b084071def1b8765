"""A team's database: who may open it, what the schema is, and a call from end to end."""

from __future__ import annotations

import os
import warnings
from contextlib import closing
from pathlib import Path

import anthropic
import pytest

import llmnb
from llmnb.commands import doctor
from llmnb.errors import StoreError, StoreReadOnly
from llmnb.ledger import books, calls, migrations, new_ledger, upkeep, usage
from llmnb.ledger.connection import open_writer, reading
from llmnb.ledger.postgres.dialect import in_postgres
from llmnb.places import PostgresPlace
from llmnb.settings import load
from llmnb.testing import serve_simulator

from ...postgres_server import PostgresServer


def columns_of_sqlite(path: Path) -> dict[str, set[str]]:
    """The columns of every table."""
    with closing(open_writer(path)) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        return {
            table: {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            for table in tables
            if not table.startswith("sqlite_")
        }


def test_both_databases_have_the_same_schema(
    tmp_path: Path, postgres: PostgresPlace, postgres_server: PostgresServer
) -> None:
    """The same migrations ran, and made the same tables with the same columns."""
    wanted = columns_of_sqlite(tmp_path / "ledger.db")
    new_ledger(postgres).close()
    found: dict[str, set[str]] = {}
    for table, column in postgres_server.execute(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'llmnb'", postgres.url
    ):
        found.setdefault(table, set()).add(column)
    del found["rollup_progress"], found["rollup_edits"]  # what the view `rollup_state` is made of
    assert found == wanted
    ran = postgres_server.execute("SELECT number FROM llmnb.migrations ORDER BY number", postgres.url)
    assert [number for (number,) in ran] == list(range(1, migrations.LATEST + 1))


def test_a_newer_database_is_read_and_not_written(
    postgres: PostgresPlace, postgres_server: PostgresServer, make_call
) -> None:
    """As with a file."""
    with closing(new_ledger(postgres)) as ledger:
        ledger.write(make_call(uid="old"))
    postgres_server.execute("INSERT INTO llmnb.migrations VALUES (1000, 0)", postgres.url)
    with pytest.raises(StoreReadOnly, match="written by a newer llmnb"):
        new_ledger(postgres)
    assert list(calls(path=postgres)["uid"]) == ["old"]


def test_a_schema_of_some_other_program_is_left_alone(postgres: PostgresPlace, postgres_server: PostgresServer) -> None:
    """Nothing is written into tables that llmnb did not make."""
    postgres_server.execute("CREATE SCHEMA llmnb; CREATE TABLE llmnb.calls (number integer)", postgres.url)
    with pytest.raises(StoreError, match="is of some other program"):
        new_ledger(postgres)


def test_without_a_ledger_nothing_is_made(postgres: PostgresPlace, postgres_server: PostgresServer) -> None:
    """Reading an empty database gives empty frames."""
    assert calls(path=postgres).empty
    assert usage(by=[], path=postgres)["calls"].tolist() == [0]
    assert upkeep.status(postgres, load()) is None
    assert postgres_server.execute("SELECT to_regnamespace('llmnb')", postgres.url) == [(None,)]


def test_a_reader_cannot_write(postgres: PostgresPlace) -> None:
    """Whatever it says."""
    new_ledger(postgres).close()
    with reading(postgres) as connection:
        assert connection is not None
        with pytest.raises(StoreError, match="only lets read"):
            connection.execute("DELETE FROM calls")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_has_connections_of_its_own(postgres: PostgresPlace, make_call) -> None:
    """Parent and child write on, and neither ends the other's connection."""
    with closing(new_ledger(postgres)) as ledger:
        ledger.write(make_call(uid="before"))
        child = os.fork()
        if child == 0:
            code = 1
            try:
                ledger.write(make_call(uid="child"))
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        ledger.write(make_call(uid="parent"))
    assert sorted(calls(path=postgres)["uid"]) == ["before", "child", "parent"]


def test_a_text_with_the_one_character_it_cannot_hold(postgres: PostgresPlace, make_call) -> None:
    """It is shown by a sign; the row is not lost."""
    with closing(new_ledger(postgres)) as ledger:
        ledger.write(make_call(uid="a", template="x\0y"))
    assert calls(path=postgres)["template"].tolist() == ["x␀y"]


def test_its_state_is_told_without_the_password(
    postgres: PostgresPlace, make_call, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By `llmnb ledger status` and by the doctor."""
    monkeypatch.setenv("LLMNB_STORE_URL", postgres.url.replace("postgres@", "postgres:sesame@"))
    with closing(new_ledger(postgres)) as ledger:
        ledger.write(make_call())
    found = upkeep.status(load().ledger_path, load())
    assert found is not None
    assert (found.calls, found.schema, found.waiting) == (1, migrations.LATEST, 1)
    assert found.size_bytes > 100_000
    (check,) = doctor._ledger()  # pyright: ignore[reportPrivateUsage]
    assert check.state == "ok"
    assert "1 call," in check.found
    assert "sesame" not in f"{found}{check}{load()!r}"


def test_calls_go_through_while_the_server_is_away(
    postgres: PostgresPlace, postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the client to the database: answered all the same, and on the books when it is back."""
    monkeypatch.setenv("LLMNB_STORE_URL", postgres.url)
    with serve_simulator(seed=3) as simulator:
        for name, value in simulator.environ().items():
            monkeypatch.setenv(name, value)
        with llmnb.wrap(anthropic.Anthropic(), project="team") as client:
            question = {"model": "claude-sonnet-5-5", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}
            assert client.messages.create(**question).content
            assert len(calls()) == 1
            postgres_server.stop()
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                answers = [client.messages.create(**question) for _ in range(3)]
                books().settle()
            assert all(answer.content for answer in answers)
            assert len([warning for warning in said if "Your calls go on" in str(warning.message)]) == 1
            postgres_server.start()
            assert usage(by="project")["calls"].tolist() == [4]
            assert usage(by=[])["cost_nanousd"].tolist() == [simulator.billed().price_nanousd]
    books().close()


# The dialect ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("SELECT user FROM calls NOT INDEXED WHERE id > ?", 'SELECT "user" FROM calls  WHERE id > %s'),
        ("SELECT 'user ? :x 10%' WHERE a = :x", "SELECT 'user ? :x 10%%' WHERE a = %(x)s"),
        ("SELECT max(id) FROM (SELECT id FROM calls)", "SELECT max(id) FROM (SELECT id FROM calls) AS part_1"),
        ("SELECT max(a, 0), min(a)", "SELECT greatest(a, 0), min(a)"),
        ("SELECT iif(a AND b, max(c, 1), 0)", "SELECT CASE WHEN a AND b THEN greatest(c, 1) ELSE 0 END"),
        ("SELECT 1 WHERE a IS NOT ? AND b IS ? AND c IS NOT NULL", "SELECT 1 WHERE a IS DISTINCT FROM %s AND b IS NOT "
         "DISTINCT FROM %s AND c IS NOT NULL"),
        ("CREATE TABLE t (id INTEGER PRIMARY KEY AUTOINCREMENT, user TEXT, is_call INTEGER NOT NULL, x REAL, y BLOB)",
         'CREATE TABLE t (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, "user" TEXT, is_call boolean NOT '
         "NULL, x double precision, y bytea)"),
        ("SELECT 1 -- ? is not asked\n", "SELECT 1  "),
    ],
)  # fmt: skip
def test_what_is_said_otherwise(sql: str, said: str) -> None:
    """Each idiom, and nothing inside of texts and comments."""
    assert in_postgres(sql).replace("\n", " ").strip() == said.strip()
