"""A run: asks the rows of a frame that are not finished, so many at a time, and writes each down when it is.

A row is known by what it asks (`Row.key`), and a run by what all its rows have in common: model, settings, template,
schema, server. So rows may be added, sorted or changed between two runs of a cell, and only what is new is asked; equal
rows are asked once; and with another template or model it is another run.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llmnb.errors import BudgetExceeded, MissingKey, SettingsError
from llmnb.jobs.ahead import Ahead
from llmnb.jobs.asking import Outcome, Row, asked, key_of, message_of
from llmnb.jobs.garbage import looked_for_less_often
from llmnb.jobs.keys import Keys
from llmnb.jobs.results import Results

if TYPE_CHECKING:
    from llmnb.asking.question import Question
    from llmnb.asking.shape import Shape
    from llmnb.jobs.cluster.crew import Crew
    from llmnb.jobs.purse import Purse

_COUNTED = ("kept", "done", "cached", "failed", "cost_nanousd", "unpriced", "saved_nanousd")
_TELLS_EVERY_S = 0.25
_PASSED_OVER = 500
"""So many rows, if they are finished, are passed over before the event loop gets a turn."""
_HOPELESS = 8
"""When so many rows failed at no cost, all in one way, and none was answered, the rest would, too."""


@dataclass(frozen=True, slots=True)
class Status:
    """How far a run is. Rows that ask the same are counted each; `cost_nanousd` is that of this time, and
    `saved_nanousd` what the API's prompt cache saved of it. While an iterator is read, `is_counted` is False, and
    `rows` are those that have come. `held` rows are held back, for the account's limit `held_for`.
    """

    rows: int
    kept: int = 0
    done: int = 0
    cached: int = 0
    failed: int = 0
    cost_nanousd: int = 0
    unpriced: int = 0
    saved_nanousd: int = 0
    seconds: float = 0.0
    first_error: str = ""
    is_counted: bool = True
    held: int = 0
    held_for: str = ""
    is_over: bool = False

    @property
    def left(self) -> int:
        """Rows that are not finished."""
        return self.rows - self.kept - self.done


class Run:
    """The work of one call of `map`. `keys` are those of the rows, in their order, once it is over."""

    def __init__(
        self,
        prompts: Iterable[Any],
        rows: int | None,
        results: Results,
        question: Callable[[Row], Question],
        *,
        concurrency: int,
        shape: Shape | None,
        retries: int,
        fresh: bool = False,
        failed_again: bool = False,
        raises: bool = False,
        purse: Purse | None = None,
        warms: bool = False,
        held: Callable[[], tuple[int, str]] = lambda: (0, ""),
        crew: Crew | None = None,
    ) -> None:
        self.keys = Keys()
        self._prompts = prompts
        self._ahead = Ahead(prompts, concurrency)
        self._passed = 0
        self._results = results
        results.seen = self.keys.__iter__
        self._question = question
        self._concurrency = concurrency
        self._shape, self._retries = shape, retries
        self._fresh, self._failed_again, self._raises = fresh, failed_again, raises
        self._counts = dict.fromkeys(_COUNTED, 0)
        self._rows = rows
        self._purse = purse
        self._warms = warms
        self._held = held
        self._crew = crew
        self._first_error = ""
        self._began = time.monotonic()
        self._asking: dict[bytes, int] = {}  # how many rows wait for what this one becomes
        self._hopeless: Counter[str] = Counter()
        self._is_hopeful = False
        self._fatal: Exception | None = None

    @property
    def status(self) -> Status:
        """How far it is now."""
        seconds = time.monotonic() - self._began
        rows = len(self.keys) if self._rows is None else self._rows
        is_counted = self._rows is not None
        held, held_for = self._held()
        return Status(
            rows,
            **self._counts,
            seconds=seconds,
            first_error=self._first_error,
            is_counted=is_counted,
            held=held,
            held_for=held_for,
        )

    @property
    def way_back(self) -> str:
        """What whoever stops it should know besides what is kept."""
        return ""

    def facts(self, key: bytes) -> dict[str, Any]:
        """What became of a row, now or before."""
        known = self._results.known(key)
        if known.is_left:
            return {"error": self._results.left(key), **_UNASKED}
        facts = self._results.facts(key, known)
        return _LOST if facts is None else facts

    def finished(self, key: bytes) -> dict[str, Any] | None:
        """The same while the run goes on: None of a row that is still to be asked."""
        return None if key in self._asking else self.facts(key)

    async def work(self) -> AsyncGenerator[Status]:
        """Does all of it, and tells now and then how far it is. What is finished stays, however this ends.

        Raises:
            Exception: what makes all rows fail, such as a missing key; the first error, if errors are to be raised; or
                what the iterator raised that gives the rows, when those before are answered.
        """
        try:
            with looked_for_less_often():
                if self._warms:  # the first goes alone, for the others to read from the prompt cache what it writes
                    async for status in self._at_work([self._worker(most=1)]):
                        yield status
                async for status in self._at_work([self._worker() for _ in range(self._concurrency)]):
                    yield status
            self._see_the_end()
        finally:
            self._ahead.close()
            if self._crew is not None:
                await self._crew.close()
            self._results.close()

    async def _at_work(self, work: list[Coroutine[Any, Any, None]]) -> AsyncGenerator[Status]:
        workers = [asyncio.ensure_future(one) for one in work]
        try:
            pending = set(workers)
            while pending:
                done, pending = await asyncio.wait(pending, timeout=_TELLS_EVERY_S, return_when=asyncio.FIRST_EXCEPTION)
                for worker in done:
                    worker.result()
                if self._fatal is not None:
                    raise self._fatal
                yield self.status
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    async def _worker(self, most: int | None = None) -> None:
        asked_rows = 0
        while asked_rows != most and (row := await self._next()) is not None:
            await self._ask(row)
            asked_rows += 1

    async def _ask(self, row: Row) -> None:
        question = self._question(row)
        held = 0
        if self._purse is not None:
            taken = await self._purse.take(question)
            if taken is None:
                self._leave(row, self._purse.is_empty)
                return
            held = taken
        if self._crew is None:
            outcome = await asked(question, self._shape, self._retries)
        else:

            async def again() -> bool:
                """Whether the row may be asked once more: what a lost worker spent of the purse is gone."""
                nonlocal held
                if self._purse is None:
                    return True
                self._purse.settle(held, None)
                taken = await self._purse.take(question)
                held = taken or 0
                return taken is not None

            outcome = await self._crew.ask(row, again)
            if outcome is None:
                self._leave(row, "its worker was lost, and to ask it again could cost more than is left of budget_usd")
                return
        if self._purse is not None:  # if that was stopped, the run is, too
            self._purse.settle(held, outcome.facts["cost_nanousd"])
        self._finish(row, outcome)

    def _leave(self, row: Row, told: str) -> None:
        """A row is not asked this time, and is the next."""
        self._results.leave(row.key, told)
        self._count_failure(None, told, self._asking.pop(row.key))

    async def _next(self) -> Row | None:
        """The next row to ask; None when there is none any more."""
        while self._fatal is None:
            if self._passed == _PASSED_OVER:
                self._passed = 0
                await asyncio.sleep(0)
            made = self._ahead.take()
            if made is None:
                if not await self._ahead.wait():
                    break
                continue
            self._passed += 1  # from here on nobody else has a turn: the rows are noted in their order
            if isinstance(made, Exception):
                self._refuse(made)
            elif self._is_to_be_asked(made):
                return made
        return None

    def _see_the_end(self) -> None:
        """All rows have come.

        Raises:
            Exception: what their iterator ended with.
        """
        self._ahead.check()
        self._rows = len(self.keys)

    def _is_to_be_asked(self, row: Row) -> bool:
        key = row.key
        known = self._results.see(key)
        self.keys.append(key, is_first=not known.is_seen)
        if key in self._asking:
            self._asking[key] += 1
        elif known.is_left or known.is_new:
            self._counts["done"] += 1
            self._counts["failed"] += known.is_left or known.has_failed
        elif not self._fresh and known.is_finished(but_failed=self._failed_again):
            self._counts["kept"] += 1
            self._counts["failed"] += known.has_failed
        else:
            self._asking[key] = 1
            return True
        return False

    def _refuse(self, error: Exception) -> None:
        told = f"{type(error).__name__}: {error}"
        key = key_of(["not asked", told])
        self.keys.append(key, is_first=not self._results.see(key).is_seen)
        self._results.leave(key, told)
        self._count_failure(error, told, 1)

    def _finish(self, row: Row, outcome: Outcome) -> None:
        self._results.add(row.key, outcome.state, {"at": row.number, "prompt": row.beginning, **outcome.facts})
        rows = self._asking.pop(row.key)
        failed = "error" in outcome.facts
        self._counts["cached"] += rows * (outcome.facts.get("source") == "cache")
        cost = outcome.facts["cost_nanousd"]
        self._counts["cost_nanousd"] += cost or 0
        self._counts["unpriced"] += cost is None
        self._counts["saved_nanousd"] += outcome.facts["saved_nanousd"]
        if failed:
            self._count_failure(outcome.error, outcome.facts["error"], rows)
        else:
            self._counts["done"] += rows
        self._look_for_hope(outcome)

    def _count_failure(self, error: Exception | None, told: str, rows: int) -> None:
        self._counts["done"] += rows
        self._counts["failed"] += rows
        self._first_error = self._first_error or told
        if self._raises and error is not None and self._fatal is None:
            self._fatal = error

    def _look_for_hope(self, outcome: Outcome) -> None:
        """Ends the run for what all rows will fail with; what is finished is kept, and nothing more is spent."""
        error = outcome.error
        if outcome.state != "free" or error is None:
            self._is_hopeful = True
        elif _is_of_the_row(error):
            return
        elif isinstance(error, (MissingKey, SettingsError, BudgetExceeded)) or _status_of(error) in _ALL:
            self._fatal = self._fatal or error
        elif not self._is_hopeful:
            self._hopeless[_said(error)] += 1
            if self._hopeless[_said(error)] == _HOPELESS:
                error.add_note(
                    f"llmnb: the first rows all failed so ({_HOPELESS} of them), and the others were not asked."
                )
                self._fatal = self._fatal or error


def _status_of(error: Exception) -> int | None:
    return getattr(error, "status_code", None)


def _is_of_the_row(error: Exception) -> bool:
    """Whether it is refused for what this row says, and not for what all rows have in common."""
    return _status_of(error) == _TOO_LARGE or (
        _status_of(error) == 400 and _OF_THE_ROW.search(_said(error)) is not None
    )


def _said(error: Exception) -> str:
    """An error without what differs between requests."""
    message = message_of(error)
    return f"{type(error).__name__}: {error if message is None else message}"


_UNASKED: dict[str, Any] = {"cost_nanousd": 0, "input_tokens": 0, "output_tokens": 0}
_LOST: dict[str, Any] = {
    "error": "its answer is lost: the file of the run was changed meanwhile. The same call asks it again.",
    "cost_nanousd": None,
    "input_tokens": None,
    "output_tokens": None,
}
_ALL = (401, 403, 404)
"""Statuses of the API that every row would get: no key, no right, no such model."""
_TOO_LARGE = 413
_OF_THE_ROW = re.compile(r": messages\.|too long|context.length|could not process", re.IGNORECASE)
"""How the API, and those compatible with it, refuse a prompt: by its path in the request, its length, or a picture."""
