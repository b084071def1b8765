"""The Message Batches API, asked so that nothing is sent twice: one send, a look for what may have come of it, a wait.

The limits are those of the API's documentation, "Batch processing": a batch has at most 100,000 requests and 256 MB,
most end within an hour, none takes more than 24, results are kept for 29 days; requests that failed, were cancelled or
expired are not billed.
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncGenerator, Callable, Collection
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast

from llmnb.errors import InvalidRequest
from llmnb.jobs.batches.notes import Note
from llmnb.pacing.account import Clock
from llmnb.pacing.pacer import WallClock

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic
    from anthropic.types.messages import MessageBatch

MOST_REQUESTS = 100_000
"""The API's own limit."""
MOST_BYTES = 64_000_000
"""A quarter of the API's own limit, so that the requests of a batch fit into memory beside a frame."""

FIRST_POLL_S, LONGEST_POLL_S = 2.0, 300.0
"""How long is waited between two looks at a batch, at first and at most."""
POLL_GROWTH = 1.25
"""Each wait is longer by a quarter: that a batch has ended is known before it has taken a quarter longer."""
SETTLED_S = 600.0
"""A batch whose sending was cut off is looked for until it is so old. No server works longer at a request whose client
is gone: the SDK itself waits for no answer longer. What is not in the list by then, a person has to judge."""
REFUSED_S = 60.0
"""The same of one to which the API itself answered that it failed: it works at it no more."""
LOOK_S = 15.0
SKEW_S = 24 * 3600.0
"""Nobody looks at batches made so long before a send: by more than that this machine's clock is not wrong."""
LOST_TRIES = 3
"""How often a batch is sent whose sends were all lost, and of which nothing came."""
_READ_TRIES = 5
_PAGE = 100

clock: Clock = WallClock()
"""The time that polling waits by; the simulator's `Clock` is one, too."""


async def sleep(seconds: float) -> None:
    """Waits for so many seconds of the clock."""
    await asyncio.sleep(clock.real_s(seconds))


class NotSent(Exception):  # noqa: N818 - it says what happened
    """What was sent has not arrived, for certain; `error` is why."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Lost(NotSent):
    """Nobody knows whether what was sent has arrived; `is_refused` is whether the API said that it failed."""

    def __init__(self, error: Exception, *, is_refused: bool = False) -> None:
        super().__init__(error)
        self.is_refused = is_refused


class Service:
    """The batches of one account, through `client`."""

    def __init__(self, client: AsyncAnthropic) -> None:
        self._client = client
        # the SDK would send a batch again whose answer was lost: without an idempotency key, that is another batch
        self._once = client.with_options(max_retries=0)

    # Sending ----------------------------------------------------------------------------------------------------------

    async def send(
        self, requests: list[dict[str, Any]], headers: dict[str, Any], before_the_end: Callable[[], None]
    ) -> MessageBatch:
        """Sends a batch, once. `before_the_end` is called before the last byte of it, which makes it one.

        Raises:
            Lost: it may have arrived, or not.
            NotSent: it has not arrived.
            anthropic.APIStatusError: it was refused.
        """
        from anthropic import APIStatusError

        from llmnb.jobs.batches.upload import Upload

        upload = Upload(before_the_end)
        made: Any = self._once.with_middleware(upload).messages.batches.create
        try:
            return await made(requests=requests, extra_headers=headers or None)
        except APIStatusError as error:
            if error.status_code not in (408, 409) and error.status_code < 500:
                raise
            raise Lost(error, is_refused=_is_refused(error)) from None
        except Exception as error:  # no connection, or no answer that can be read
            if upload.is_whole:
                raise Lost(error) from None
            raise NotSent(upload.trouble or error) from None

    async def newest(self) -> str:
        """The id of the batch that was made last; empty where there is none. What is made later comes before it."""
        page = await self._client.messages.batches.list(limit=1)
        return page.data[0].id if page.data else ""

    async def find(self, note: Note, taken: Collection[str]) -> MessageBatch | None:
        """The batch at the API that is most likely the one that was noted and whose id is not known, or None.

        The list tells no more of a batch than when it was made and how many requests it has; whether it is the right
        one, its results will tell. `taken` are ids that are known to be others'.
        """
        found: MessageBatch | None = None
        async for batch in self._client.messages.batches.list(limit=_PAGE):
            # the second where the batch that was newest then is gone
            if batch.id == note.before or batch.created_at.timestamp() < note.intended - SKEW_S:
                break
            counts = batch.request_counts.model_dump()
            if sum(int(count) for count in counts.values()) == note.requests and batch.id not in taken:
                found = batch  # the oldest of them
        return found

    async def first_row(self, batch_id: str) -> str | None:
        """The `custom_id` of one of the requests of a batch that has ended; nothing is booked of it."""
        plain = self._client.copy(middleware=[])
        async with plain.messages.batches.with_streaming_response.results(batch_id) as response:
            begun = b""
            async for chunk in response.iter_bytes():
                begun += chunk
                if b"\n" in begun:
                    break
        return json.loads(begun.partition(b"\n")[0])["custom_id"] if begun.strip() else None

    async def check(self, body: dict[str, Any]) -> None:
        """Has the API say now what it would say hours later of every request: that it knows no such key or model.

        Raises:
            anthropic.APIStatusError: it does not.
        """
        from anthropic import APIError, APIStatusError

        count: Any = self._client.messages.count_tokens
        known = inspect.signature(count).parameters
        try:
            await count(**{name: value for name, value in body.items() if name in known})
        except APIStatusError as error:
            if error.status_code in (401, 403, 404):
                raise
        except APIError:  # no word against the batch
            return

    # Waiting ----------------------------------------------------------------------------------------------------------

    async def look(self, batch_id: str) -> MessageBatch:
        """A batch as it is now."""
        return await self._client.messages.batches.retrieve(batch_id)

    async def cancel(self, batch_id: str) -> MessageBatch:
        """Has what is not processed yet cancelled."""
        return await self._client.messages.batches.cancel(batch_id)

    # Results ----------------------------------------------------------------------------------------------------------

    async def results(self, batch_id: str) -> AsyncGenerator[dict[str, Any]]:
        """The lines of the results as they come. After a broken connection they come again, from the first.

        Raises:
            anthropic.APIError: they cannot be had.
        """
        import httpx2
        from anthropic import APIConnectionError

        wait_s = FIRST_POLL_S
        for left in reversed(range(_READ_TRIES)):
            try:
                async with self._client.messages.batches.with_streaming_response.results(batch_id) as response:
                    rest = b""
                    async for chunk in response.iter_bytes():
                        # by the byte: a JSON text may hold what Unicode takes for the end of a line
                        *lines, rest = (rest + chunk).split(b"\n")
                        for line in lines:
                            yield json.loads(line)
                    if rest.strip():
                        yield json.loads(rest)
                return
            except (httpx2.RequestError, APIConnectionError):
                if not left:
                    raise
                await sleep(wait_s)
                wait_s = min(wait_s * 2, LONGEST_POLL_S)


def _is_refused(error: Any) -> bool:
    """Whether the API itself says that a request failed, and not somebody on the way who waited too long for it."""
    told: Any = error.body
    known = isinstance(told, dict) and isinstance(cast("dict[str, Any]", told).get("error"), dict)
    return known and error.status_code in (409, 500, 503, 529)


def told_wait_s(error: Any) -> float | None:
    """How long the API asks to wait, in seconds, where it does."""
    headers: Any = getattr(getattr(error, "response", None), "headers", None) or {}
    for name, scale in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        told = cast("str | None", headers.get(name))
        try:
            if told is not None and float(told) >= 0:
                return float(told) / scale
        except ValueError:  # a date
            continue
    return None


def facts_of(batch: MessageBatch) -> dict[str, Any]:
    """What is noted of a batch as the API shows it."""
    facts: dict[str, Any] = {
        "id": batch.id,
        "created": batch.created_at.timestamp(),
        "expires": batch.expires_at.timestamp(),
        "stage": "sent",
    }
    if batch.processing_status == "ended":
        counts = {name: int(count) for name, count in batch.request_counts.model_dump().items()}
        facts |= {"stage": "ended", "ended": _seconds(batch.ended_at), "counts": counts}
    return facts


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()


FINAL = (400, 401, 403, 404)
"""Statuses that asking again does not change."""


def raise_final(error: Exception, note: Note) -> None:
    """Raises an error that asking again does not change, with what to do where a batch cannot be found."""
    status = getattr(error, "status_code", None)
    if status == 404:
        error.add_note(
            f"llmnb: the batch {note.id} is not to be found with this key. It may belong to another workspace; or it "
            f"was deleted: `llmnb batches forget {note.id}` has its rows asked again, and paid again."
        )
    if status in FINAL:
        raise error


def no_longer_kept(note: Note) -> InvalidRequest:
    """The error of a batch that has ended, and whose results the API has thrown away."""
    return InvalidRequest(
        f"the API keeps the results of a batch for 29 days, and has no longer those of {note.id}: "
        f"`llmnb batches forget {note.id}` has its rows asked again, and paid again. Nothing was sent."
    )


def unknown(note: Note) -> str:
    """What is said of the rows of a batch whose sending was cut off, and which the API does not show."""
    when = datetime.fromtimestamp(note.intended).astimezone().strftime("%Y-%m-%d %H:%M")
    return (
        f"not known whether it was sent: the sending of its batch was cut off ({note.cut_off or 'the process ended'}, "
        f"{when}), and the API's list does not show it. The same call looks for it again. If you are sure that it is "
        f"not there, `llmnb batches forget {note.name}` has its rows sent, and paid again should it be there after all."
    )
