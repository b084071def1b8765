"""Reads along with a streamed answer under a budget: corrects what is held for it, and cuts it off at the line."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any, cast

import httpx2

from llmnb import forks
from llmnb.budgeting.bound import Bound
from llmnb.budgeting.budget import Budget, Unit
from llmnb.budgeting.desk import Ask, Stretched
from llmnb.budgeting.guard import Guard
from llmnb.budgeting.texts import Shortage
from llmnb.errors import StoreError
from llmnb.messages import wire
from llmnb.middleware.entry import Entry
from llmnb.middleware.tee import Cut, End
from llmnb.middleware.watch import BodyWatch
from llmnb.records import Usage
from llmnb.tokens import Counter

_STRETCH_AT = 0.75
"""More is asked for when this share of what is held is used, so that there is time to be refused."""
_LEAST_STRETCH = 256
_PAUSE_S = 0.5
"""How long a locked ledger is left alone: every try holds up the answer."""
_NEVER = 1 << 62


class BudgetWatch(BodyWatch):
    """Watches one streamed answer."""

    def __init__(
        self,
        entry: Entry,
        response: Any,
        http: httpx2.Response,
        guard: Guard,
        ask: Ask,
        bound: Bound,
        budgets: tuple[Budget, ...],
    ) -> None:
        super().__init__(entry, response, http)
        self._reservations = guard.reservations
        self._ask = ask
        self._bound = bound
        self._budgets = budgets
        self._pid = forks.pid
        self._counter = Counter(entry.model_requested)
        self._allowed = bound.output_tokens
        self._stretch_at = bound.output_tokens * _STRETCH_AT
        self._leave_alone_until = 0.0
        self._started = False
        self._seen = self._parsed = 0  # chunks
        self._unread = b""  # a line whose end has not come
        self._unread_bytes = self._read_bytes = 0
        self._text: list[str] = []
        self._tokens = 0.0  # of what the answer says so far, estimated

    def look(self, chunks: list[bytes]) -> int:
        """Looks at what has come, and now and then asks for more money.

        Raises:
            Cut: there is none.
        """
        if self._pid != forks.pid:  # a forked child's copy
            return _NEVER
        if not self._started and not self._look_for_input(chunks):
            return 1
        if self._allowed >= self._bound.most_output_tokens:
            return _NEVER
        # a token is a byte at least: so many bytes can be let go by unread
        self._unread_bytes += sum(map(len, chunks[self._seen :]))
        self._seen = len(chunks)
        if self._tokens + self._unread_bytes >= self._next_at:
            self._read_on(chunks)
            if self._tokens >= self._next_at and time.monotonic() >= self._leave_alone_until:
                self._stretch()
        return 1

    @property
    def _next_at(self) -> float:
        return min(self._stretch_at, self._allowed)

    def end(self, chunks: list[bytes], how: End, error: BaseException | None) -> None:
        """The ledger's own watcher sees to the rest."""
        self._response = None

    # The input, once it is known --------------------------------------------------------------------------------------

    def _look_for_input(self, chunks: list[bytes]) -> bool:
        start = wire.read_start(self._body(chunks), self._entry.model_requested)
        if start is None:
            return False
        self._started = True
        usage = replace(start.usage or Usage(), output_tokens=0)
        searches = max(usage.web_search_requests, self._bound.usage.web_search_requests)
        before, self._bound = self._bound, replace(self._bound, usage=replace(usage, web_search_requests=searches))
        if any(self._differs(before, budget.unit) for budget in self._budgets):
            self._ask_for(self._allowed)
        return True

    def _differs(self, before: Bound, unit: Unit) -> bool:
        """Whether what is held is too little, or so much that others would wait for nothing."""
        was, now = before.take(unit, self._allowed), self._bound.take(unit, self._allowed)
        return was is not None and now is not None and not now <= was <= now * 1.1

    # The output, as it comes ------------------------------------------------------------------------------------------

    def _read_on(self, chunks: list[bytes]) -> None:
        if self._is_opaque:
            self._read_all(chunks)
            return
        new, self._parsed, self._unread_bytes = chunks[self._parsed :], len(chunks), 0
        *lines, self._unread = (self._unread + b"".join(new)).split(b"\n")
        for line in lines:
            self._add(line)

    def _read_all(self, chunks: list[bytes]) -> None:
        """What cannot be read piece by piece is read anew whenever it has grown by a quarter."""
        if self._unread_bytes < self._read_bytes / 4:
            return
        self._read_bytes, self._unread_bytes = self._read_bytes + self._unread_bytes, 0
        self._text, self._tokens = [], 0.0
        for line in self._body(chunks).split(b"\n"):
            self._add(line)

    def _add(self, line: bytes) -> None:
        if b'"content_block_delta"' not in line:
            return
        try:
            delta = cast("dict[str, Any]", json.loads(line.partition(b":")[2])["delta"])
        except (ValueError, KeyError, TypeError):
            return
        for kind in ("text", "thinking", "partial_json"):
            piece = delta.get(kind)
            if isinstance(piece, str):
                self._tokens += self._counter.text(piece).tokens
                if kind == "text":
                    self._text.append(piece)

    # Money ------------------------------------------------------------------------------------------------------------

    def _stretch(self) -> None:
        wanted = max(self._allowed + _LEAST_STRETCH, self._allowed * 3 // 2)
        stretched = self._ask_for(min(self._bound.most_output_tokens, wanted))
        # where there was no more, not with every look
        self._stretch_at = max(self._allowed * _STRETCH_AT, self._tokens + _LEAST_STRETCH / 8)
        if stretched is not None and self._tokens >= self._allowed:
            self._cut(stretched)

    def _ask_for(self, wanted: int) -> Stretched | None:
        try:
            stretched = self._reservations.stretch(self._ask, int(self._tokens), wanted, self._needs)
        except StoreError:  # the answer is under way, and a locked ledger does not break it off
            self._leave_alone_until = time.monotonic() + _PAUSE_S
            return None
        self._allowed = stretched.output_tokens
        return stretched

    def _needs(self, unit: Unit, output_tokens: int) -> int:
        return self._bound.take(unit, output_tokens) or 0

    def _cut(self, stretched: Stretched) -> None:
        if stretched.budget is None:
            return
        ts, budget = self._ask.ts, stretched.budget
        shortage = Shortage(budget, ts, stretched.left, stretched.needed, stretched.free_us)
        usage = replace(self._bound.usage, output_tokens=round(self._tokens), estimated=True)
        raise Cut(shortage.cut("".join(self._text), usage))
