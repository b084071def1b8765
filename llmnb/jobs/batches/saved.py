"""`llmnb.batches()` and `llmnb.get_batch()`: the message batches of runs over rows, of this kernel and of others."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

from llmnb import settings as settings_room
from llmnb.asking.access import OurClients
from llmnb.asking.runner import from_loop_thread
from llmnb.errors import InvalidRequest
from llmnb.jobs.batches import service
from llmnb.jobs.batches.holding import Holding
from llmnb.jobs.batches.notes import Note, Notes, noted
from llmnb.jobs.batches.service import Service
from llmnb.jobs.batches.status import BatchStatus
from llmnb.ledger import frames, zones
from llmnb.middleware.batch_results import BatchFacts, remember
from llmnb.records import calling
from llmnb.trouble import quietly

if TYPE_CHECKING:
    import pandas as pd

    from llmnb.settings import Settings

T = TypeVar("T")

_KINDS: dict[str, frames.Kind] = {
    "batch_id": "text",
    "name": "text",
    "run_id": "text",
    "created": "time",
    "state": "text",
    "requests": "int",
    "succeeded": "int",
    "errored": "int",
    "expired": "int",
    "canceled": "int",
    "ended": "time",
    "expires": "time",
    "model": "text",
    "project": "text",
}
_COUNTS = ("succeeded", "errored", "expired", "canceled")
_STATES = {
    "intended": "unknown",
    "sent": "in progress",
    "ended": "ended",
    "read": "read",
    "dropped": "never sent",
}


def batches(*, refresh: bool = False) -> pd.DataFrame:
    """The message batches of `llm.map(via="batch")` that are kept here, the newest first.

    Args:
        refresh: ask the API about those that were in progress when that was last known. Without it no network is used.

    Returns:
        A row for each: `batch_id` (the API's; missing while it is not known), `name` (llmnb's own), `run_id`,
        `created`, `state` ("in progress"; "canceling"; "ended": its results are not rows yet; "read": they are;
        "unknown": its sending was cut off, and the same call of `llm.map` looks whether it arrived), `requests` and
        what became of them (missing before it has ended), `ended`, `expires`, `model` and `project`. Times are in the
        timezone of the settings.

    Raises:
        MissingKey, anthropic.APIError: with `refresh` only.
    """
    settings = settings_room.load()
    found = [note for note in noted(settings) if note.stage != "dropped"]
    found.sort(key=lambda note: note.created or note.intended, reverse=True)
    saved = [SavedBatch(note, settings) for note in found]
    for batch in saved:
        if refresh and batch.note.stage == "sent":
            batch.look()
    return frames.frame(_KINDS, [_row(batch) for batch in saved], zones.reporting_zone(settings))


def get_batch(batch_id: str) -> SavedBatch:
    """A message batch by its id, or llmnb's own name for it, or a beginning of them that no other batch has.

    A whole id may also be of a batch that llmnb did not send, of the same account.

    Raises:
        InvalidRequest: there is none, or there are several.
    """
    settings = settings_room.load()
    known = [note for note in noted(settings) if note.stage != "dropped"]
    found = [note for note in known if batch_id and any(name.startswith(batch_id) for name in _names(note))]
    exact = [note for note in found if batch_id in _names(note)]
    if len(exact or found) > 1:
        ids = ", ".join(note.id or note.name for note in found)
        raise InvalidRequest(f"several batches begin with {batch_id!r}: {ids}")
    if found:
        return SavedBatch((exact or found)[0], settings)
    if not batch_id.startswith("msgbatch_"):
        raise InvalidRequest(f"there is no batch {batch_id!r}: see llmnb.batches()")
    stranger = Note(name="", folder=settings.home, intended=0.0, requests=0, model="", server="", id=batch_id)
    return SavedBatch(replace(stranger, stage="sent"), settings)


class SavedBatch:
    """A message batch at the API. `state` and `counts` are as they were when it was last looked at (`look`)."""

    def __init__(self, note: Note, settings: Settings) -> None:
        self.note = note
        self._settings = settings
        self._is_canceling = False

    @property
    def id(self) -> str:
        """The API's id; where its sending was cut off, so that it is not known, llmnb's own name of it."""
        return self.note.id or self.note.name

    @property
    def run_id(self) -> str | None:
        """The run whose rows are in it; None of a batch that llmnb did not send."""
        return self.note.run_id if self.note.name else None

    @property
    def state(self) -> str:
        """As in `llmnb.batches()`."""
        return "canceling" if self._is_canceling else _STATES[self.note.stage]

    @property
    def counts(self) -> dict[str, int]:
        """How many requests succeeded, errored, expired and were canceled; empty before it has ended."""
        return {name: self.note.counts.get(name, 0) for name in _COUNTS} if self.note.counts else {}

    def look(self) -> SavedBatch:
        """Asks the API how far it is, and gives it as it is now."""
        for shown in self._at_the_api(lambda api: _once(api.look(self.id))):
            self._saw(shown)
        return self

    def wait(self, *, progress: bool = True) -> SavedBatch:
        """Waits until it has ended, and gives it as it is then; its rows come with the same call of `llm.map`.

        It may be stopped: the batch goes on.
        """
        module: Any = import_module("llmnb.display.run_progress")  # the display room stands above this one
        with module.progress(shown=progress) as told:
            for shown in self._at_the_api(self._polled):
                self._saw(shown)
                told(self._status())
            told(replace(self._status(), is_over=True))
        return self

    def cancel(self) -> SavedBatch:
        """Has it cancelled: what is processed by then is answered and billed, the rest is neither.

        That takes the API a while. The same call of `llm.map` then takes what was answered, and after that sends the
        rest.
        """
        for shown in self._at_the_api(lambda api: _once(api.cancel(self.id))):
            self._saw(shown)
        return self

    def results(self) -> Generator[tuple[str, dict[str, Any]]]:
        """Its results as they come: the `custom_id` of each request, and the API's word on it as plain JSON.

        Each message is on the books then, once, however often this is called.

        Raises:
            InvalidRequest: it has not ended, or its results are no longer there (29 days after it was made).
            anthropic.APIError: they cannot be had.
        """
        from anthropic import AnthropicError, APIError

        try:
            for line in self._at_the_api(lambda api: api.results(self.id)):
                yield str(line["custom_id"]), line["result"]
        except APIError:
            raise
        except AnthropicError:  # the API names no place where they are
            raise InvalidRequest(self._without_results()) from None

    def _without_results(self) -> str:
        if self.look().state not in ("in progress", "canceling"):
            return f"the results of {self.id} are no longer there: the API keeps them for 29 days"
        return f"{self.id} has not ended, and has no results before: `llmnb batches wait {self.id}` waits for them"

    def forget(self) -> None:
        """Forgets it here, such as one that was deleted at the API: its rows are asked again, and paid again."""
        if not self.note.name:
            raise InvalidRequest(f"{self.id} is none of llmnb's batches: there is nothing to forget")
        notes = Notes(self.note.folder)
        self.note = notes.tell(self.note, stage="dropped")
        self.note.requests_path.unlink(missing_ok=True)
        Holding(self._access().sync(), self.note.model).let_go(self.note.name)

    # ------------------------------------------------------------------------------------------------------------------

    def _saw(self, shown: Any) -> None:
        facts = service.facts_of(shown)
        self._is_canceling = shown.processing_status == "canceling"
        remember(self.id, BatchFacts(round(facts["created"] * 1e6), self.note.model or None))
        if self.note.stage == "read":
            return
        counts = {name: int(count) for name, count in shown.request_counts.model_dump().items()}
        self.note = replace(self.note, **facts, requests=sum(counts.values()))
        if self.note.name and self.note.stage == "ended":
            notes = Notes(self.note.folder)
            try:
                if notes.all[self.note.name].stage == "sent":
                    notes.tell(self.note, **facts)
            except OSError as trouble:
                quietly("noting that a batch has ended", trouble, but="the API is asked again")

    async def _polled(self, api: Service) -> AsyncGenerator[Any]:
        pause_s = service.FIRST_POLL_S
        while True:
            shown = await api.look(self.id)
            yield shown
            if shown.processing_status == "ended":
                return
            await service.sleep(pause_s)
            pause_s = min(pause_s * service.POLL_GROWTH, service.LONGEST_POLL_S)

    def _status(self) -> BatchStatus:
        note = self.note
        is_over = note.stage != "sent"
        waiting = () if is_over else (self.id,)
        done = note.requests if is_over else 0
        return BatchStatus(
            note.requests,
            done=done,
            failed=done - note.counts.get("succeeded", 0) if is_over else 0,
            seconds=max(0.0, (note.ended or service.clock.now()) - (note.created or 0.0)),
            waiting=waiting,
            sent=0 if is_over else note.requests,
            waited_s=max(0.0, service.clock.now() - (note.created or 0.0)),
            ends_by=note.expires,
            succeeded=note.counts.get("succeeded", 0),
            errored=note.counts.get("errored", 0),
            expired=note.counts.get("expired", 0),
            canceled=note.counts.get("canceled", 0),
        )

    def _access(self) -> OurClients:
        from llmnb.jobs.mapping import shown_address  # which has batches sent

        access, server = OurClients(self._settings), self.note.server
        if not server or shown_address(access.sync().base_url) == server:
            return access
        return OurClients(self._settings, server)

    def _at_the_api(self, asked: Callable[[Service], AsyncGenerator[T]]) -> Generator[T]:
        if self.note.id is None:
            raise InvalidRequest(
                f"the sending of the batch {self.id} was cut off, and its id at the API is not known: the same call of "
                f"llm.map looks for it there. `llmnb batches forget {self.id}` has its rows sent again."
            )
        access = self._access()
        labels = {"run_id": self.run_id, "project": self.note.project} if self.note.name else {}

        async def events() -> AsyncGenerator[T]:
            from anthropic import APIStatusError

            with calling(**labels):
                try:
                    async for event in asked(Service(access.on_loop_thread())):
                        yield event
                except APIStatusError as error:
                    if self.note.name:
                        service.raise_final(error, self.note)
                    raise

        yield from from_loop_thread(events)

    def __repr__(self) -> str:
        counts = "".join(f", {count:,} {name}" for name, count in self.counts.items() if count)
        return f"<batch {self.id}, {self.state}: {self.note.requests:,} requests{counts}>"


async def _once(asked: Any) -> AsyncGenerator[Any]:
    yield await asked


def _names(note: Note) -> tuple[str, ...]:
    return (note.name,) if note.id is None else (note.id, note.name)


def _row(batch: SavedBatch) -> list[Any]:
    note = batch.note
    counts = [note.counts.get(name) for name in _COUNTS]
    times = [None if moment is None else int(moment * 1e6) for moment in (note.ended, note.expires)]
    created = int((note.created or note.intended) * 1e6)
    return [
        note.id,
        note.name,
        note.run_id,
        created,
        batch.state,
        note.requests,
        *counts,
        *times,
        note.model,
        note.project,
    ]
