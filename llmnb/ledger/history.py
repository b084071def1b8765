"""What the newest calls of a model say about the next one: billed against counted input, and lengths of answers."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmnb.ledger.connection import reading
from llmnb.ledger.shelf import settle
from llmnb.ledger.sql import Connection
from llmnb.places import Place

ROWS_BACK = 50_000
"""How far back it is looked: a model that was last used before that counts as unknown."""
MOST_PAIRS = 400
MOST_OUTPUTS = 500

_TOTAL_INPUT = (
    "input_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens + cache_write_unsplit_tokens"
)
# NOT INDEXED: only the newest rows are read, which no index but the id's finds
_FROM = """
    FROM calls NOT INDEXED
    WHERE id > (SELECT max(id) FROM calls) - :back AND model_requested = :model AND status = 'ok' AND source = 'live'
      AND is_call AND NOT estimated
"""
# what tools of the server add to the input was not in the request
_PAIRS = f"""
    SELECT estimated_input_tokens, {_TOTAL_INPUT} {_FROM}
      AND estimated_by = :counter AND web_search_requests = 0 AND web_fetch_requests = 0
    ORDER BY id DESC LIMIT {MOST_PAIRS}
"""
_LATENCIES = f"SELECT latency_ms {_FROM} AND latency_ms IS NOT NULL ORDER BY id DESC LIMIT 200"
_OUTPUTS = f"SELECT output_tokens {_FROM} AND (:project IS NULL OR project = :project) ORDER BY id DESC LIMIT {{}}"


@dataclass(frozen=True, slots=True)
class History:
    """Newest first: `pairs` of an offline count and the billed input tokens, and `outputs`, the tokens of answers.

    `project` is the one the outputs are of; None when it had none and those of all projects stand in.
    """

    pairs: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    outputs: list[int] = field(default_factory=list[int])
    project: str | None = None


def history(model: str, counter: str, project: str | None, path: Place) -> History:
    """What the ledger at `path` knows of a model, for requests that are counted in the way `counter`.

    Raises:
        StoreError: the ledger cannot be read.
    """
    settle(path)
    with reading(path) as connection:
        if connection is None:
            return History()
        named: dict[str, object] = {"back": ROWS_BACK, "model": model, "counter": counter, "project": project}
        outputs = _outputs(connection, named) if project is not None else []
        of_project = project if outputs else None
        if not outputs:
            outputs = _outputs(connection, {**named, "project": None})
        return History(_pairs(connection, named), outputs, of_project)


def latencies_ms(model: str, path: Place) -> list[float]:
    """How long the newest answers of a model took, in milliseconds.

    Raises:
        StoreError: the ledger cannot be read.
    """
    settle(path)
    with reading(path) as connection:
        if connection is None:
            return []
        rows = connection.execute(_LATENCIES, {"back": ROWS_BACK, "model": model})
        return [float(latency) for (latency,) in rows]


def _outputs(connection: Connection, named: dict[str, object]) -> list[int]:
    return [int(tokens) for (tokens,) in connection.execute(_OUTPUTS.format(MOST_OUTPUTS), named)]


def _pairs(connection: Connection, named: dict[str, object]) -> list[tuple[float, float]]:
    there = {row[1] for row in connection.execute("PRAGMA table_info(calls)")}
    if "estimated_by" not in there:  # an older ledger, and a reader never migrates
        return []
    return [(float(counted), float(billed)) for counted, billed in connection.execute(_PAIRS, named)]
