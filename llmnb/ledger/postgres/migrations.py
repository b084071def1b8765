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


_CHANGED = """
    CREATE FUNCTION note_change () RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE state record;
    BEGIN
        SELECT watermark, is_pruning INTO state FROM rollup_state;
        IF OLD.id > state.watermark THEN
            INSERT INTO rollup_edits DEFAULT VALUES;
        ELSIF TG_OP = 'UPDATE' OR state.is_pruning = 0 THEN
            INSERT INTO rollup_changes {columns} VALUES {before};
            IF TG_OP = 'UPDATE' THEN
                INSERT INTO rollup_changes {columns} VALUES {after};
            END IF;
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER rollup_changed AFTER UPDATE OR DELETE ON calls FOR EACH ROW EXECUTE FUNCTION note_change();
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
    columns = f"(sign, {', '.join(map(_quoted, migrations.KEPT))})"
    before, after = (
        f"({sign}, {', '.join(f'{row}.{_quoted(name)}' for name in migrations.KEPT)})"
        for sign, row in ((-1, "OLD"), (1, "NEW"))
    )
    connection.run(_CHANGED.format(columns=columns, before=before, after=after))


_COUNTED = """
    CREATE FUNCTION count_spent (counted calls, sign integer) RETURNS void LANGUAGE sql AS $$
        INSERT INTO budget_spent (budget_id, slot, amount, calls, unpriced)
        SELECT
            id,
            CASE per WHEN 'total' THEN 0 ELSE counted.ts / 900000000 END,
            sign * CASE unit WHEN 'usd' THEN coalesce(counted.cost_nanousd, 0) ELSE
                counted.input_tokens + counted.cache_read_tokens + counted.cache_write_5m_tokens
                + counted.cache_write_1h_tokens + counted.cache_write_unsplit_tokens + counted.output_tokens END,
            sign * counted.is_call::integer,
            sign * (counted.cost_nanousd IS NULL)::integer
        FROM budgets
        WHERE counted.status <> 'running' AND counted.source = 'live'
            AND (project IS NULL OR project = counted.project) AND ("user" IS NULL OR "user" = counted."user")
            AND (notebook IS NULL OR notebook = counted.notebook)
            AND (model IS NULL OR counted.model_requested ~~~ model OR counted.model_requested ~~~ (model || '{dated}')
                OR counted.model ~~~ model OR counted.model ~~~ (model || '{dated}'))
        ORDER BY id -- two that write at once wait for each other's counters in the same order
        ON CONFLICT (budget_id, slot) DO UPDATE SET
            amount = budget_spent.amount + excluded.amount, calls = budget_spent.calls + excluded.calls,
            unpriced = budget_spent.unpriced + excluded.unpriced
    $$;
    CREATE FUNCTION count_for_budgets () RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF EXISTS (SELECT 1 FROM budgets) THEN
            IF TG_OP = 'UPDATE' THEN
                PERFORM count_spent(OLD, -1);
            END IF;
            PERFORM count_spent(NEW, 1);
            DELETE FROM reservations WHERE NEW.status <> 'running' AND uid = NEW.uid AND attempt <= NEW.attempts;
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER budgets_counted AFTER INSERT OR UPDATE ON calls FOR EACH ROW EXECUTE FUNCTION count_for_budgets();
    CREATE FUNCTION forget_budget () RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        DELETE FROM budget_spent WHERE budget_id = OLD.id;
        DELETE FROM reservations WHERE budget_id = OLD.id;
        RETURN NULL;
    END $$;
    CREATE TRIGGER budgets_deleted AFTER DELETE ON budgets FOR EACH ROW EXECUTE FUNCTION forget_budget();
"""


def _budgets(connection: PostgresConnection) -> None:
    for statement in migrations.BUDGET_TABLES:
        connection.execute(statement)
    connection.run(_COUNTED.replace("{dated}", "[-@]" + "[0-9]" * 8))


_OWN: dict[int, Migration] = {1: _calls, 3: _rollups, 4: _budgets}
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
