"""The ledger's migrations in PostgreSQL: the numbers and names of SQLite's, and of most the same statements.

What SQLite says in triggers, and in types of its own, is said here anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

from llmnb.errors import StoreError, StoreReadOnly
from llmnb.ledger import migrations
from llmnb.ledger.postgres.connection import SCHEMA, PostgresConnection
from llmnb.ledger.schema import TRUTHS

Migration = Callable[[PostgresConnection], None]

_WORDS_OF_SQLITE = """
    -- a truth value that is counted with is 0 or 1
    CREATE FUNCTION times (boolean, bigint) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT $1::integer * $2';
    CREATE FUNCTION times (bigint, boolean) RETURNS bigint IMMUTABLE LANGUAGE sql AS 'SELECT $1 * $2::integer';
    CREATE OPERATOR * (LEFTARG = boolean, RIGHTARG = bigint, FUNCTION = times);
    CREATE OPERATOR * (LEFTARG = bigint, RIGHTARG = boolean, FUNCTION = times);
    CREATE FUNCTION plus (bigint, boolean) RETURNS bigint IMMUTABLE LANGUAGE sql
        AS 'SELECT $1 + coalesce($2, false)::integer';
    CREATE AGGREGATE sum (boolean) (SFUNC = plus, STYPE = bigint, INITCOND = '0');
    -- value ~~~ pattern: SQLite's GLOB, of whose signs * and sets of characters are used
    CREATE FUNCTION glob (value text, pattern text) RETURNS boolean IMMUTABLE LANGUAGE sql AS $$
        SELECT value ~ (
            '^(?:' || replace(regexp_replace(pattern, '([\\\\.+^$(){}|?])', '\\\\\\1', 'g'), '*', '.*') || ')$'
        )
    $$;
    CREATE OPERATOR ~~~ (LEFTARG = text, RIGHTARG = text, FUNCTION = glob);
    -- the last of the ascending cuts at or before a moment
    CREATE FUNCTION step_of (ts bigint, cuts bigint[]) RETURNS bigint IMMUTABLE LANGUAGE sql AS
        'SELECT CASE WHEN ts < cuts[array_upper(cuts, 1)] THEN cuts[width_bucket(ts, cuts)] END';
"""


def _calls(connection: PostgresConnection) -> None:
    connection.run(_WORDS_OF_SQLITE)
    _as_in_sqlite(1)(connection)


# for each statement, and not for each row: a statement writes some hundred rows
_CHANGED = """
    CREATE FUNCTION note_updates () RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE folded bigint := (SELECT watermark FROM rollup_progress);
    BEGIN
        IF EXISTS (SELECT 1 FROM old_rows WHERE id > folded) THEN
            INSERT INTO rollup_edits DEFAULT VALUES;
        END IF;
        INSERT INTO rollup_changes (sign, {kept}) SELECT -1, {kept} FROM old_rows WHERE id <= folded
            UNION ALL SELECT 1, {kept} FROM new_rows WHERE id <= folded;
        RETURN NULL;
    END $$;
    CREATE TRIGGER rollup_updated AFTER UPDATE ON calls REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
        FOR EACH STATEMENT EXECUTE FUNCTION note_updates();
    CREATE FUNCTION note_deletions () RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE state record;
    BEGIN
        SELECT watermark, is_pruning INTO state FROM rollup_progress;
        IF EXISTS (SELECT 1 FROM old_rows WHERE id > state.watermark) THEN
            INSERT INTO rollup_edits DEFAULT VALUES;
        END IF;
        INSERT INTO rollup_changes (sign, {kept}) SELECT -1, {kept} FROM old_rows
            WHERE id <= state.watermark AND state.is_pruning = 0;
        RETURN NULL;
    END $$;
    CREATE TRIGGER rollup_deleted AFTER DELETE ON calls REFERENCING OLD TABLE AS old_rows
        FOR EACH STATEMENT EXECUTE FUNCTION note_deletions();
"""


def _rollups(connection: PostgresConnection) -> None:
    for table, key in migrations.ROLLUPS.items():
        columns = [f"{key[0]} bigint NOT NULL", *(f"{_quoted(name)} text NOT NULL" for name in key[1:])]
        columns += [f"{name} bigint NOT NULL" for name in migrations.SUMS]
        connection.run(f"CREATE TABLE {table} ({', '.join(columns)}, PRIMARY KEY ({', '.join(map(_quoted, key))}))")
    kept = [f"{_quoted(name)} {_type_of(name)}" for name in migrations.KEPT]
    connection.run(f"""
        CREATE TABLE rollup_sketches (
            day bigint NOT NULL, project text NOT NULL, provider text NOT NULL, model text NOT NULL,
            latency bytea NOT NULL, ttft bytea NOT NULL, PRIMARY KEY (day, project, provider, model)
        );
        CREATE TABLE rollup_values (dimension text, value text, PRIMARY KEY (dimension, value));
        -- a row for each change of a row after the watermark: a counter would be one row that all who write wait for
        CREATE TABLE rollup_edits (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
        CREATE TABLE rollup_progress (
            watermark bigint NOT NULL, zone text NOT NULL, folds bigint NOT NULL, pruned_before_us bigint,
            is_pruning bigint NOT NULL
        );
        INSERT INTO rollup_progress VALUES (0, '', 0, NULL, 0);
        CREATE VIEW rollup_state AS
            SELECT watermark, zone, folds, (SELECT coalesce(max(id), 0) FROM rollup_edits) AS edits, pruned_before_us,
                is_pruning
            FROM rollup_progress;
        CREATE TABLE rollup_changes (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, sign bigint NOT NULL, {", ".join(kept)}
        );
    """)  # noqa: S608 - our own names
    connection.run(_CHANGED.format(kept=", ".join(map(_quoted, migrations.KEPT))))


_COUNTED = """
    CREATE FUNCTION count_inserted () RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT 1 FROM budgets) THEN
            {spent_inserted};
            {settled};
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER budgets_inserted AFTER INSERT ON calls REFERENCING NEW TABLE AS new_rows
        FOR EACH STATEMENT EXECUTE FUNCTION count_inserted();
    CREATE FUNCTION count_updated () RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT 1 FROM budgets) THEN
            {spent_updated};
            {settled};
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER budgets_updated AFTER UPDATE ON calls REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
        FOR EACH STATEMENT EXECUTE FUNCTION count_updated();
    CREATE FUNCTION forget_budget () RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        DELETE FROM budget_spent WHERE budget_id = OLD.id;
        DELETE FROM reservations WHERE budget_id = OLD.id;
        RETURN NULL;
    END $$;
    CREATE TRIGGER budgets_deleted AFTER DELETE ON budgets FOR EACH ROW EXECUTE FUNCTION forget_budget();
"""


# in the order of the key: two that write at once wait for each other's counters in the same order
_SPENT = """
    INSERT INTO budget_spent (budget_id, slot, amount, calls, unpriced)
    SELECT
        budgets.id,
        CASE per WHEN 'total' THEN 0 ELSE counted.ts / 900000000 END AS slot,
        sum(sign * CASE unit WHEN 'usd' THEN coalesce(cost_nanousd, 0) ELSE input_tokens + cache_read_tokens
            + cache_write_5m_tokens + cache_write_1h_tokens + cache_write_unsplit_tokens + output_tokens END),
        sum(sign * is_call::integer),
        sum(sign * (cost_nanousd IS NULL)::integer)
    FROM budgets JOIN ({rows}) AS counted ON status <> 'running' AND source = 'live'
        AND (budgets.project IS NULL OR budgets.project = counted.project)
        AND (budgets."user" IS NULL OR budgets."user" = counted."user")
        AND (budgets.notebook IS NULL OR budgets.notebook = counted.notebook)
        AND (budgets.model IS NULL
            OR counted.model_requested ~~~ budgets.model OR counted.model_requested ~~~ (budgets.model || '{dated}')
            OR counted.model ~~~ budgets.model OR counted.model ~~~ (budgets.model || '{dated}'))
    GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (budget_id, slot) DO UPDATE SET
        amount = budget_spent.amount + excluded.amount, calls = budget_spent.calls + excluded.calls,
        unpriced = budget_spent.unpriced + excluded.unpriced
"""
_DATED = "[-@]" + "[0-9]" * 8
_SETTLED = """
    DELETE FROM reservations USING new_rows WHERE new_rows.status <> 'running' AND reservations.uid = new_rows.uid
        AND reservations.attempt <= new_rows.attempts
"""


def _budgets(connection: PostgresConnection) -> None:
    for statement in migrations.BUDGET_TABLES:
        connection.execute(statement)
    inserted, replaced = "SELECT 1 AS sign, * FROM new_rows", "SELECT -1, * FROM old_rows"
    connection.run(
        _COUNTED.format(
            spent_inserted=_SPENT.format(rows=inserted, dated=_DATED),
            spent_updated=_SPENT.format(rows=f"{inserted} UNION ALL {replaced}", dated=_DATED),
            settled=_SETTLED,
        )
    )


_CHANGED_ON_BOTH_SIDES = """
    CREATE OR REPLACE FUNCTION note_updates () RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        folded bigint := (SELECT watermark FROM rollup_progress);
        made bigint := (SELECT watermark FROM rollup_making);
    BEGIN
        IF EXISTS (SELECT 1 FROM old_rows WHERE id > least(folded, made)) THEN
            INSERT INTO rollup_edits DEFAULT VALUES;
        END IF;
        INSERT INTO rollup_changes (sign, {kept}) SELECT -1, {kept} FROM old_rows WHERE id <= folded
            UNION ALL SELECT 1, {kept} FROM new_rows WHERE id <= folded;
        INSERT INTO rollup_making_changes (sign, {kept}) SELECT -1, {kept} FROM old_rows WHERE id <= made
            UNION ALL SELECT 1, {kept} FROM new_rows WHERE id <= made;
        RETURN NULL;
    END $$;
    CREATE OR REPLACE FUNCTION note_deletions () RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        state record;
        made bigint := (SELECT watermark FROM rollup_making);
    BEGIN
        SELECT watermark, is_pruning INTO state FROM rollup_progress;
        IF EXISTS (SELECT 1 FROM old_rows WHERE id > least(state.watermark, made)) THEN
            INSERT INTO rollup_edits DEFAULT VALUES;
        END IF;
        INSERT INTO rollup_changes (sign, {kept}) SELECT -1, {kept} FROM old_rows
            WHERE id <= state.watermark AND state.is_pruning = 0;
        INSERT INTO rollup_making_changes (sign, {kept}) SELECT -1, {kept} FROM old_rows WHERE id <= made;
        RETURN NULL;
    END $$;
"""


def _sides(connection: PostgresConnection) -> None:
    for table in (*migrations.ROLLUPS, "rollup_sketches"):
        connection.run(f"CREATE TABLE {table}_b (LIKE {table} INCLUDING ALL)")
    connection.run("CREATE TABLE rollup_making_changes (LIKE rollup_changes INCLUDING ALL)")
    for statement in migrations.MAKING_BEGINS:
        connection.execute(statement)
    connection.run(_CHANGED_ON_BOTH_SIDES.format(kept=", ".join(map(_quoted, migrations.KEPT))))


_OWN: dict[int, Migration] = {1: _calls, 3: _rollups, 4: _budgets, 5: _sides}
"""The migrations that cannot be told in SQLite's words."""


def _as_in_sqlite(number: int) -> Migration:
    return cast("Migration", migrations.STEPS[number - 1])


def _quoted(name: str) -> str:
    return '"user"' if name == "user" else name


def _type_of(name: str) -> str:
    if name in TRUTHS:
        return "boolean"
    if name.endswith("_ms"):
        return "double precision"
    texts = ("project", "user", "provider", "model", "tag", "status", "source")
    return "text" if name in texts else "bigint"


def migrate(connection: PostgresConnection) -> None:
    """Runs the migrations that are missing, each in a transaction of its own; safe when several processes start.

    Raises:
        StoreReadOnly: a newer llmnb wrote the ledger.
        StoreError: the schema is of some other program, or may not be made.
    """
    found = migrations.version(connection)
    if found > migrations.LATEST:
        raise StoreReadOnly(
            f"the ledger {connection.place} was written by a newer llmnb (schema {found}, this one knows "
            f"{migrations.LATEST}): it can be read but not written. Upgrade with `pip install -U llmnb`.",
            path=str(connection.place),
        )
    while found < migrations.LATEST:
        connection.execute("BEGIN IMMEDIATE")
        try:
            found = _next_step(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _next_step(connection: PostgresConnection) -> int:
    done = migrations.version(connection)  # again: another process may have been first
    if done >= migrations.LATEST:
        return done
    if done == 0:
        _make_schema(connection)
    _OWN.get(done + 1, _as_in_sqlite(done + 1))(connection)
    connection.execute("INSERT INTO migrations VALUES (?, ?)", (done + 1, time.time()))
    return done + 1


def _make_schema(connection: PostgresConnection) -> None:
    connection.run(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    if connection.run("SELECT 1 FROM pg_class WHERE relnamespace = %s::regnamespace", (SCHEMA,)).fetchone() is not None:
        raise StoreError(
            f"the schema {SCHEMA!r} of {connection.place} is of some other program. Have LLMNB_STORE_URL name a "
            "database of llmnb's own.",
            path=str(connection.place),
        )
    connection.execute("CREATE TABLE migrations (number INTEGER PRIMARY KEY, ran_at REAL NOT NULL)")
