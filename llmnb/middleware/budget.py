"""The budget part: a call is sent only when every budget that concerns it has money for it (see `llmnb.budgeting`).

It stands inside the ledger, the cache and the marking: a hit needs no budget, and a call that is refused is a row.
Where no budget is set it costs a look at a clock. The ceiling of one call (`budget_usd`) is kept here, too.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, cast

from anthropic import APIRequest

from llmnb import slots
from llmnb.budgeting import ceiling
from llmnb.budgeting.alerts import say
from llmnb.budgeting.blocks import is_block
from llmnb.budgeting.bound import Bound, bound_of
from llmnb.budgeting.budget import Budget, Unit
from llmnb.budgeting.desk import Ask, Granted, MustWait, Refused, Verdict
from llmnb.budgeting.guard import Guard
from llmnb.budgeting.past import Past
from llmnb.budgeting.quick_bound import QuickBounds
from llmnb.budgeting.texts import Shortage
from llmnb.errors import StoreBusy, StoreError, UnknownPrice
from llmnb.middleware.answering import http_of
from llmnb.middleware.budget_watch import BudgetWatch
from llmnb.middleware.entry import UNDER_WAY, Entry
from llmnb.middleware.flow import Flow, Part, Pause
from llmnb.middleware.ledgered import Ledgered
from llmnb.middleware.tee import watch
from llmnb.records import Call, current_context
from llmnb.settings import load
from llmnb.trouble import BudgetWarning, quietly, warn_user

LOCKED_S = 5.0
"""How long a locked ledger is tried, as everywhere else."""
PATIENCE_S = 600.0
"""How long a call waits for others to end: the SDK's own default timeout, within which each of them ends."""
OWN_PATIENCE_S = 5.0
"""How long it waits where all others are of the thread or task that would wait: an answer that is still being read
there cannot end."""
_FIRST_PAUSE_S = 0.02
_LOCKED_PAUSE_S = (0.002, 0.02)
_LONGEST_PAUSE_S = 0.25
_SAID_AFTER_S = 5.0

Pauses = Generator[Pause, None, None]


class BudgetPart(Part):
    """Holds money for a call before it is sent, waits for it, or refuses the call. No `guard`: budgets are off."""

    def __init__(self, guard: Guard | None, ledgered: Ledgered, clock: Callable[[], float] = time.monotonic) -> None:
        self.guard = guard
        self._ledgered = ledgered
        self._clock = clock
        self._quick = QuickBounds(ledgered.provider, ledgered.settings.prices)

    def concerns(self, request: APIRequest) -> bool:
        entry = UNDER_WAY.get()
        if entry is None:
            return False
        return current_context().ceiling_nanousd is not None or self._is_budgeted(entry)

    def _is_budgeted(self, entry: Entry) -> bool:
        guard = self.guard
        if guard is None:
            return False
        try:
            known = guard.reservations.known()
            if guard.reservations.trouble is not None:
                self._say_trouble(guard, known)
            return bool(known) and any(budget.concerns(entry.facts) for budget in known)
        except Exception as trouble:
            quietly("looking for budgets", trouble)
            return False

    def flow(self, request: APIRequest) -> Flow:
        entry = UNDER_WAY.get()
        assert entry is not None
        left = current_context().ceiling_nanousd
        if left is not None:
            ceiling.check(_bound(entry, self._ledgered, None, cast("dict[str, Any]", request.json)), left)
        if self.guard is None or not (left is None or self._is_budgeted(entry)):
            return (yield request)
        attempt = _Attempt(self.guard, self._ledgered, entry, request, self._quick)
        yield from attempt.admission(self._clock)
        response = yield request
        attempt.watch(response)
        return response

    def _say_trouble(self, guard: Guard, known: tuple[Budget, ...]) -> None:
        trouble = guard.reservations.trouble
        if trouble is not None and not known and not isinstance(trouble, StoreBusy):
            quietly("looking for budgets", trouble)


class _Attempt:
    """One attempt of a call that budgets concern."""

    def __init__(self, guard: Guard, ledgered: Ledgered, entry: Entry, request: APIRequest, quick: QuickBounds) -> None:
        self.guard, self._ledgered = guard, ledgered
        self.entry = entry
        self._quick = quick
        self._body = cast("dict[str, Any]", request.json)
        self._stream = request.stream
        self._context = current_context()
        self._owner = self._context.owner or slots.this_owner()
        self._ask: Ask | None = None
        self._exact: Ask | None = None
        self._said = False
        self.holders: tuple[Budget, ...] = ()

    def admission(self, clock: Callable[[], float]) -> Pauses:
        """Waits until the call may be sent.

        Raises:
            BudgetExceeded, UnknownPrice: it may not.
            StoreError: a budget that stops calls is known, and what is left of it cannot be found out.
        """
        began = clock()
        tried_until, pause_s = began + LOCKED_S, _FIRST_PAUSE_S
        while True:
            try:
                verdict = self._asked()
            except StoreError as trouble:
                if not isinstance(trouble, StoreBusy) or clock() >= tried_until:
                    self._without_ledger(trouble)
                    break
                self._context.tell_held(is_held=True)
                yield Pause(random.uniform(*_LOCKED_PAUSE_S))  # noqa: S311 - so that two do not meet again
                continue
            if isinstance(verdict, Granted):
                break
            self._context.tell_held(is_held=True)
            self._refuse_or_wait(verdict, clock() - began)
            yield Pause(pause_s * random.uniform(0.5, 1.0))  # noqa: S311
            pause_s, tried_until = min(_LONGEST_PAUSE_S, pause_s * 1.5), clock() + LOCKED_S
        self._context.tell_held(is_held=False)
        self.entry.goes()

    def _asked(self) -> Verdict:
        reservations, facts = self.guard.reservations, self.entry.facts
        stops = tuple(b for b in reservations.known() if b.action == "stop" and b.concerns(facts))
        if stops:
            verdict = self._given(stops) if reservations.blocks else None
            verdict = verdict or reservations.draw(self._exact_ask(), self._owner)
        else:
            verdict = Granted(alerts=reservations.look(facts, facts["ts"]))
        if isinstance(verdict, Granted):
            self.holders = verdict.budgets
            self.entry.wants_id = has_turns = "thread" in self._body
            self.entry.on_row = _Ending(self.guard, self._ledgered, facts, has_turns).ended
        if verdict.alerts:
            say(verdict.alerts, self._ledgered.settings)
        return verdict

    def _given(self, stops: tuple[Budget, ...]) -> Verdict | None:
        """Takes it from what is held for many calls at once; by a bound that takes no counting, where that will do."""
        facts, given = self.entry.facts, self.guard.reservations.given
        if self._exact is None and self.entry.attempts == 1:
            bound = self._quick.of(self._body, self.guard.past, facts.get("project"), facts["ts"])
            if bound is not None:
                self.bound, self._ask = bound, self._new_ask(bound)
                if (granted := given(self._ask, self._owner, stops)) is not None:
                    return granted
        return given(self._exact_ask(), self._owner, stops)

    def _exact_ask(self) -> Ask:
        if self._exact is None:
            self.bound = _bound(self.entry, self._ledgered, self.guard.past, self._body)
            self._exact = self._new_ask(self.bound)
        self._ask = self._exact
        return self._exact

    def _new_ask(self, bound: Bound) -> Ask:
        facts = self.entry.facts
        return Ask(facts["uid"], self.entry.attempts, facts["ts"], facts, bound.needs(self._stream))

    # When it may not be sent ------------------------------------------------------------------------------------------

    def _refuse_or_wait(self, verdict: Refused | MustWait, waited_s: float) -> None:
        budget, ts = verdict.budget, self.entry.facts["ts"]
        if isinstance(verdict, Refused):
            if verdict.needed is None:
                raise self._unpriced(budget)
            raise Shortage(budget, ts, verdict.left, verdict.needed, verdict.free_us).refusal(self.bound.text)
        self.guard.tidy_soon()
        if waited_s >= self._patience_s(verdict):
            end = budget.period(ts).end_us
            raise Shortage(budget, ts, verdict.left, verdict.needed, end).refusal(
                self.bound.text, _waited(verdict, waited_s)
            )
        if waited_s >= _SAID_AFTER_S and not self._said:
            self._said = True
            warn_user(f"llmnb: the call waits. {_waited(verdict)}".strip(), BudgetWarning)
        self.entry.waits()

    def _patience_s(self, verdict: MustWait) -> float:
        owners = {self.guard.reservations.open.get(uid) for uid in verdict.uids}
        return OWN_PATIENCE_S if owners == {self._owner} else PATIENCE_S

    def _unpriced(self, budget: Budget) -> UnknownPrice:
        model = self.entry.model_requested
        allowed = budget.call(allow_unpriced=repr([*budget.unpriced, model]))
        return UnknownPrice(
            model,
            self._ledgered.provider,
            f"The budget of {budget} stands, so nothing was sent; to let it pass: {allowed}.",
        )

    def _without_ledger(self, trouble: StoreError) -> None:
        """Nothing is spent by surprise; but what is not known to be forbidden is not stopped by a broken ledger."""
        known = self.guard.reservations.last_known
        stops = [budget for budget in known if budget.action == "stop" and budget.concerns(self.entry.facts)]
        if not stops or load().budgets == "off":  # it may have been switched off since the client was made
            quietly("asking for the budget of a call", trouble)
            return
        raise StoreError(
            f"the budget of {stops[0]} stands, and what is left of it cannot be told: {trouble} Nothing was sent. "
            "To go on without budgets until the ledger works again, set LLMNB_BUDGETS=off.",
            path=trouble.path,
        )

    # When it was sent -------------------------------------------------------------------------------------------------

    def watch(self, response: Any) -> None:
        """Has a streamed answer cut off where it would cross the line."""
        try:
            http = http_of(response)
            if http is not None and self._stream and self.holders and http.is_success and not http.is_closed:
                assert self._ask is not None
                watch(http, BudgetWatch(self.entry, response, http, self.guard, self._ask, self.bound, self.holders))
        except Exception as trouble:
            quietly("watching the budget of a stream", trouble)


class _Ending:
    """What is to be done when an attempt has ended. It knows nothing of the entry that it is kept by: else each call
    would leave a circle behind, with all that was asked and answered, until Python looks for such."""

    __slots__ = ("_facts", "_guard", "_has_turns", "_ledgered")

    def __init__(self, guard: Guard, ledgered: Ledgered, facts: Mapping[str, Any], has_turns: bool) -> None:
        self._guard, self._ledgered = guard, ledgered
        self._facts = facts
        self._has_turns = has_turns

    def ended(self, call: Call, children: tuple[Call, ...], message_id: str | None) -> None:
        """The row of the attempt, and those of what it had done besides."""
        try:
            self._guard.reservations.ended(call.uid)
            took: dict[Unit, int] = {"usd": call.cost_nanousd or 0, "tokens": _tokens(call)}
            if message_id is not None and self._has_turns:
                self._guard.past.took(message_id, took["tokens"])
            for child in children:
                took["usd"] += child.cost_nanousd or 0
                took["tokens"] += _tokens(child)
            alerts = self._guard.reservations.settled(self._facts, took)
            if alerts:
                say(alerts, self._ledgered.settings)
        except StoreError:  # whoever asks next will see what there is to be said
            return
        except Exception as trouble:
            quietly("settling the budget of a call", trouble)


def _tokens(call: Call) -> int:
    usage = call.usage
    return usage.total_input_tokens + usage.output_tokens


def _bound(entry: Entry, shared: Ledgered, past: Past | None, body: dict[str, Any]) -> Bound:
    return bound_of(
        body,
        past,
        provider=shared.provider,
        project=entry.facts.get("project"),
        ts=entry.facts["ts"],
        prices=shared.settings.prices,
        lost=entry.lost,
    )


def _waited(verdict: MustWait, waited_s: float | None = None) -> str:
    """For what a call waits, or how long it has waited."""
    budget = verdict.budget
    if not verdict.uids:
        return "What was spent of it before it was set is still being counted. "
    calls = f"{len(verdict.uids)} call{'s' * (len(verdict.uids) > 1)} under way"
    if any(map(is_block, verdict.uids)):
        calls = "calls under way, some of them of a process that makes many"
    held = f"{budget.amount(verdict.held)} of the budget of {budget} is held by {calls}"
    return f"{held}. " if waited_s is None else f"After {waited_s:.0f} s, {held}. "
