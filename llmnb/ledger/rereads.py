"""How soon calls were followed by the next one that could read their prompt from the cache: the ledger's history of it.

A conversation has a label, so its gaps are known. Other calls are not told apart by their prompts, of which the ledger
keeps nothing; there only calls that had a breakpoint count: one that read found what an earlier one had written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from llmnb.ledger.connection import reading
from llmnb.places import Place
from llmnb.prompt_cache import TTL_S, Gaps

ROWS = 2_000
"""How many of the latest calls are looked at: a few milliseconds, however large the ledger is."""
DAYS = 30
_US = 1_000_000

Group = tuple[str | None, str, bool]
"""Project, model asked for, and whether the calls are turns of chats."""

_SELECT = """
    SELECT ts, project, model_requested, chat, session, cache_breakpoints, cache_read_tokens, cache_write_1h_tokens
    FROM (SELECT * FROM calls WHERE ts >= ? AND ts < ? ORDER BY ts DESC LIMIT ?)
    WHERE is_call AND source = 'live' AND status = 'ok' AND session IS NOT ? ORDER BY ts
"""


def rereads(path: Place, now_us: int, *, without_session: str | None = None) -> dict[Group, Gaps]:
    """The gaps of the latest calls on the books, by project, model and whether they were turns of chats.

    Args:
        path: where the ledger is; it is read only, and need not exist.
        now_us: microseconds since 1970.
        without_session: calls of this session are left out.

    Raises:
        StoreError: the ledger cannot be read.
    """
    with reading(path) as connection:
        if connection is None:
            return {}
        since_us = now_us - DAYS * 24 * 3_600 * _US
        rows = connection.execute(_SELECT, (since_us, now_us, ROWS, without_session or "")).fetchall()
    return _gaps(rows, now_us)


def _gaps(rows: Iterable[tuple[Any, ...]], now_us: int) -> dict[Group, Gaps]:
    found: dict[Group, Gaps] = defaultdict(Gaps)
    last: dict[tuple[Any, ...], tuple[int, Group, bool]] = {}
    for ts, project, model, chat, session, breakpoints, read, written_1h in rows:
        group: Group = (project, model, chat is not None)
        line = (session, *group, chat)
        before = last.get(line)
        last[line] = ts, group, chat is not None or bool(breakpoints)
        if before is None:
            continue
        gap_s = (ts - before[0]) / _US
        if chat is not None:
            found[group] = found[group].with_one(gap_s)
        elif breakpoints:
            found[group] = found[group].with_one(_as_read(gap_s, bool(read), bool(written_1h)))
    for ts, group, counts in last.values():
        # the last call of a line was followed by none; that of one which may still go on says nothing
        if counts and now_us - ts > TTL_S["1h"] * _US:
            found[group] += Gaps(later=1.0)
    return dict(found)


def _as_read(gap_s: float, was_read: bool, for_an_hour: bool) -> float:
    """The gap that says the same as whether the cache was read: an entry that was not found might as well be gone."""
    if was_read:
        return gap_s if for_an_hour else min(gap_s, TTL_S["5m"])
    return max(gap_s, TTL_S["1h"] + 1) if gap_s <= TTL_S["5m"] else gap_s
