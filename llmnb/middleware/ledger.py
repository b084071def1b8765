"""The ledger part: every call leaves exactly one row, however it ends.

The chain runs once per HTTP attempt, and a stream ends long after the chain has returned. So a row is opened when the
first attempt is sent (marked as running, with an estimated input, in case the process dies), brought up to date when
`message_start` tells what was read, and written for good when the body ends, whichever way it ends. All writes of one
call carry the same uid and replace each other.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any, cast

import httpx2
from anthropic import APIRequest

from llmnb import interrupts
from llmnb.errors import MissingKey
from llmnb.middleware.answering import ANSWER, http_of
from llmnb.middleware.early_error import Ahead, may_be_read_ahead
from llmnb.middleware.entry import UNDER_WAY, Entry
from llmnb.middleware.flow import CLIENT, Answer, Close, Flow, Part, ReadAhead, tell_when_sent
from llmnb.middleware.ledgered import Ledgered
from llmnb.middleware.retries import before_next, is_repeated
from llmnb.middleware.tee import AsyncTee, SyncTee
from llmnb.middleware.watch import BodyWatch
from llmnb.records import current_context
from llmnb.trouble import quietly

_LONGEST_WAIT_S = 3600.0
"""A failed call is remembered for a retry this long. Whether one comes is not known: thousands of calls may wait for
theirs at once, and the SDK obeys almost any retry-after."""

_RETRIED_STATUSES = (408, 409, 429)
"""What the SDK retries besides 5xx, unless the header `x-should-retry` says otherwise."""


class LedgerPart(Part):
    """Writes one ledger row per call of a billable endpoint, and lets everything else pass."""

    def __init__(self, ledgered: Ledgered) -> None:
        self.ledgered = ledgered
        self.answering: Part | None = None
        """The part inside that may answer from disk, and tells when it sends (see `flow.sending`), if there is one."""
        self._waiting: OrderedDict[str, list[Entry]] = OrderedDict()
        self._lock = Lock()

    def concerns(self, request: APIRequest) -> bool:
        return is_billable(request)

    def flow(self, request: APIRequest) -> Flow:
        entry = self._sent(request)
        if entry is None:
            return (yield request)
        UNDER_WAY.set(entry)
        try:
            response = yield request
        except BaseException as error:
            self._raised(entry, request, error)
            if not (is_repeated(error) and (yield from self._told_of_retry(entry, request, error))):
                entry.given_up()
            raise
        finally:
            UNDER_WAY.set(None)
        http = self._answered(entry, request, response)
        if http is not None and request.stream and may_be_read_ahead(request, http):
            http, response = yield from self._begun(entry, request, http, response)
        if (
            http is not None
            and not 200 <= http.status_code < 300  # `is_success` makes an enum of it
            and not (is_retried(http) and (yield from self._told_of_retry(entry, request, http)))
        ):
            entry.given_up()
        return response

    def _begun(self, entry: Entry, request: APIRequest, http: httpx2.Response, response: Any) -> Flow:
        """A stream that has come to its content; or, where an error came before that, a response with its status."""
        ahead = Ahead(http)
        yield ReadAhead(cast("SyncTee | AsyncTee", http.stream), ahead.is_enough)
        if ahead.error_type is None:
            return http, response
        entry.fails_early = True
        yield Close(http)  # the row is written now
        failed = ahead.response(http)
        if is_retried(failed):
            self._may_be_retried(entry, request)
        return failed, (yield Answer(failed, request))

    def _told_of_retry(self, entry: Entry, request: APIRequest, failure: httpx2.Response | BaseException) -> Flow:
        """Tells who watches of the next attempt, if there is one; whether there is."""
        client = yield CLIENT
        try:
            retry = before_next(request, failure, client, self.ledgered.settings.longest_retry_wait_s)
            if retry is None:
                return False
            entry.awaits_retry()
            if (tell := current_context().on_wait) is not None:
                tell(retry)
        except Exception as trouble:
            quietly("preparing a retry", trouble, but="how long the SDK waits is not shown")
            return False
        return True

    def _sent(self, request: APIRequest) -> Entry | None:
        try:
            entry = self._retried(request) if request.retries_taken else None
            if entry is None:
                body: Any = request.json
                entry = Entry(self.ledgered, body, stream=request.stream)
            entry.tried(request.retries_taken + 1)
            if self.answering is not None and self.answering.concerns(request):
                tell_when_sent(request, entry.sent)
            else:
                entry.sent()
            return entry
        except Exception as trouble:
            quietly("opening a ledger row", trouble)
            return None

    def _raised(self, entry: Entry, request: APIRequest, error: BaseException) -> None:
        try:
            entry.raised(error)
            interrupts.shorten(error)
            if isinstance(error, TypeError) and "authentication" in str(error):
                error.add_note(f"llmnb: {MissingKey()}")  # the SDK's own error, with what to do about it
            if isinstance(error, Exception):
                self._may_be_retried(entry, request)
        except Exception as trouble:
            quietly("recording a failed call", trouble)

    def _answered(self, entry: Entry, request: APIRequest, response: Any) -> httpx2.Response | None:
        """Records what came, and gives the HTTP response."""
        http: httpx2.Response | None = getattr(response, "http_response", None)
        try:
            if http is None and (http := http_of(response)) is None:
                entry.materialised(response)  # a part inside this one answered with a finished object
            elif (replayed := http.extensions.get(ANSWER)) is not None:
                entry.replayed(*replayed)
            elif 200 <= http.status_code < 300:
                if http.is_closed and not request.stream:
                    entry.responded(http)
                    entry.answered(http.content)
                else:
                    BodyWatch.begin(entry, response, http)
            else:
                entry.refused(http)
                if is_retried(http):
                    self._may_be_retried(entry, request)
        except Exception as trouble:
            quietly("recording a call", trouble)
        return http

    # Attempts of one call share an idempotency key. A key of the user's own can be shared by several calls: the number
    # of attempts made so far and the identity of the body, which the attempts of one call share, too, tell them apart.

    def _may_be_retried(self, entry: Entry, request: APIRequest) -> None:
        entry.body_id = id(request.json)
        with self._lock:
            self._forget_old()
            self._waiting.setdefault(str(request.options.idempotency_key), []).append(entry)

    def _forget_old(self) -> None:
        """Drops, from the front, the calls whose retry never came: with every failure those that are due."""
        while self._waiting:
            key, entries = next(iter(self._waiting.items()))
            entries[:] = [entry for entry in entries if entry.has_waited_s() < _LONGEST_WAIT_S]
            if entries:
                return
            del self._waiting[key]

    def _retried(self, request: APIRequest) -> Entry | None:
        key = str(request.options.idempotency_key)
        with self._lock:
            entries = [entry for entry in self._waiting.get(key, ()) if entry.attempts == request.retries_taken]
            if not entries:
                return None
            # a part outside of this one may have copied the body
            entry = next((entry for entry in entries if entry.body_id == id(request.json)), entries[-1])
            self._waiting[key].remove(entry)
            if not self._waiting[key]:
                del self._waiting[key]
            return entry


def is_retried(http: httpx2.Response) -> bool:
    """Whether the SDK sends a request that was answered so again, if it has retries left."""
    if http.is_success:
        return False
    asked = http.headers.get("x-should-retry")
    if asked in ("true", "false"):
        return asked == "true"
    return http.status_code in _RETRIED_STATUSES or http.status_code >= 500


def is_billable(request: APIRequest) -> bool:
    """Whether the request makes a model write: creating a message, of the plain or the beta API."""
    options = request.options
    if options.url != "/v1/messages" and not options.url.partition("?")[0].rstrip("/").endswith("/v1/messages"):
        return False  # the first is how the SDK itself writes it
    return options.method.lower() == "post" and isinstance(options.json_data, dict)
