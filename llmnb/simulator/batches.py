"""Message batches: accepted at once, processed on the server's clock, billed at half price when they end.

What the time until a batch's end allows of it is processed, in the order of its requests: of one that is cancelled, or
takes longer than a day, the rest is cancelled, or has expired.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from llmnb.simulator.answer import Answer
from llmnb.simulator.api_error import ApiError, invalid, not_found
from llmnb.simulator.clock import rfc3339
from llmnb.simulator.engine import Caller, Engine, Outcome, settled
from llmnb.simulator.json_value import Json, as_list, as_object, as_text, dump_bytes

EXPIRES_S = 24 * 3600.0
ARCHIVED_S = 29 * 24 * 3600.0
"""Results can be had for so long after a batch was created (the API's documentation, "Batch processing")."""
MAX_REQUESTS = 100_000
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


@dataclass(slots=True)
class _Batch:
    id: str
    caller: Caller
    requests: list[Json]
    created: float
    ends: float
    cancelled: float | None = None
    ended: float | None = None
    results: list[Json] = field(default_factory=list[Json])


class Batches:
    """Every batch of the server. `seconds` is how long one takes to be processed."""

    def __init__(self, engine: Engine, seconds: float, answer_for: Callable[[Json], Answer]) -> None:
        self._engine = engine
        self._answer_for = answer_for
        self._seconds = seconds
        self._held: dict[str, _Batch] = {}

    def create(self, body: Json, caller: Caller, url: str) -> Json:
        """Accept a batch."""
        requests = [as_object(item) for item in as_list(body.get("requests"))]
        if not requests:
            raise invalid("requests: List should have at least 1 item after validation, not 0")
        if len(requests) > MAX_REQUESTS:
            raise invalid(f"requests: List should have at most {MAX_REQUESTS} items after validation")
        _check_ids(requests)
        now = self._engine.clock.now()
        batch = _Batch(self._engine.ids.new("msgbatch_"), caller, requests, now, now + min(self._seconds, EXPIRES_S))
        self._held[batch.id] = batch
        return self._shown(batch, url)

    def retrieve(self, batch_id: str, caller: Caller, url: str) -> Json:
        """A batch as it is now."""
        return self._shown(self._find(batch_id, caller), url)

    def list(self, query: dict[str, str], caller: Caller, url: str) -> Json:
        """A page of batches, newest first."""
        mine = [batch for batch in reversed(self._held.values()) if batch.caller.key == caller.key]
        return page([self._shown(batch, url) for batch in mine], query)

    def cancel(self, batch_id: str, caller: Caller, url: str) -> Json:
        """Stop a batch: what was not processed yet is cancelled, and it ends a second later."""
        batch = self._find(batch_id, caller)
        now = self._engine.clock.now()
        if batch.ended is None and batch.cancelled is None:
            batch.cancelled = now
            batch.ends = min(batch.ends, now + 1)
        return self._shown(batch, url)

    def delete(self, batch_id: str, caller: Caller) -> Json:
        """Forget a batch that has ended."""
        batch = self._find(batch_id, caller)
        if batch.ended is None:
            raise invalid("Message Batches can only be deleted once they have finished processing.")
        del self._held[batch_id]
        return {"id": batch_id, "type": "message_batch_deleted"}

    def results(self, batch_id: str, caller: Caller) -> bytes:
        """The results as JSON lines, in an order of their own."""
        batch = self._find(batch_id, caller)
        if batch.ended is None:
            raise invalid(f"Batch {batch_id} has no available results; it is still being processed.")
        if self._is_archived(batch):
            raise not_found(f"The results of Batch {batch_id} are no longer available.")
        return b"".join(dump_bytes(result) + b"\n" for result in reversed(batch.results))

    def settle(self) -> None:
        """Process every batch whose time has come."""
        for batch in list(self._held.values()):
            self._advance(batch)

    def _find(self, batch_id: str, caller: Caller) -> _Batch:
        batch = self._held.get(batch_id)
        if batch is None or batch.caller.key != caller.key:
            raise not_found(f"Message Batch with id {batch_id!r} was not found.")
        self._advance(batch)
        return batch

    def _advance(self, batch: _Batch) -> None:
        if batch.ended is not None or self._engine.clock.now() < batch.ends:
            return
        batch.ended = batch.ends
        until = batch.ends if batch.cancelled is None else batch.cancelled
        share = 1.0 if not self._seconds else (until - batch.created) / self._seconds
        processed = min(len(batch.requests), int(len(batch.requests) * share))
        for at, request in enumerate(batch.requests):
            if at < processed:
                result = self._processed(batch, request)
            else:
                result = {"type": "expired" if batch.cancelled is None else "canceled"}
            batch.results.append({"custom_id": request["custom_id"], "result": result})

    def _processed(self, batch: _Batch, request: Json) -> Json:
        request_id = self._engine.ids.new("req_")
        body = {key: value for key, value in as_object(request.get("params")).items() if key != "stream"}
        try:
            answer = self._answer_for(body)
            if answer.fault is not None and (error := answer.fault.error()) is not None:
                raise error
            if body.get("max_tokens") == 0:
                raise invalid("max_tokens: must be at least 1 in a batch")
            prepared = self._engine.prepare(
                body, batch.caller, answer, request_id, batch=(batch.id, as_text(request["custom_id"]))
            )
        except ApiError as error:
            return {"type": "errored", "error": error.envelope(request_id)}
        outcome = Outcome(complete=True, aborted=False, tokens=0, any_content=True, bytes_sent=0)
        self._engine.billing.append(settled(prepared.record, prepared.turn, outcome, len(dump_bytes(body))))
        return {"type": "succeeded", "message": prepared.turn.message()}

    def _is_archived(self, batch: _Batch) -> bool:
        return self._engine.clock.now() >= batch.created + ARCHIVED_S

    def _shown(self, batch: _Batch, url: str) -> Json:
        counts = Counter(as_text(result["result"]["type"]) for result in batch.results)
        status = "ended" if batch.ended else "canceling" if batch.cancelled else "in_progress"
        kinds = ("succeeded", "errored", "canceled", "expired")
        archived = self._is_archived(batch)
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": status,
            "request_counts": {"processing": 0 if batch.ended else len(batch.requests)}
            | {kind: counts[kind] for kind in kinds},
            "created_at": rfc3339(batch.created),
            "expires_at": rfc3339(batch.created + EXPIRES_S),
            "ended_at": rfc3339(batch.ended) if batch.ended else None,
            "cancel_initiated_at": rfc3339(batch.cancelled) if batch.cancelled else None,
            "archived_at": rfc3339(batch.created + ARCHIVED_S) if archived else None,
            "results_url": f"{url}/v1/messages/batches/{batch.id}/results" if batch.ended and not archived else None,
        }


def _check_ids(requests: list[Json]) -> None:
    seen: set[str] = set()
    for at, request in enumerate(requests):
        custom_id = request.get("custom_id")
        if not isinstance(custom_id, str) or not _CUSTOM_ID.fullmatch(custom_id):
            raise invalid(f"requests.{at}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'")
        if custom_id in seen:
            raise invalid(f"requests.{at}.custom_id: '{custom_id}' is not unique within the batch.")
        if not isinstance(request.get("params"), dict):
            raise invalid(f"requests.{at}.params: Field required")
        seen.add(custom_id)


def page(items: list[Json], query: dict[str, str]) -> Json:
    """One page of a list, by `limit`, `after_id` and `before_id`."""
    text = query.get("limit", "20")
    limit = int(text) if text.isdigit() else 0
    if not 1 <= limit <= 1000:
        raise invalid("limit: Input should be between 1 and 1000")
    ids = [item["id"] for item in items]
    start, more_before = 0, False
    if query.get("after_id") in ids:
        start = ids.index(query["after_id"]) + 1
    elif query.get("before_id") in ids:
        end = ids.index(query["before_id"])
        start, more_before = max(0, end - limit), end > limit
        items = items[:end]
    shown = items[start : start + limit]
    return {
        "data": shown,
        "first_id": shown[0]["id"] if shown else None,
        "last_id": shown[-1]["id"] if shown else None,
        "has_more": more_before or (not query.get("before_id") and start + limit < len(items)),
    }
