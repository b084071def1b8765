"""How far back a number of calls reaches: to keep a question about rows quick, however large the ledger is.

Roll-ups answer for provider, model, project, user, tag and time at any size. Every other dimension is read from rows;
whoever cannot wait asks about the newest of them, and says so.
"""

from __future__ import annotations

from datetime import datetime

from llmnb.ledger.connection import reading
from llmnb.ledger.filters import time_condition, time_range_us
from llmnb.ledger.shelf import settle
from llmnb.ledger.zones import Moment, from_us, reading_zone
from llmnb.places import Place
from llmnb.settings import load


def newest_from(since: Moment, until: Moment, rows: int, *, path: Place | None = None) -> datetime | None:
    """From when on the range holds the newest `rows` rows; None when it holds no more than that.

    Rows of the same microsecond are taken together. Costs a look into the index on time: milliseconds for 100,000.

    Raises:
        InvalidRequest: a moment is not understood.
        StoreError: the ledger cannot be read.
    """
    settings = load()
    zone, where_from = reading_zone(settings), path or settings.ledger_path
    in_time = time_condition(*time_range_us(since, until, zone))
    settle(where_from)
    with reading(where_from) as connection:
        if connection is None:
            return None
        sql = f"SELECT ts FROM calls WHERE {in_time.sql} ORDER BY ts DESC LIMIT 2 OFFSET ?"  # noqa: S608 - our own text
        found = [ts for (ts,) in connection.execute(sql, (*in_time.parameters, rows - 1))]
    return from_us(found[0], zone) if len(found) == 2 else None
