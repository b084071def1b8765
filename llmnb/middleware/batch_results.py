"""The batches part: whoever reads the results of a message batch, and however often, each message is a row once.

What a batch cost stands in its results, a line for each request. This part reads along with them, whether llmnb reads
them or the user's own `client.messages.batches.results(…)`. A row's uid is made of the batch's id and the request's
`custom_id`: it is the same in every process, and a row that is on the books stays as whoever read it first wrote it.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Lock
from typing import Any, cast

import httpx2
from anthropic import APIRequest

from llmnb.hearing import is_heard, tell
from llmnb.ledger import books as books_of
from llmnb.ledger import open_ledger
from llmnb.ledger.answered import rows_of
from llmnb.messages import wire
from llmnb.middleware.answering import http_of, source_of
from llmnb.middleware.flow import Flow, Part
from llmnb.middleware.ledgered import Ledgered
from llmnb.records import Call, Rows, Status, Usage, current_context
from llmnb.trouble import quietly

_ROUTE = re.compile(r"/v1/messages/batches(?:/([^/?]+))?(/results)?/?(?:\?|$)")
_MOST_BATCHES = 10_000
_BUT = "rows of the batch may be missing on the books until its results are read again"


@dataclass(frozen=True, slots=True)
class BatchFacts:
    """What results do not say of their batch: when it was made, in microseconds since 1970, and the model asked for."""

    created_us: int
    model: str | None = None


_facts: OrderedDict[str, BatchFacts] = OrderedDict()
_lock = Lock()


def remember(batch_id: str, facts: BatchFacts) -> None:
    """Has the rows of a batch tell when it was made and which model was asked."""
    with _lock:
        known = _facts.pop(batch_id, None)
        _facts[batch_id] = (
            facts if known is None or facts.model is not None else BatchFacts(facts.created_us, known.model)
        )
        while len(_facts) > _MOST_BATCHES:
            _facts.popitem(last=False)


def row_uid(batch_id: str, custom_id: str) -> str:
    """The uid of the row of one request of a batch."""
    return hashlib.blake2b(f"{batch_id}\n{custom_id}".encode(), digest_size=16, person=b"llmnb-batch").hexdigest()


class BatchesPart(Part):
    """Writes a ledger row for each message of a batch whose results come by, and lets everything pass as it is."""

    def __init__(self, ledgered: Ledgered) -> None:
        self._ledgered = ledgered

    def concerns(self, request: APIRequest) -> bool:
        return "/v1/messages/batches" in request.options.url

    def flow(self, request: APIRequest) -> Flow:
        response = yield request
        try:
            self._look(request, response)
        except Exception as trouble:
            quietly("watching a message batch", trouble, _BUT)
        return response

    def _look(self, request: APIRequest, response: Any) -> None:
        http, route = http_of(response), _ROUTE.search(request.options.url)
        if http is None or route is None or http.status_code != 200 or source_of(http) != "live":
            return
        if route[2] is not None:
            self._watch_results(cast("str", route[1]), http)
        elif http.is_closed:
            body: Any = request.json or {}
            _remember_all(wire.parsed(http.content), body)

    def _watch_results(self, batch_id: str, http: httpx2.Response) -> None:
        lines = Lines(Booking(self._ledgered, batch_id), http.headers)
        if http.is_closed:
            lines.read(http.content)
            lines.end()
            return
        stream = http.stream
        kind = _AsyncWatched if isinstance(stream, httpx2.AsyncByteStream) else _SyncWatched
        http.stream = kind(stream, lines)


def _remember_all(shown: dict[str, Any], asked: Mapping[str, Any]) -> None:
    """What a response tells of batches: one, or a page of them."""
    models = {str(item.get("params", {}).get("model")) for item in asked.get("requests") or ()}
    for batch in [shown, *(shown.get("data") or ())]:
        if batch.get("type") == "message_batch":
            created = datetime.fromisoformat(batch["created_at"]).timestamp()
            remember(batch["id"], BatchFacts(round(created * 1e6), models.pop() if len(models) == 1 else None))


# The lines ------------------------------------------------------------------------------------------------------------


class Lines:
    """Cuts a body into its lines as it comes, and has what came together booked together. Never raises."""

    def __init__(self, booking: Booking, headers: httpx2.Headers) -> None:
        self._booking = booking
        encoding = headers.get("content-encoding", "identity")
        self._decoder: Any = None
        if encoding != "identity":  # as the response itself will decode it
            named = httpx2.Response(200, headers={"content-encoding": encoding})
            self._decoder = named._get_content_decoder()  # pyright: ignore[reportPrivateUsage]
        self._rest = b""

    def chunk(self, raw: bytes) -> None:
        """A piece of the body as it travels."""
        try:
            self.read(raw if self._decoder is None else b"".join(self._decoder.decode(raw)))
        except Exception as trouble:
            quietly("reading the results of a batch", trouble, _BUT)

    def read(self, data: bytes) -> None:
        """A piece of the decoded body."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._booking.book(lines)

    def end(self) -> None:
        """The body is at its end."""
        try:
            if self._decoder is not None:
                self._rest += b"".join(self._decoder.flush())
            last, self._rest = self._rest, b""
            self._booking.book(last.split(b"\n"))
        except Exception as trouble:
            quietly("reading the results of a batch", trouble, _BUT)


class _SyncWatched(httpx2.SyncByteStream):
    def __init__(self, stream: Any, lines: Lines) -> None:
        self._stream, self._lines = stream, lines
        self.stream_observer: Any = getattr(stream, "stream_observer", None)

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._stream:
            self._lines.chunk(chunk)
            yield chunk
        self._lines.end()

    def close(self) -> None:
        self._stream.close()

    def __getattr__(self, name: str) -> Any:  # such as `elapsed`, which the response reads here
        return getattr(self._stream, name)


class _AsyncWatched(httpx2.AsyncByteStream):
    def __init__(self, stream: Any, lines: Lines) -> None:
        self._stream, self._lines = stream, lines
        self.stream_observer: Any = getattr(stream, "stream_observer", None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for chunk in self._stream:
            self._lines.chunk(chunk)
            yield chunk
        self._lines.end()

    async def aclose(self) -> None:
        await self._stream.aclose()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


# Rows -----------------------------------------------------------------------------------------------------------------


class Booking:
    """Puts the results of one batch on the books."""

    def __init__(self, ledgered: Ledgered, batch_id: str) -> None:
        self._ledgered = ledgered
        self._batch_id = batch_id
        self._context = current_context()

    def book(self, lines: list[bytes]) -> None:
        """Books what these lines say, but what is on the books already."""
        found = [rows for line in lines if line.strip() and (rows := self._read(line))]
        if not found:
            return
        booked = self._booked([rows[0].uid for rows in found])
        for rows in found:
            if rows[0].uid not in booked:
                self._ledgered.books.record(rows[0], rows[1:])
                if is_heard():
                    tell(Rows(rows))
            if self._context.on_end is not None:
                self._context.on_end(Rows(rows))

    def _read(self, line: bytes) -> tuple[Call, ...]:
        """The rows of a line; none of one that cannot be read, which keeps those that came with it from nothing."""
        try:
            return self._rows(wire.parsed(line))
        except Exception as trouble:
            quietly("reading the results of a batch", trouble, _BUT)
            return ()

    def _rows(self, line: dict[str, Any]) -> tuple[Call, ...]:
        result: Any = line.get("result")
        if not isinstance(result, dict) or "custom_id" not in line:
            return ()
        told = cast("dict[str, Any]", result)
        message: dict[str, Any] = told.get("message") or {}
        known = self._known(str(line["custom_id"]), message.get("model"))
        prices = self._ledgered.settings.prices
        if told.get("type") == "succeeded":
            outcome = wire.read_message(message, known["model_requested"])
            known |= self._content(message)
            return rows_of(known, "ok", outcome.usage or Usage(estimated=True), prices, outcome=outcome)
        known["error_type"] = wire.error_of(told.get("error")) or str(told.get("type"))
        status: Status = "cancelled" if told.get("type") == "canceled" else "error"
        return rows_of(known, status, Usage(), prices)

    def _known(self, custom_id: str, served: object) -> dict[str, Any]:
        facts = _facts.get(self._batch_id)
        model = (facts and facts.model) or str(served or "")
        origin = self._ledgered.origin(self._context, model, stream=False)
        return {
            **origin.fields,
            "uid": row_uid(self._batch_id, custom_id),
            "ts": _now_us() if facts is None else facts.created_us,
            "batch_id": self._batch_id,
            "service_tier": "batch",  # also where the answer does not say so: it is what is billed
        }

    def _content(self, message: Mapping[str, Any]) -> dict[str, Any]:
        wanted = self._context.log_content
        if not (self._ledgered.settings.log_content if wanted is None else wanted):
            return {}
        return {"content": json.dumps({"response": json.dumps(message)})}

    def _booked(self, uids: list[str]) -> set[str]:
        """Which of the rows are on the books; should nobody be able to tell, they are written again, as they are."""
        settings = self._ledgered.settings
        if self._ledgered.books is not books_of(settings):
            return set()
        try:
            books_of(settings).settle()
            with open_ledger(settings.ledger_path).transaction(reading=True) as connection:
                sql = "SELECT uid FROM calls WHERE uid IN (SELECT value FROM json_each(?))"
                return {uid for (uid,) in connection.execute(sql, (json.dumps(uids),))}
        except Exception as trouble:
            quietly("looking for rows of a batch", trouble, but="they are written again, over themselves")
            return set()


def _now_us() -> int:
    return time.time_ns() // 1000
