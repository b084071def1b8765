"""How the ledger's schema came to be, step by step: numbered functions, each run once and in one transaction.

A migration that was released never changes. The number of the last one that ran is `PRAGMA user_version`, and the table
`migrations` says when.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

from llmnb.ledger.sql import Connection

Migration = Callable[[sqlite3.Connection], None]
STEPS: list[Migration] = []
"""All of them, in their order."""


def _migration(number: int) -> Callable[[Migration], Migration]:
    def register(function: Migration) -> Migration:
        assert number == len(STEPS) + 1, "migrations are numbered without gaps"
        STEPS.append(function)
        return function

    return register


@_migration(1)
def _calls(connection: sqlite3.Connection) -> None:
    """One row a call, with every fact that a later feature fills; tokens in disjoint classes, money in nano-dollars."""
    connection.execute("""
        CREATE TABLE calls (
            id INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice, so that a watermark on it stays true
            uid TEXT NOT NULL UNIQUE,
            ts INTEGER NOT NULL, -- microseconds since 1970, UTC
            model_requested TEXT NOT NULL,
            parent_uid TEXT,
            project TEXT, session TEXT, user TEXT, notebook TEXT, cell TEXT,
            chat TEXT, run_id TEXT, batch_id TEXT, template TEXT, tag TEXT,
            provider TEXT NOT NULL,
            model TEXT,
            status TEXT NOT NULL,
            source TEXT NOT NULL,
            is_call INTEGER NOT NULL,
            stop_reason TEXT, error_type TEXT,
            stream INTEGER NOT NULL,
            attempts INTEGER NOT NULL,
            wait_ms REAL NOT NULL, latency_ms REAL, ttft_ms REAL,
            input_tokens INTEGER NOT NULL,
            cache_read_tokens INTEGER NOT NULL,
            cache_write_5m_tokens INTEGER NOT NULL,
            cache_write_1h_tokens INTEGER NOT NULL,
            cache_write_unsplit_tokens INTEGER NOT NULL,
            output_tokens INTEGER NOT NULL,
            thinking_tokens INTEGER,
            web_search_requests INTEGER NOT NULL,
            web_fetch_requests INTEGER NOT NULL,
            service_tier TEXT, speed TEXT, inference_geo TEXT,
            cost_nanousd INTEGER, -- NULL: unpriced
            saved_nanousd INTEGER,
            cache_breakpoints INTEGER, cache_miss_reason TEXT,
            estimated INTEGER NOT NULL,
            price_id TEXT, request_id TEXT,
            content TEXT -- last: a long text then costs nothing to whoever reads the columns before it
        )""")
    connection.execute("CREATE INDEX calls_ts ON calls (ts)")
    # partial indices cost the ordinary write nothing
    connection.execute("CREATE INDEX calls_running ON calls (session) WHERE status = 'running'")
    connection.execute("CREATE INDEX calls_parent ON calls (parent_uid) WHERE parent_uid IS NOT NULL")


@_migration(2)
def _estimates(connection: sqlite3.Connection) -> None:
    """The offline count of a sample of the calls, to be held against what was billed."""
    connection.execute("ALTER TABLE calls ADD COLUMN estimated_input_tokens INTEGER")
    connection.execute("ALTER TABLE calls ADD COLUMN estimated_by TEXT")


SUMS = (
    "entries", "calls", "errors", "cached_calls", "retries", "wait_us", "input_tokens", "cache_read_tokens",
    "cache_write_5m_tokens", "cache_write_1h_tokens", "cache_write_unsplit_tokens", "output_tokens", "thinking_tokens",
    "web_search_requests", "web_fetch_requests", "cost_nanousd", "unpriced_calls", "saved_nanousd", "saved_calls",
    "estimated_calls", "writing_tokens", "writing_us",
)  # fmt: skip
ROLLUPS = {
    "rollup_slots": ("slot", "provider", "model"),
    "rollup_days": ("day", "provider", "model"),
    "rollup_projects": ("day", "project", "provider", "model"),
    "rollup_people": ("day", "project", "user", "provider", "model", "tag"),
}
KEPT = (
    "ts", "project", "user", "provider", "model", "tag", "status", "source", "is_call", "attempts", "wait_ms",
    "latency_ms", "ttft_ms", "input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens",
    "cache_write_unsplit_tokens", "output_tokens", "thinking_tokens", "web_search_requests", "web_fetch_requests",
    "cost_nanousd", "saved_nanousd", "estimated",
)  # fmt: skip


@_migration(3)
def _rollups(connection: sqlite3.Connection) -> None:
    """Sums by time and dimension, and triggers that note what changes in rows that are in them (`rollups`)."""
    execute = connection.execute
    for table, key in ROLLUPS.items():
        columns = [f"{key[0]} INTEGER NOT NULL", *(f"{name} TEXT NOT NULL" for name in key[1:])]
        columns += [f"{name} INTEGER NOT NULL" for name in SUMS]
        execute(f"CREATE TABLE {table} ({', '.join(columns)}, PRIMARY KEY ({', '.join(key)})) WITHOUT ROWID")
    execute("""
        CREATE TABLE rollup_sketches (
            day INTEGER NOT NULL, project TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL,
            latency BLOB NOT NULL, ttft BLOB NOT NULL, -- see `sketch`
            PRIMARY KEY (day, project, provider, model)
        ) WITHOUT ROWID""")
    execute("CREATE TABLE rollup_values (dimension TEXT, value TEXT, PRIMARY KEY (dimension, value)) WITHOUT ROWID")
    execute("""
        CREATE TABLE rollup_state (
            watermark INTEGER NOT NULL, zone TEXT NOT NULL, folds INTEGER NOT NULL, edits INTEGER NOT NULL,
            pruned_before_us INTEGER, is_pruning INTEGER NOT NULL
        )""")
    execute("INSERT INTO rollup_state VALUES (0, '', 0, 0, NULL, 0)")
    execute(f"""
        CREATE TABLE rollup_changes (
            id INTEGER PRIMARY KEY AUTOINCREMENT, sign INTEGER NOT NULL, {", ".join(KEPT)}
        )""")
    _watch_changes(connection)


def _watch_changes(connection: sqlite3.Connection) -> None:
    columns = f"(sign, {', '.join(KEPT)})"
    before, after = (
        f"INSERT INTO rollup_changes {columns} VALUES ({sign}, {', '.join(f'{row}.{name}' for name in KEPT)});"  # noqa: S608
        for sign, row in ((-1, "old"), (1, "new"))
    )
    watermark, edited = "(SELECT watermark FROM rollup_state)", "UPDATE rollup_state SET edits = edits + 1;"
    is_kept = "NOT (SELECT is_pruning FROM rollup_state)"
    for name, when, does in (
        ("rollup_changed AFTER UPDATE", f"old.id <= {watermark}", before + after),
        ("rollup_edited AFTER UPDATE", f"old.id > {watermark}", edited),
        ("rollup_deleted AFTER DELETE", f"old.id <= {watermark} AND {is_kept}", before),
        ("rollup_edited_by_delete AFTER DELETE", f"old.id > {watermark}", edited),
    ):
        connection.execute(f"CREATE TRIGGER {name} ON calls WHEN {when} BEGIN {does} END")


BUDGET_TABLES = (
    """
        CREATE TABLE budgets (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            per TEXT NOT NULL, unit TEXT NOT NULL, -- unit: usd | tokens
            project TEXT, user TEXT, model TEXT, notebook TEXT, -- NULL: whatever it is
            allowance INTEGER NOT NULL, -- nano-dollars or tokens
            action TEXT NOT NULL,
            timezone TEXT, -- NULL: of whoever asks
            unpriced TEXT NOT NULL, -- JSON list of models that may go without a price
            counting TEXT, -- the session that still counts what was spent before the budget was set
            said_period INTEGER NOT NULL DEFAULT 0, said_percent INTEGER NOT NULL DEFAULT 0 -- the last warning
        )""",
    """
        CREATE UNIQUE INDEX budgets_scope ON budgets (
            per, unit, coalesce(project, ''), coalesce(user, ''), coalesce(model, ''), coalesce(notebook, '')
        )""",
    """
        CREATE TABLE budget_spent (
            budget_id INTEGER NOT NULL,
            slot INTEGER NOT NULL, -- a quarter of an hour since 1970; 0 where time is no matter
            amount INTEGER NOT NULL, calls INTEGER NOT NULL, unpriced INTEGER NOT NULL,
            PRIMARY KEY (budget_id, slot)
        ) WITHOUT ROWID""",
    """
        CREATE TABLE reservations (
            uid TEXT NOT NULL, budget_id INTEGER NOT NULL,
            attempt INTEGER NOT NULL,
            ts INTEGER NOT NULL, -- of the call: which period it belongs to
            amount INTEGER NOT NULL, -- what is held
            excess INTEGER NOT NULL, -- how much more the call can cost at most, where it cannot be cut off
            session TEXT NOT NULL, taken_at INTEGER NOT NULL,
            PRIMARY KEY (uid, budget_id)
        ) WITHOUT ROWID""",
)


@_migration(4)
def _budgets(connection: sqlite3.Connection) -> None:
    """Budgets, what was spent of each, and what is held for calls under way (see `llmnb.budgeting`).

    Triggers keep the counters: whoever writes a row, however often, counts it exactly once, in the transaction that
    writes it. Nothing subtracts what is deleted: to forget old rows is not to get the money back.
    """
    for statement in BUDGET_TABLES:
        connection.execute(statement)
    connection.execute(f"""
        CREATE TRIGGER budgets_inserted AFTER INSERT ON calls
        WHEN NEW.status <> 'running' AND EXISTS (SELECT 1 FROM budgets)
        BEGIN {_spent("NEW", "+")}; {_SETTLED}; END""")  # noqa: S608 - our own text
    connection.execute(f"""
        CREATE TRIGGER budgets_updated AFTER UPDATE ON calls
        WHEN EXISTS (SELECT 1 FROM budgets)
        BEGIN {_spent("OLD", "-")}; {_spent("NEW", "+")}; {_SETTLED}; END""")  # noqa: S608
    connection.execute("""
        CREATE TRIGGER budgets_deleted AFTER DELETE ON budgets
        BEGIN
            DELETE FROM budget_spent WHERE budget_id = OLD.id;
            DELETE FROM reservations WHERE budget_id = OLD.id;
        END""")


_SETTLED = "DELETE FROM reservations WHERE NEW.status <> 'running' AND uid = NEW.uid AND attempt <= NEW.attempts"


def _spent(row: str, sign: str) -> str:
    """Adds a row of `calls` to the counters of the budgets it belongs to, or takes it from them."""
    dated = "[-@]" + "[0-9]" * 8
    return f"""
        INSERT INTO budget_spent (budget_id, slot, amount, calls, unpriced)
        SELECT
            id,
            CASE per WHEN 'total' THEN 0 ELSE {row}.ts / 900000000 END,
            {sign} CASE unit WHEN 'usd' THEN coalesce({row}.cost_nanousd, 0) ELSE
                {row}.input_tokens + {row}.cache_read_tokens + {row}.cache_write_5m_tokens
                + {row}.cache_write_1h_tokens + {row}.cache_write_unsplit_tokens + {row}.output_tokens END,
            {sign} {row}.is_call,
            {sign} ({row}.cost_nanousd IS NULL)
        FROM budgets
        WHERE {row}.status <> 'running' AND {row}.source = 'live'
            AND (project IS NULL OR project = {row}.project) AND (user IS NULL OR user = {row}.user)
            AND (notebook IS NULL OR notebook = {row}.notebook)
            AND (model IS NULL OR {row}.model_requested GLOB model OR {row}.model_requested GLOB model || '{dated}'
                OR {row}.model GLOB model OR {row}.model GLOB model || '{dated}')
        ON CONFLICT (budget_id, slot) DO UPDATE SET
            amount = amount + excluded.amount, calls = calls + excluded.calls, unpriced = unpriced + excluded.unpriced
    """  # noqa: S608


_MAKING_TABLE = """
    CREATE TABLE rollup_making (
        side INTEGER NOT NULL, -- which tables answer
        watermark INTEGER, zone TEXT, -- of the others, while they are made anew
        folds INTEGER NOT NULL
    )"""
MAKING_BEGINS = (_MAKING_TABLE, "INSERT INTO rollup_making VALUES (0, NULL, NULL, 0)")


@_migration(5)
def _sides(connection: sqlite3.Connection) -> None:
    """The roll-ups a second time, so that they can be made anew beside those that answer (see `rollups`)."""
    execute = connection.execute
    for table in (*ROLLUPS, "rollup_sketches"):
        (made,) = execute("SELECT sql FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
        execute(made.replace(f"CREATE TABLE {table}", f"CREATE TABLE {table}_b", 1))
    execute(f"""
        CREATE TABLE rollup_making_changes (
            id INTEGER PRIMARY KEY AUTOINCREMENT, sign INTEGER NOT NULL, {", ".join(KEPT)}
        )""")
    for statement in MAKING_BEGINS:
        execute(statement)
    columns = f"(sign, {', '.join(KEPT)})"
    before, after = (
        f"INSERT INTO rollup_making_changes {columns} "  # noqa: S608 - our own names
        f"VALUES ({sign}, {', '.join(f'{row}.{name}' for name in KEPT)});"
        for sign, row in ((-1, "old"), (1, "new"))
    )
    # NULL where nothing is made anew, and then neither is true
    is_in = "old.id <= (SELECT watermark FROM rollup_making)"
    waits = "old.id > (SELECT watermark FROM rollup_making) AND old.id <= (SELECT watermark FROM rollup_state)"
    edited = "UPDATE rollup_state SET edits = edits + 1;"
    for name, when, does in (
        ("rollup_making_changed AFTER UPDATE", is_in, before + after),
        ("rollup_making_edited AFTER UPDATE", waits, edited),
        ("rollup_making_deleted AFTER DELETE", is_in, before),
        ("rollup_making_edited_by_delete AFTER DELETE", waits, edited),
    ):
        execute(f"CREATE TRIGGER {name} ON calls WHEN {when} BEGIN {does} END")


@_migration(6)
def _pacing(connection: sqlite3.Connection) -> None:
    """What an account may still do with a model this minute, as JSON (see `llmnb.pacing`)."""
    connection.execute("CREATE TABLE pacing (account TEXT PRIMARY KEY, state TEXT NOT NULL)")


LATEST = len(STEPS)
"""The schema this llmnb writes."""


def version(connection: Connection) -> int:
    """The number of the last migration that ran on this database; 0 for a new one."""
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def migrate(connection: sqlite3.Connection) -> None:
    """Runs the migrations that are missing; safe when several processes start at once."""
    while version(connection) < LATEST:
        connection.execute("BEGIN IMMEDIATE")
        try:
            _next_step(connection)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _next_step(connection: sqlite3.Connection) -> None:
    done = version(connection)  # again: another process may have been first
    if done >= LATEST:
        return
    connection.execute("CREATE TABLE IF NOT EXISTS migrations (number INTEGER PRIMARY KEY, ran_at REAL NOT NULL)")
    STEPS[done](connection)
    connection.execute("INSERT INTO migrations VALUES (?, ?)", (done + 1, time.time()))
    connection.execute(f"PRAGMA user_version = {done + 1}")  # inside the transaction, so it runs with it or not at all
