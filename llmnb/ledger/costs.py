"""The costs on the books, for repricing: rows by ranges of ids, and new costs in short transactions."""

from __future__ import annotations

from collections.abc import Sequence

from llmnb.ledger.schema import COLUMNS, call_from
from llmnb.ledger.sql import Connection
from llmnb.pricing.repricing import Repriced, StoredCall

_TOKENS = (
    "input_tokens", "cache_read_tokens", "cache_write_5m_tokens", "cache_write_1h_tokens",
    "cache_write_unsplit_tokens", "output_tokens", "web_search_requests",
)  # fmt: skip
_SELECT = f"""
    SELECT id, {", ".join(COLUMNS)} FROM calls
    WHERE id > :last_id AND source = 'live' AND status <> 'running'
      AND (:model IS NULL OR model = :model OR model_requested = :model) AND (:since IS NULL OR ts >= :since)
    ORDER BY id LIMIT :limit
"""  # noqa: S608 - only our own column names are filled in
# a call may have been written again since it was read: then its cost is of other tokens
_UPDATE = f"""
    UPDATE calls SET cost_nanousd = ?, price_id = ?, saved_nanousd = ?
    WHERE id = ? AND {" AND ".join(f"{name} = ?" for name in _TOKENS)}
"""  # noqa: S608


class StoredCosts:
    """Rows that can be read and given another cost (`llmnb.pricing.repricing.PriceableRows`)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def after(self, last_id: int, limit: int, model: str | None, since_us: int | None) -> Sequence[StoredCall]:
        """The next live rows that have ended, by id."""
        named = {"last_id": last_id, "limit": limit, "model": model, "since": since_us}
        return [StoredCall(row[0], call_from(row[1:])) for row in self._connection.execute(_SELECT, named)]

    def set_costs(self, changed: Sequence[Repriced]) -> None:
        """Writes new costs in one transaction, where the row still has the tokens that were priced."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.executemany(_UPDATE, [_parameters(entry) for entry in changed])
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise


def _parameters(entry: Repriced) -> tuple[object, ...]:
    tokens = (getattr(entry.row.call, name) for name in _TOKENS)
    return entry.cost.nanousd, entry.cost.price_id, entry.saved_nanousd, entry.row.id, *tokens
