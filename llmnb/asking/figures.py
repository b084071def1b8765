"""What an answer used and cost: worked out from its rows of the ledger when somebody asks; no call waits for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

from llmnb.messages import wire
from llmnb.pricing import Terms, cost_of, saved_by_caching
from llmnb.records import Call, Cost, Ended, PromptCacheUse, PromptMarks, Usage
from llmnb.reply import Figures, Reply
from llmnb.trouble import quietly
from llmnb.unread import Unread

if TYPE_CHECKING:
    from anthropic.types import Message


def rows_of(ended: Ended | None) -> tuple[Call, ...]:
    """The row of a call and its child rows; none where the books could not be kept."""
    try:
        return () if ended is None else ended.rows
    except Exception as trouble:
        quietly("reading the row of an answer", trouble)
        return ()


def figures(
    message: Message | Unread, model: str, ended: Ended | None, marks: PromptMarks | None, usage: Usage | None = None
) -> Figures:
    """The figures of an answer.

    Args:
        message: the answer.
        model: the model that was asked.
        ended: how its call ended, as far as the books know.
        marks: what was marked for the prompt cache.
        usage: its tokens, where the message cannot tell them.
    """
    rows = rows_of(ended)
    call = rows[0] if rows else None
    usage = usage or _usage(message, model, call)
    cost = _cost(message, usage, rows)
    return Figures(usage, cost, call, _prompt_cache(message, usage, cost, rows, marks))


def summed(turns: Sequence[Reply]) -> Figures:
    """The figures of several answers that are one: what they used and cost together, and the last one's row."""
    usages = [turn.usage for turn in turns]
    costs = [turn.cost for turn in turns]
    known = [cost.nanousd for cost in costs if cost.nanousd is not None]
    cost = Cost(sum(known) if len(known) == len(costs) else None, costs[-1].price_id)
    return Figures(reduce(add, usages), cost, turns[-1].call, _together([turn.prompt_cache for turn in turns]))


def _together(uses: Sequence[PromptCacheUse]) -> PromptCacheUse:
    saved = [use.saved_nanousd for use in uses if use.saved_nanousd is not None]
    return replace(
        uses[-1],
        read_tokens=sum(use.read_tokens for use in uses),
        written_5m_tokens=sum(use.written_5m_tokens for use in uses),
        written_1h_tokens=sum(use.written_1h_tokens for use in uses),
        written_unsplit_tokens=sum(use.written_unsplit_tokens for use in uses),
        saved_nanousd=sum(saved) if len(saved) == len(uses) else None,
        estimated=any(use.estimated for use in uses),
    )


def _usage(message: Message | Unread, model: str, call: Call | None) -> Usage:
    if call is not None and call.source == "live":
        return call.usage
    # of an answer that was kept: what it took when it was asked; its row has what it took now, which is nothing
    known = wire.read_message({"usage": message.usage.to_dict(warnings=False), "model": message.model}, model)
    return known.usage or Usage()


def _cost(message: Message | Unread, usage: Usage, rows: tuple[Call, ...]) -> Cost:
    if not rows:
        return cost_of(usage, message.model)
    # what a compaction, an advisor or a model that declined cost is part of what this answer cost
    known = [row.cost_nanousd for row in rows if row.cost_nanousd is not None]
    return Cost(sum(known) if len(known) == len(rows) else None, rows[0].price_id)


def _prompt_cache(
    message: Message | Unread, usage: Usage, cost: Cost, rows: tuple[Call, ...], marks: PromptMarks | None
) -> PromptCacheUse:
    if rows and rows[0].source != "live":  # answered from disk: the API's cache did nothing
        return PromptCacheUse(saved_nanousd=0)
    return PromptCacheUse(
        breakpoints=() if marks is None else marks.breakpoints,
        read_tokens=usage.cache_read_tokens,
        written_5m_tokens=usage.cache_write_5m_tokens,
        written_1h_tokens=usage.cache_write_1h_tokens,
        written_unsplit_tokens=usage.cache_write_unsplit_tokens,
        saved_nanousd=_saved(message, usage, cost, rows),
        miss_reason=rows[0].cache_miss_reason if rows else None,
        miss="" if marks is None else marks.miss,
        estimated=usage.estimated,
        bound_nanousd=_bound(message, marks),
    )


def _bound(message: Message | Unread, marks: PromptMarks | None) -> int | None:
    tokens = None if marks is None else marks.bound_tokens
    return None if tokens is None else cost_of(Usage(tokens), message.model).nanousd


def _saved(message: Message | Unread, usage: Usage, cost: Cost, rows: tuple[Call, ...]) -> int | None:
    """Nano-dollars that the prompt cache saved, those of other models that worked on the answer among them."""
    if cost.nanousd is None:
        return None
    if not rows:
        return saved_by_caching([usage], cost, Terms(message.model)) or 0
    return sum(row.saved_nanousd or 0 for row in rows)
