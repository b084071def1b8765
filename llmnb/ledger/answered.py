"""The rows that an answered call leaves: one of its own, and one for each model that worked beside it.

To read an answer, to price it and to make its row takes several times as long as to note that the call has ended. So
a call that was answered in one piece goes to the books as it came (`EndedCall`), and its rows are made once, by whoever
wants them first: the thread that writes the ledger, for all calls of a moment together, or somebody who asks before.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from json.encoder import encode_basestring_ascii as quoted
from typing import Any

from llmnb.messages import wire
from llmnb.pricing import Terms, billed_model, cost_of_prompts, saved_by_caching
from llmnb.records import USAGE_FIELDS, Call, Cost, Status, Usage, made
from llmnb.settings import PriceOverride

Prices = Mapping[str, PriceOverride] | None
"""The user's own prices, by model."""


class EndedCall:
    """A call that has ended, with what its rows are made of. `known` are fields of its row."""

    __slots__ = ("_known", "_prices", "_rows", "uid")

    def __init__(self, known: dict[str, Any], prices: Prices) -> None:
        self.uid: str = known["uid"]
        """The call's own."""
        self._known = known
        self._prices = prices
        self._rows: tuple[Call, ...] | None = None

    @property
    def rows(self) -> tuple[Call, ...]:
        """The call's row and its child rows; the same ones for everybody who asks, from whatever thread."""
        if self._rows is None:
            rows = self._made()
            self._rows = self._rows or rows
            self._let_go()
        return self._rows

    def unread(self) -> Call:
        """The row of the call, of whose answer nothing could be learned."""
        return made(Call, {**self._known, "status": "truncated", "estimated": True})

    @abstractmethod
    def _made(self) -> tuple[Call, ...]:
        """The rows. Several threads may make them at once."""

    def _let_go(self) -> None:
        """Lets go of what is needed no more, now that the rows are there."""


class AnsweredCall(EndedCall):
    """A call whose answer is one JSON document, and which nothing but the answer remains to be told of.

    `known` are the fields of its row that were known when the attempt was sent, `since` those that came up by the end.
    """

    __slots__ = ("_body", "_since", "_told", "attempt")

    def __init__(self, known: dict[str, Any], since: dict[str, Any], body: bytes, prices: Prices) -> None:
        # what the base class does, without the detour: this is where every call comes by
        self.uid = known["uid"]
        self.attempt: int = known.get("attempts", 1)
        """The number of the attempt that was answered."""
        self._known = known
        self._since = since
        self._body = body
        self._told = wire.without_content(body)
        self._prices = prices
        self._rows = None

    def line(self) -> bytes | None:
        """What came up since the call was sent, as JSON; None when the answer cannot be told without its content."""
        if self._told is None:
            return None
        since = "{"
        for name, value in self._since.items():
            since += f'"{name}":{quoted(value) if type(value) is str else _json(value)},'
        return b'%b"answer":%b}' % (since.encode(), self._told)

    def unread(self) -> Call:
        return made(Call, {**self._known, **self._since, "status": "truncated", "estimated": True})

    def _made(self) -> tuple[Call, ...]:
        body, told, known = self._body, self._told, {**self._known, **self._since}
        if self._rows is not None:  # another thread was first, and may have let these go
            return self._rows
        return rows_of_answer(known, _outcome(body, told, known["model_requested"]), self._prices)

    def _let_go(self) -> None:
        self._body, self._told = b"", None  # a reply may keep this for long


class UnbilledCall(EndedCall):
    """A call that was answered from disk: `known` are all fields of its row but those that the answer tells.

    `message` is the kept answer without its content.
    """

    __slots__ = ("_message",)

    def __init__(self, known: dict[str, Any], message: Mapping[str, Any], prices: Prices) -> None:
        super().__init__(known, prices)
        self._message = message

    def _made(self) -> tuple[Call, ...]:
        outcome = wire.read_message(dict(self._message), self._known["model_requested"])
        return (unbilled_row(self._known, "ok", outcome, self._prices),)


ANSWER = "answer"
"""Where the line of an `AnsweredCall` has what the answer tells."""


def _json(value: float | bool | None) -> str:
    if isinstance(value, float):
        return f"{int(value * 1000 + 0.5)}e-3"  # to write a float takes five times as long
    return "null" if value is None else str(value).lower()


def _outcome(body: bytes, told: bytes | None, model_requested: str) -> wire.Outcome:
    outcome = wire.NOTHING if told is None else wire.read_json(told, model_requested)
    return outcome if outcome.complete else wire.read_json(body, model_requested)


def rows_of_line(line: dict[str, Any], prices: Prices) -> tuple[Call, ...]:
    """The rows of an `AnsweredCall` from its line, merged with what was known when the call was sent."""
    known = {**line}
    answer = known.pop(ANSWER)
    return rows_of_answer(known, wire.read_document(answer, known["model_requested"]), prices)


def rows_of_answer(known: dict[str, Any], outcome: wire.Outcome, prices: Prices) -> tuple[Call, ...]:
    """The rows of a call that was answered in one piece; `known` has an estimate of its input tokens."""
    status: Status = "ok" if outcome.complete else "error" if outcome.error_type is not None else "truncated"
    usage = outcome.usage or Usage(known.get("input_tokens", 0), estimated=True)
    if status != "ok":
        known["error_type"], usage = outcome.error_type, replace(usage, estimated=True)
    return rows_of(known, status, usage, prices, outcome=outcome)


def rows_of(
    known: Mapping[str, Any],
    status: Status,
    usage: Usage,
    prices: Prices,
    *,
    outcome: wire.Outcome = wire.NOTHING,
    lost: Usage | None = None,
) -> tuple[Call, ...]:
    """The row of a call, as it is now or for good, and its child rows.

    Args:
        known: the fields of the row that neither `usage` nor `outcome` tells.
        status: how it ended.
        usage: what the call used, all attempts together.
        prices: the user's own.
        outcome: what the body of the answer says.
        lost: what earlier attempts may have used, which is in `usage`, too.
    """
    if known.get("source", "live") != "live":
        return (unbilled_row(known, status, outcome, prices, lost),)
    is_free = outcome.declined and known["provider"] == _CLAUDE_API
    if is_free:
        usage = lost or Usage()
    row: dict[str, Any] = {**known, **vars(usage), "input_tokens": usage.input_tokens, "status": status}
    _add_facts(row, outcome)
    prompts = not is_free and outcome.prompts and ((lost, *outcome.prompts) if lost else outcome.prompts)
    _add_cost(row, prompts or (usage,), prices)
    call = made(Call, row)
    if not outcome.iterations:
        return (call,)
    beside = enumerate(outcome.iterations, 1)
    return (call, *[_child(call, number, iteration, prices) for number, iteration in beside])


def unbilled_row(
    known: Mapping[str, Any], status: Status, outcome: wire.Outcome, prices: Prices, lost: Usage | None = None
) -> Call:
    """The row of an answer that did not come from the API: no token was billed, and all that it cost once is saved.

    So the tokens of all rows are those of the bill. `lost` is what attempts may be billed that were made before.
    """
    row: dict[str, Any] = {**known, "status": status, "input_tokens": 0, "cost_nanousd": 0}
    if lost is not None:
        row |= vars(lost)
        row["cost_nanousd"] = _cost((lost,), _terms(row, row["model"], prices)).nanousd
    row["estimated_input_tokens"] = row["estimated_by"] = None
    _add_facts(row, outcome)
    costs = [_cost(outcome.prompts or (outcome.usage or Usage(),), _terms(row, row["model"], prices)).nanousd]
    costs += [_cost((beside.usage,), _terms(row, beside.model, prices)).nanousd for beside in outcome.iterations]
    known_costs = [nanousd for nanousd in costs if nanousd is not None]
    row["saved_nanousd"] = sum(known_costs) if len(known_costs) == len(costs) else None
    return made(Call, row)


def _child(parent: Call, number: int, iteration: wire.Iteration, prices: Prices) -> Call:
    """A row for tokens billed beside the answer's own; `tag` tells what they were for."""
    row = {**vars(parent), **{name: getattr(iteration.usage, name) for name in USAGE_FIELDS}, **_NOT_A_CALLS}
    row |= {"uid": f"{parent.uid}.{number}", "parent_uid": parent.uid, "model": iteration.model, "tag": iteration.kind}
    _add_cost(row, (iteration.usage,), prices)
    return made(Call, row)


def _add_facts(row: dict[str, Any], outcome: wire.Outcome) -> None:
    for name in _FACTS:
        value = getattr(outcome, name)
        if value is not None:
            row[name] = value


def _add_cost(row: dict[str, Any], usages: tuple[Usage, ...], prices: Prices) -> None:
    """What the call cost, and what the prompt cache saved."""
    terms = _terms(row, row["model"], prices)
    cost = _cost(usages, terms)
    row["cost_nanousd"], row["price_id"] = cost.nanousd, cost.price_id
    saved = saved_by_caching(usages, cost, terms)
    if saved is not None:
        row["saved_nanousd"] = saved


def _cost(usages: tuple[Usage, ...], terms: Terms) -> Cost:
    if not usages[0].output_tokens and usages == _NOTHING_USED:
        return _FREE
    return cost_of_prompts(usages, terms)


def _terms(row: Mapping[str, Any], model: str, prices: Prices) -> Terms:
    told = row.get
    provider = row["provider"]
    served = billed_model(provider, row["model_requested"], model)
    return Terms(served, provider, row["ts"], told("service_tier"), told("speed"), told("inference_geo"), prices)


_NOT_A_CALLS = {
    "is_call": False,
    "latency_ms": None,
    "ttft_ms": None,
    "wait_ms": 0.0,
    "content": None,
    "estimated_input_tokens": None,
    "estimated_by": None,
    "saved_nanousd": None,
    "cache_breakpoints": None,
    "cache_miss_reason": None,
}
"""What a row of another model's work is not told of."""
_FACTS = ("model", "stop_reason", "service_tier", "speed", "inference_geo", "cache_miss_reason")
_NOTHING_USED = (Usage(),)
_CLAUDE_API = "anthropic"
"""Who bills nothing for a request that is refused before any output (release notes of the Claude API, 2 June 2026). Its
answer has a usage all the same."""
_FREE = Cost(0)
