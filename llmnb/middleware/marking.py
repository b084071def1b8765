"""The marking part: sets the prompt cache's breakpoints on a request before it is sent, and says what came of it.

It stands inside the ledger and the response cache, whose key is of the request without them. What it may set is decided
from this process's memory alone: nothing is asked of the network, of the ledger or of a disk while a call waits.
"""

from __future__ import annotations

from typing import Any, cast

import httpx2
from anthropic import APIRequest

from llmnb.middleware.balance import Stake
from llmnb.middleware.entry import MARKS, UNDER_WAY
from llmnb.middleware.flow import Flow, Part
from llmnb.middleware.ledger import is_billable
from llmnb.middleware.placement import Marking, Placement, is_surely_small
from llmnb.prompt_cache import Change, Mark, Mode, breakpoints, marked
from llmnb.records import Breakpoint, CallContext, PromptMarks, Usage, current_context
from llmnb.trouble import quietly

_API_KNOWS_NOT = (None, "unavailable", "previous_message_not_found")


class MarkingPart(Part):
    """Marks the requests that make a model write, and lets everything else pass untouched."""

    def __init__(self, marking: Marking) -> None:
        self.marking = marking

    def concerns(self, request: APIRequest) -> bool:
        mode = current_context().prompt_cache or self.marking.mode
        if mode == "off" or not is_billable(request):
            return False
        entry = UNDER_WAY.get()
        try:
            known_bytes = 0 if entry is None else entry.prompt_bytes
            return mode != "auto" or not is_surely_small(cast("dict[str, Any]", request.json), known_bytes)
        except Exception:  # a body that nobody understands: its trouble is told where it is looked at
            return True

    def flow(self, request: APIRequest) -> Flow:
        context = current_context()
        marks, outgoing = self._marked(request, context)
        if marks is None:
            return (yield request)
        try:
            response = yield outgoing
        except BaseException:
            marks.unanswered()
            raise
        self._answered(marks, context, response)
        return response

    def _marked(self, request: APIRequest, context: CallContext) -> tuple[Marks | None, APIRequest]:
        mode = cast(Mode, context.prompt_cache or self.marking.mode)
        try:
            placement = Placement.of(self.marking, mode, context, cast("dict[str, Any]", request.json))
            chosen, stake = placement.risked()
            body = marked(placement.body, placement.outline, chosen) if chosen else None
            return Marks(placement, chosen, stake), request if body is None else _copy(request, body)
        except Exception as trouble:
            quietly("placing the prompt cache's breakpoints", trouble)
            return None, request

    def _answered(self, marks: Marks, context: CallContext, response: Any) -> None:
        try:
            http: httpx2.Response | None = getattr(response, "http_response", None)
            if http is None or not http.is_success:
                marks.unanswered()
                return
            marks.memory.answered(marks.sent)
            http.extensions[MARKS] = marks
            if context.on_marked is not None:
                context.on_marked(marks)
        except Exception as trouble:
            quietly("noting what was cached", trouble)


class Marks(PromptMarks):
    """What was marked in one request. It lives as long as the reply, and so holds nothing of the prompt."""

    def __init__(self, placement: Placement, chosen: list[Mark], stake: Stake | None) -> None:
        self.sent = placement.sent(chosen)
        self.memory = placement.marking.memory
        self._breakpoints = breakpoints(placement.outline, chosen)
        self._too_short = None if self._breakpoints else placement.too_short()
        self._miss = ""
        self._stake = stake
        self._bound = None if stake is None else stake.bound_tokens
        self._balance = placement.balance
        self._prices = placement.prices

    @property
    def breakpoints(self) -> tuple[Breakpoint, ...]:
        return self._breakpoints

    @property
    def miss(self) -> str:
        return self._miss

    @property
    def bound_tokens(self) -> int | None:
        return None if self._bound is None else round(self._bound)

    def unanswered(self) -> None:
        """Nothing was written, so nothing is lost."""
        if (stake := self._open_stake()) is not None:
            self._balance.give_back(stake)

    def settle(self, usage: Usage, told: str | None, message_id: str | None) -> str | None:
        if (stake := self._open_stake()) is not None and self._prices is not None:
            # what breakpoints of the caller's won is not counted, only what was lost
            theirs = any(point.yours for point in self._breakpoints)
            self._balance.settle(stake, usage, self._prices, only_losses=theirs)
        missed = self.memory.settled(self.sent, usage, message_id) or self._too_short
        if missed is None and self._breakpoints and not usage.cache_read_tokens + usage.cache_write_tokens:
            missed = Change("below_minimum", "the API cached nothing: the prefix is below the model's minimum")
        if told not in _API_KNOWS_NOT and (missed is None or missed.reason != told):
            missed = Change(str(told), f"the API says so ({told})")
        self._miss = "" if missed is None else missed.text
        return None if missed is None else missed.reason

    def _open_stake(self) -> Stake | None:
        """The stake, once: an answer may be settled twice."""
        stake, self._stake = self._stake, None
        return stake


def _copy(request: APIRequest, body: dict[str, Any]) -> APIRequest:
    """`request.copy(body=…)` without its deep copy of a prompt that may be long."""
    return APIRequest(
        options=request.options.model_copy(update={"json_data": body}),
        cast_to=request.cast_to,
        stream=request.stream,
        stream_cls=request.stream_cls,
        retries_taken=request.retries_taken,
    )
