"""One call on its way into the ledger: what is known of it so far, and the row that says so."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, cast

import httpx2

from llmnb import origin, wire
from llmnb.cache.stored import StoredAnswer
from llmnb.cassette import scope
from llmnb.middleware.answering import source_of
from llmnb.middleware.tee import End
from llmnb.pricing import billed_model, cost_of_prompts, saved_by_caching
from llmnb.prompt_outline import prompt_bytes
from llmnb.records import Call, Cost, PromptMarks, Source, Status, Usage, current_context
from llmnb.settings import Settings
from llmnb.tokens.sampling import sampled
from llmnb.trouble import quietly


class Recorder(Protocol):
    """The books of the ledger: told of each call that begins and of each row; never raises."""

    def begin(self, call: Mapping[str, Any]) -> None:
        """A call is sent; these fields of its row are known."""
        ...

    def record(self, call: Call, children: tuple[Call, ...] = ()) -> None:
        """The row of a call as it is now."""
        ...

    def record_unbilled(self, call: Call) -> None:
        """The row of a call that was answered from disk; a process that is killed at once loses it, and no money."""
        ...


@dataclass(frozen=True)
class Ledgered:
    """What all calls of one wrapped client share."""

    books: Recorder
    settings: Settings
    provider: str = "anthropic"
    project: str | None = None
    tag: str | None = None

    @cached_property
    def user(self) -> str | None:
        """Who asks."""
        return origin.user(self.settings)

    @cached_property
    def notebook(self) -> str | None:
        """From where."""
        return origin.notebook(self.settings)


class Entry:
    """Gathers what is known of one call and writes its row: running, refreshed, and once for good."""

    def __init__(self, ledgered: Ledgered, body: dict[str, Any], *, stream: bool) -> None:
        self._ledgered = ledgered
        self._pid = os.getpid()
        self._context = current_context()
        self._request = body if self._logs_content else None
        self._began = self._waited_from = time.perf_counter()
        self._body = body
        self._estimated_input = Usage(estimated=True)
        self.body_id = id(body)
        self._lost: Usage | None = None
        self._marks: PromptMarks | None = None
        self.attempts = 0
        self._is_out = False
        self.saw_first_token = False
        self.model_requested = str(body.get("model") or "")
        self._known: dict[str, Any] = self._beginning(stream)

    def _beginning(self, stream: bool) -> dict[str, Any]:
        context, shared = self._context, self._ledgered
        now_us = time.time_ns() // 1000
        return {
            "uid": f"{now_us:014x}{os.urandom(9).hex()}",
            "ts": now_us,
            "model_requested": self.model_requested,
            "model": self.model_requested,  # until an answer tells which model served
            "parent_uid": context.parent_uid,
            "project": context.project or shared.project or shared.settings.project,
            "session": origin.session(),
            "user": shared.user,
            "notebook": shared.notebook,
            "cell": origin.cell(),
            "chat": context.chat,
            "run_id": context.run_id,
            "batch_id": context.batch_id,
            "template": context.template,
            "tag": context.tag or shared.tag,
            "provider": shared.provider,
            "stream": stream,
            "wait_ms": 0.0,
        }

    # What happens to the call, in the order it can happen -------------------------------------------------------------

    def tried(self, attempt: int) -> None:
        """An attempt is made, and goes out unless it is answered from disk."""
        if attempt > 1:
            self._known["wait_ms"] += _ms_since(self._waited_from)
        self.attempts = self._known["attempts"] = attempt
        self._known.pop("error_type", None)
        self._is_out = False
        if scope.needs_no_key():  # nothing will be sent, so that nothing is billed, whatever becomes of this process
            self._known["source"] = "replay"

    def sent(self) -> None:
        """The attempt goes out now."""
        self._is_out = True
        if self._body is not None:
            self._look_at(self._body)
            self._body = None
        if self._known.get("source") == "replay":
            self._estimated_input = Usage()
        self._ledgered.books.begin({**self._known, "input_tokens": self._estimated_input.input_tokens})

    def _look_at(self, body: dict[str, Any]) -> None:
        """Counts what is sent, as far as it is known before the API says."""
        size = prompt_bytes(body)
        self._estimated_input = Usage(wire.estimated_tokens(size), estimated=True)
        if (counted := sampled(body, size)) is not None:
            self._known["estimated_input_tokens"], self._known["estimated_by"] = counted

    def responded(self, http: httpx2.Response) -> None:
        """Headers of an answer are here."""
        if self._body is not None:  # nobody told that it went out
            self._look_at(self._body)
            self._body = None
        self._known["source"] = source_of(http)
        self._known["request_id"] = http.headers.get("request-id") or http.headers.get("x-amzn-requestid")
        self._marks = http.extensions.get(MARKS)
        if self._marks is not None:
            self._known["cache_breakpoints"] = len(self._marks.breakpoints)

    def refused(self, http: httpx2.Response) -> None:
        """The attempt was answered with an HTTP error, which costs nothing."""
        self.responded(http)
        self._waited_from = time.perf_counter()
        body = http.content if http.is_closed and hasattr(http, "_content") else b""
        self._known["error_type"] = wire.read_json(body, "").error_type or _STATUS_ERRORS.get(
            http.status_code, f"http_{http.status_code}"
        )
        self._finish("error", self._lost or Usage())

    def raised(self, error: BaseException) -> None:
        """The attempt got no answer: the network failed, or the caller gave up waiting."""
        self._waited_from = time.perf_counter()
        if self._is_out and not _never_sent(error):  # the API may have read the request, and may bill it
            self._lost = _added(self._lost, self._estimated_input)
        self._known["error_type"] = type(error).__name__
        self._finish(_status_of(error), self._lost or Usage())

    def first_token(self) -> None:
        """The first piece of content is here."""
        self.saw_first_token = True
        self._known["ttft_ms"] = _ms_since(self._began)

    def progressed(self, outcome: wire.Outcome) -> None:
        """A stream has told more about itself, and is not at its end."""
        if self._is_a_copy:
            return
        self._learn(outcome)
        usage = replace(outcome.usage or self._estimated_input, estimated=True)
        if self._known.get("source", "live") == "live":
            self._ledgered.books.record(self._row("running", _added(self._lost, usage)))

    def finished(self, outcome: wire.Outcome, body: bytes) -> None:
        """The whole answer is here."""
        self.body_ended(outcome, body, "read", None)

    def body_ended(self, outcome: wire.Outcome, body: bytes, how: End, error: BaseException | None) -> None:
        """The body has ended, by itself or not."""
        self._learn(outcome)
        status = _status_of_body(outcome, how, error)
        if status != "ok":
            self._known["error_type"] = outcome.error_type or (type(error).__name__ if how == "failed" else None)
        usage = outcome.usage or replace(self._estimated_input, estimated=True)
        if status != "ok" and not outcome.complete:
            usage = replace(usage, estimated=True)
        self._finish(status, _added(self._lost, usage), outcome, body)

    def replayed(self, answer: StoredAnswer, source: Source) -> None:
        """The whole answer was kept, and is here at once: no token is billed, and all that it cost once is saved."""
        if self._is_a_copy:
            return
        outcome = answer.outcome()
        self._learn(outcome)
        model = outcome.model or self.model_requested
        costs = [self._cost(outcome.prompts or (outcome.usage or Usage(),), model).nanousd]
        costs += [self._cost((beside.usage,), beside.model).nanousd for beside in outcome.iterations]
        known = self._known
        known["source"], known["latency_ms"] = source, _ms_since(self._began)
        known["saved_nanousd"] = None if None in costs else sum(cast("list[int]", costs))
        if self._request is not None:
            known["content"] = _content(self._request, answer.body)
        call = Call(**known, status="ok", cost_nanousd=0)
        self._ledgered.books.record_unbilled(call)
        if self._context.on_end is not None:
            _tell(self._context.on_end, (call,))

    def materialised(self, message: Any) -> None:
        """A part inside the ledger's answered with an object instead of a response."""
        dump = getattr(message, "model_dump_json", None)
        body = cast(str, dump()).encode() if dump else b"{}"
        self.finished(wire.read_json(body, self.model_requested), body)

    def has_waited_s(self) -> float:
        """Seconds since the last attempt failed."""
        return time.perf_counter() - self._waited_from

    # Rows -------------------------------------------------------------------------------------------------------------

    def _learn(self, outcome: wire.Outcome) -> None:
        known = self._known
        if outcome.model is not None:
            known["model"] = outcome.model
        for name in _FACTS:
            value = getattr(outcome, name)
            if value is not None:
                known[name] = value

    def _finish(self, status: Status, usage: Usage, outcome: wire.Outcome = wire.NOTHING, body: bytes = b"") -> None:
        if self._is_a_copy:
            return
        self._known["latency_ms"] = _ms_since(self._began)
        if self._request is not None:
            self._known["content"] = _content(self._request, body)
        if outcome.usage is not None:
            self._settle(outcome.usage, outcome)
        call = self._row(status, usage, outcome.prompts)
        children = tuple(self._child(call, index, iteration) for index, iteration in enumerate(outcome.iterations))
        if call.source != "live":
            call, children = _unbilled(call, children), ()
        self._ledgered.books.record(call, children)
        if self._context.on_end is not None:
            _tell(self._context.on_end, (call, *children))

    def _settle(self, usage: Usage, outcome: wire.Outcome) -> None:
        """Asks what came of the breakpoints that a part inside the ledger's set."""
        if self._marks is None:
            return
        try:
            told = self._known.get("cache_miss_reason")
            self._known["cache_miss_reason"] = self._marks.settle(usage, told, outcome.message_id)
        except Exception as trouble:
            quietly("finding out why the prompt cache was missed", trouble)

    @property
    def _is_a_copy(self) -> bool:
        """Whether this is a forked child's copy: the call is the parent's, who alone knows how it ends."""
        return self._pid != os.getpid()

    @property
    def _logs_content(self) -> bool:
        asked = self._context.log_content
        return self._ledgered.settings.log_content if asked is None else asked

    def _row(self, status: Status, usage: Usage, prompts: tuple[Usage, ...] = ()) -> Call:
        known = self._known
        model = known.get("model") or self.model_requested
        parts = prompts and ((self._lost, *prompts) if self._lost else prompts)
        cost, saved = self._paid(parts or (usage,), model)
        return Call(
            **known,
            status=status,
            input_tokens=usage.input_tokens,
            cache_read_tokens=usage.cache_read_tokens,
            cache_write_5m_tokens=usage.cache_write_5m_tokens,
            cache_write_1h_tokens=usage.cache_write_1h_tokens,
            cache_write_unsplit_tokens=usage.cache_write_unsplit_tokens,
            output_tokens=usage.output_tokens,
            thinking_tokens=usage.thinking_tokens,
            web_search_requests=usage.web_search_requests,
            web_fetch_requests=usage.web_fetch_requests,
            estimated=usage.estimated,
            cost_nanousd=cost.nanousd,
            saved_nanousd=saved,
            price_id=cost.price_id,
        )

    def _child(self, parent: Call, index: int, iteration: wire.Iteration) -> Call:
        """A row for tokens billed beside the answer's own; `tag` tells what they were for."""
        cost, saved = self._paid((iteration.usage,), iteration.model)
        return replace(
            parent,
            uid=f"{parent.uid}.{index + 1}",
            parent_uid=parent.uid,
            is_call=False,
            model=iteration.model,
            tag=iteration.kind,
            latency_ms=None,
            ttft_ms=None,
            wait_ms=0.0,
            content=None,
            estimated_input_tokens=None,
            estimated_by=None,
            cost_nanousd=cost.nanousd,
            saved_nanousd=saved,
            cache_breakpoints=None,
            cache_miss_reason=None,
            price_id=cost.price_id,
            **{name: getattr(iteration.usage, name) for name in Usage.__slots__},
        )

    def _paid(self, usages: tuple[Usage, ...], model: str) -> tuple[Cost, int | None]:
        """The cost of this call, and what the prompt cache saved; an answer from disk costs nothing, and saves all."""
        cost = self._cost(usages, model)
        if self._known.get("source", "live") == "live":
            return cost, self._saved(usages, cost, model)
        return Cost(0, cost.price_id), cost.nanousd

    def _cost(self, usages: tuple[Usage, ...], model: str) -> Cost:
        return _FREE if usages == _NOTHING_USED else cost_of_prompts(usages, **self._priced_as(model))

    def _saved(self, usages: tuple[Usage, ...], cost: Cost, model: str) -> int | None:
        if not any(usage.cache_read_tokens or usage.cache_write_tokens for usage in usages):
            return None
        return saved_by_caching(usages, cost, **self._priced_as(model))

    def _priced_as(self, model: str) -> dict[str, Any]:
        known, shared = self._known, self._ledgered
        return {
            "model": billed_model(shared.provider, self.model_requested, model),
            "provider": shared.provider,
            "ts": known["ts"],
            "service_tier": known.get("service_tier"),
            "speed": known.get("speed"),
            "inference_geo": known.get("inference_geo"),
            "overrides": shared.settings.prices,
        }


def _unbilled(call: Call, children: tuple[Call, ...]) -> Call:
    """The row of an answer that did not come from the API: no token was billed, and all that it cost once is saved.

    So the tokens of all rows are those of the bill.
    """
    saved = [row.saved_nanousd for row in (call, *children)]
    known = [nanousd for nanousd in saved if nanousd is not None]
    return replace(
        call,
        **_NO_TOKENS,
        saved_nanousd=sum(known) if len(known) == len(saved) else None,
        estimated_input_tokens=None,
        estimated_by=None,
        price_id=None,
    )


_NO_TOKENS: dict[str, Any] = {name: getattr(Usage(), name) for name in Usage.__slots__}


def _tell(on_end: Callable[[Call], None], rows: tuple[Call, ...]) -> None:
    try:
        for row in rows:
            on_end(row)
    except Exception as trouble:
        quietly("telling of a finished call", trouble)


_FACTS = ("stop_reason", "service_tier", "speed", "inference_geo", "cache_miss_reason")
MARKS = "llmnb_marks"
"""Under this name a response's `extensions` hold what was marked in its request, where something was."""
_NOTHING_USED = (Usage(),)
_FREE = Cost(0)

_STATUS_ERRORS = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""The API's names of errors by HTTP status (its documentation, "Errors"), for bodies that were not read."""


def _status_of(error: BaseException) -> Status:
    return "error" if isinstance(error, Exception) else "cancelled"


def _status_of_body(outcome: wire.Outcome, how: End, error: BaseException | None) -> Status:
    if outcome.complete:
        return "ok"
    if outcome.error_type is not None:
        return "error"
    if how in ("closed", "dropped") or (error is not None and not isinstance(error, Exception)):
        return "cancelled"
    return "truncated"


def _never_sent(error: BaseException) -> bool:
    """Whether the connection failed before the request could have been read."""
    unsent = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, unsent):
            return True
        if isinstance(cause, (httpx2.HTTPError, asyncio.CancelledError, KeyboardInterrupt)):
            return False
        cause = cause.__cause__
    return isinstance(error, Exception)  # raised on this side, before any request was made


def _added(lost: Usage | None, usage: Usage) -> Usage:
    return usage if lost is None else lost + usage


def _ms_since(moment: float) -> float:
    return (time.perf_counter() - moment) * 1000


def _content(request: dict[str, Any], response: bytes) -> str:
    return json.dumps({"request": request, "response": response.decode("utf-8", "replace")}, default=repr)
