"""One call on its way into the ledger: what is known of it so far, and the row that says so."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import replace
from typing import Any, cast

import httpx2

from llmnb import forks
from llmnb.cache.stored import StoredAnswer
from llmnb.cassette import scope
from llmnb.hearing import is_heard, tell
from llmnb.ledger.answered import AnsweredCall, UnbilledCall, rows_of
from llmnb.messages import wire
from llmnb.messages.prompt_outline import prompt_bytes
from llmnb.middleware.answering import SOURCE
from llmnb.middleware.ends import STATUS_ERRORS, status_of, status_of_body, was_never_sent
from llmnb.middleware.ledgered import Ledgered, new_uid
from llmnb.middleware.spans import CallSpan, of_attempt
from llmnb.middleware.tee import End
from llmnb.records import Call, Ended, PromptMarks, Rows, Source, Status, Usage, current_context
from llmnb.tokens.sampling import counted_offline, is_sampled
from llmnb.trouble import quietly

Told = Callable[[Call, tuple[Call, ...], str | None], None]


class Entry:
    """Gathers what is known of one call and writes its row: running, refreshed, and once for good."""

    # what most calls never need is only set where they do
    attempts = 1
    body_id = 0
    """Tells the bodies of attempts apart, once one may be retried."""
    prompt_bytes = 0
    """How much text the model is to read, once it is sent."""
    saw_first_token = False
    fails_early = False
    """Whether this attempt's stream ends before its content, so that another one may be made."""
    on_row: Told | None = None
    """Told the row of each attempt that has ended, its child rows and the message's id; it must not raise."""
    wants_id = True
    """Whether `on_row` looks at the message's id."""
    _estimated_input = 0
    _lost: Usage | None = None
    _marks: PromptMarks | None = None
    _held_back = False
    _is_out = False
    _span: CallSpan | None = None
    _unheard: Ended | None = None

    def __init__(self, ledgered: Ledgered, body: dict[str, Any], *, stream: bool) -> None:
        self._ledgered = ledgered
        self._pid = forks.pid
        self._context = context = current_context()
        logs_content = ledgered.settings.log_content if context.log_content is None else context.log_content
        self._request = body if logs_content else None
        self._began = self._waited_from = time.perf_counter()
        self._body: dict[str, Any] | None = body
        self.model_requested = model = str(body.get("model") or "")
        self._origin = ledgered.origin(context, model, stream=stream)
        # the fields of the row: those that the books were told when the attempt was sent, and those that came up since
        now_us = time.time_ns() // 1000
        self._sent: dict[str, Any] = {
            **self._origin.fields,
            "uid": new_uid(now_us),
            "ts": now_us,
        }
        self._since: dict[str, Any] = {}

    @property
    def facts(self) -> Mapping[str, Any]:
        """The fields of its row that are known so far."""
        return self._sent

    @property
    def estimated_input_tokens(self) -> int:
        """What is sent, as far as it is known before the API says."""
        return self._estimated_input

    @property
    def lost(self) -> Usage | None:
        """What earlier attempts may be billed that got no answer."""
        return self._lost

    # What happens to the call, in the order it can happen -------------------------------------------------------------

    def tried(self, attempt: int) -> None:
        """An attempt is made, and goes out unless it is answered from disk."""
        if attempt > 1:
            self._since.pop("error_type", None)
            self._sent = {**self._sent, **self._since, "attempts": attempt}
            self._has_waited()
            self._since = {}
        self.attempts = attempt
        self._is_out = self.fails_early = False
        self._span = of_attempt(self._span)
        if scope.needs_no_key():  # nothing will be sent, so that nothing is billed, whatever becomes of this process
            self._sent["source"] = "replay"

    def sent(self) -> None:
        """The attempt goes out now."""
        self._is_out = True
        body = self._body
        if body is not None:
            self._look_at(body)
            self._body = None
        self._ledgered.books.begin(self._sent, self._origin)

    def _look_at(self, body: dict[str, Any]) -> None:
        """Counts what is sent, as far as it is known before the API says."""
        self.prompt_bytes = size = prompt_bytes(body)
        if self._sent.get("source") != "replay":
            self._estimated_input = wire.estimated_tokens(size)
        self._sent["input_tokens"] = self._estimated_input
        if is_sampled(self.model_requested) and (counted := counted_offline(body, size)) is not None:
            self._sent["estimated_input_tokens"], self._sent["estimated_by"] = counted

    def waits(self) -> None:
        """The attempt is held back after all, and nothing has been sent of it yet."""
        if not self._held_back:
            self._held_back, self._is_out, self._waited_from = True, False, time.perf_counter()
            self._ledgered.books.begin({**self._sent, "input_tokens": 0})

    def goes(self) -> None:
        """The attempt that was held back goes out now."""
        if self._held_back:
            self._no_longer_waits()
            self.sent()

    def _no_longer_waits(self) -> None:
        if self._held_back:
            self._held_back = False
            self._has_waited()

    def _has_waited(self) -> None:
        self._sent["wait_ms"] = self._sent.get("wait_ms", 0.0) + _ms_since(self._waited_from)

    def responded(self, http: httpx2.Response) -> None:
        """Headers of an answer are here."""
        if self._body is not None:  # nobody told that it went out
            self._look_at(self._body)
            self._body = None
        headers, since = http.headers, self._since
        if request_id := headers.get("request-id") or headers.get("x-amzn-requestid"):
            since["request_id"] = request_id
        extensions = http.extensions
        if (source := extensions.get(SOURCE)) is not None:
            since["source"] = source
        self._marks = extensions.get(MARKS)
        if self._marks is not None:
            since["cache_breakpoints"] = len(self._marks.breakpoints)

    def refused(self, http: httpx2.Response) -> None:
        """The attempt was answered with an HTTP error, which costs nothing."""
        self.responded(http)
        self._waited_from = time.perf_counter()
        body = http.content if http.is_closed and hasattr(http, "_content") else b""
        self._since["error_type"] = wire.read_json(body, "").error_type or STATUS_ERRORS.get(
            http.status_code, f"http_{http.status_code}"
        )
        self._finish("error", self._lost or Usage(), is_over=False)

    def awaits_retry(self) -> None:
        """Another attempt comes after a wait; should the process die in it, the call is found to be interrupted.

        It is noted under the number of the attempt to come, since the row of this one ends what was noted of it.
        """
        lost = (self._lost or Usage()).input_tokens
        self._ledgered.books.begin(
            {**self._sent, **self._since, "attempts": self.attempts + 1, "input_tokens": lost}, self._origin
        )

    def raised(self, error: BaseException) -> None:
        """The attempt got no answer: the network failed, or the caller gave up waiting."""
        self._no_longer_waits()
        self._waited_from = time.perf_counter()
        if self._is_out and not was_never_sent(error):  # the API may have read the request, and may bill it
            self._lost = _added(self._lost, self._estimated)
        self._since["error_type"] = type(error).__name__
        self._finish(status_of(error), self._lost or Usage(), is_over=False)

    def given_up(self) -> None:
        """The attempt that failed was the last one."""
        if self._unheard is not None:
            tell(self._unheard)

    def first_token(self) -> None:
        """The first piece of content is here."""
        self.saw_first_token = True
        self._since["ttft_ms"] = _ms_since(self._began)

    def progressed(self, outcome: wire.Outcome) -> None:
        """A stream has told more about itself, and is not at its end."""
        if not self._is_a_copy and self._is_live:
            usage = replace(outcome.usage or self._estimated, estimated=True)
            self._record("running", _added(self._lost, usage), outcome)

    def answered(self, body: bytes, *, streamed: bool = False) -> None:
        """The whole answer is here, as one JSON document, or `streamed` as events that somebody kept."""
        is_plain = self._lost is None and self._request is None and self._marks is None
        is_plain = is_plain and (self.on_row is None or not self.wants_id)
        if streamed or not is_plain:
            read = wire.read_stream if streamed else wire.read_json
            self.body_ended(read(body, self.model_requested), body, "read", None)
        elif self._pid == forks.pid:  # `_is_a_copy`
            self._since["latency_ms"] = _ms_since(self._began)
            call = AnsweredCall(self._sent, self._since, body, self._ledgered.settings.prices)
            self._ledgered.books.answered(call)
            if self.on_row is not None:
                self.on_row(call.rows[0], call.rows[1:], None)
            self._tell(call)

    def body_ended(self, outcome: wire.Outcome, body: bytes, how: End, error: BaseException | None) -> None:
        """The body has ended, by itself or not; of one that came whole and is not kept, `body` may be empty."""
        status = status_of_body(outcome, how, error)
        if status != "ok":
            # that the reader went away is no error, whichever way it went
            is_error = how == "failed" and isinstance(error, Exception)
            self._since["error_type"] = outcome.error_type or (type(error).__name__ if is_error else None)
            self._waited_from = time.perf_counter()
        usage = outcome.usage or self._estimated
        if status == "error" and b'"content_block_start"' not in body:
            usage = Usage()  # an error before any content costs nothing, as one with a status of its own does not
        elif status != "ok" and not outcome.complete:
            usage = replace(usage, estimated=True)
        self._finish(status, _added(self._lost, usage), outcome, body, is_over=not self.fails_early)

    def replayed(self, answer: StoredAnswer, source: Source) -> None:
        """The whole answer was kept, and is here at once: no token is billed, and all that it cost once is saved."""
        if self._is_a_copy:
            return
        if self._lost is not None:  # by an attempt before, which the API may bill
            self._since["source"], self._marks = source, None
            outcome = wire.read_message(dict(answer.message), self.model_requested)
            return self._finish("ok", self._lost, outcome, answer.body)
        known = {**self._sent, **self._since, "source": source, "latency_ms": _ms_since(self._began)}
        if self._request is not None:
            known["content"] = _content(self._request, answer.body)
        call = UnbilledCall(known, answer.message, self._ledgered.settings.prices)
        self._ledgered.books.unbilled(call)
        self._tell(call)

    def materialised(self, message: Any) -> None:
        """A part inside the ledger's answered with an object instead of a response."""
        dump = getattr(message, "model_dump_json", None)
        body = cast(str, dump()).encode() if dump else b"{}"
        self.answered(body)

    def has_waited_s(self) -> float:
        """Seconds since the last attempt failed."""
        return time.perf_counter() - self._waited_from

    # Rows -------------------------------------------------------------------------------------------------------------

    @property
    def _estimated(self) -> Usage:
        return Usage(self._estimated_input, estimated=self._estimated_input > 0)

    @property
    def _is_live(self) -> bool:
        return self._since.get("source", self._sent.get("source", "live")) == "live"

    def _finish(
        self,
        status: Status,
        usage: Usage,
        outcome: wire.Outcome = wire.NOTHING,
        body: bytes = b"",
        *,
        is_over: bool = True,
    ) -> None:
        if self._is_a_copy:
            return
        self._since["latency_ms"] = _ms_since(self._began)
        if self._request is not None:
            self._since["content"] = _content(self._request, body)
        rows = self._record(status, usage, self._settled(outcome))
        if self.on_row is not None:
            self.on_row(rows[0], rows[1:], outcome.message_id)
        self._tell(Rows(rows), is_over=is_over)

    def _tell(self, ended: Ended, *, is_over: bool = True) -> None:
        if self._span is not None:
            self._span.tell(ended)
        if is_heard():
            if is_over:
                tell(ended)
            else:  # the SDK may make another attempt
                self._unheard = ended
        if self._context.on_end is not None:
            try:
                self._context.on_end(ended)
            except Exception as trouble:
                quietly("telling of a finished call", trouble)

    def _settled(self, outcome: wire.Outcome) -> wire.Outcome:
        """The outcome, after asking what came of the breakpoints that a part inside the ledger's set."""
        if self._marks is None or outcome.usage is None:
            return outcome
        try:
            reason = self._marks.settle(outcome.usage, outcome.cache_miss_reason, outcome.message_id)
            return replace(outcome, cache_miss_reason=reason)
        except Exception as trouble:
            quietly("finding out why the prompt cache was missed", trouble)
            return outcome

    def _record(self, status: Status, usage: Usage, outcome: wire.Outcome) -> tuple[Call, ...]:
        known, prices = {**self._sent, **self._since}, self._ledgered.settings.prices
        rows = rows_of(known, status, usage, prices, outcome=outcome, lost=self._lost)
        self._ledgered.books.record(rows[0], () if status == "running" else rows[1:])
        return rows

    @property
    def keeps_body(self) -> bool:
        """Whether what is answered is written down, and not only counted."""
        return self._request is not None

    @property
    def is_stream(self) -> bool:
        """Whether the answer was asked for as a stream."""
        return self._origin.fields["stream"]

    @property
    def _is_a_copy(self) -> bool:
        """Whether this is a forked child's copy: the call is the parent's, who alone knows how it ends."""
        return self._pid != forks.pid


UNDER_WAY: ContextVar[Entry | None] = ContextVar("llmnb_entry", default=None)
"""The call for which the parts inside the ledger's are at work."""


MARKS = "llmnb_marks"
"""Under this name a response's `extensions` hold what was marked in its request, where something was."""


def _added(lost: Usage | None, usage: Usage) -> Usage:
    return usage if lost is None else lost + usage


def _ms_since(moment: float) -> float:
    """Milliseconds, to the microsecond."""
    return int((time.perf_counter() - moment) * 1_000_000 + 0.5) / 1000


def _content(request: dict[str, Any], response: bytes) -> str:
    return json.dumps({"request": request, "response": response.decode("utf-8", "replace")}, default=repr)
