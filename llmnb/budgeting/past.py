"""What earlier calls tell of the next one: how long answers of a model get in a project, and how long a thread is."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from llmnb.errors import StoreError
from llmnb.ledger import Store

ROWS = 10_000
"""How many of the newest rows of the ledger are looked at."""
CALLS = 100
"""How many calls it takes to speak of a 99th percentile: the next of a hundred exceeds all of them once in a hundred
times."""
FRESH_S = 60.0
UNKNOWN_FRESH_S = 5.0
"""How long what was read holds; where there were too few calls, there may soon be enough."""
_TURNS = 10_000
_SHARE = 0.99

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Usual:
    """The 99th percentile of what the calls of a model in a project read and wrote; None: too few, or cut off."""

    input_tokens: int | None = None
    output_tokens: int | None = None


UNKNOWN = Usual()


class Past:
    """What the ledger tells, read anew every minute, and the turns of threads that this process saw."""

    def __init__(self, ledger: Callable[[], Store], clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._clock = clock
        self._usual: dict[tuple[str, str | None], tuple[float, Usual]] = {}
        self._turns: OrderedDict[str, int] = OrderedDict()

    def of(self, model: str, project: str | None) -> Usual:
        """What is usual for a model in a project; nothing while the ledger cannot be read."""
        key, now = (model, project), self._clock()
        read_at, usual = self._usual.get(key, (-FRESH_S, UNKNOWN))
        if now - read_at >= (UNKNOWN_FRESH_S if usual is UNKNOWN else FRESH_S):
            with suppress(StoreError):  # what it said before is good enough
                usual = self._read(model, project)
            self._usual[key] = now, usual
        return usual

    def turn(self, message_id: str) -> int | None:
        """All tokens of the turn that ended with this message: what the model read and wrote."""
        return self._turns.get(message_id)

    def took(self, message_id: str, tokens: int) -> None:
        """Remembers a turn, in case its thread goes on."""
        self._turns[message_id] = tokens
        while len(self._turns) > _TURNS:
            with suppress(KeyError):  # another thread was quicker
                self._turns.popitem(last=False)

    def _read(self, model: str, project: str | None) -> Usual:
        with self._ledger().transaction(reading=True) as connection:
            rows = connection.execute(
                """
                SELECT output_tokens, stop_reason = 'max_tokens', input_tokens + cache_read_tokens
                    + cache_write_5m_tokens + cache_write_1h_tokens + cache_write_unsplit_tokens
                FROM calls NOT INDEXED WHERE id > (SELECT max(id) FROM calls) - ? AND model_requested = ?
                    AND project IS ? AND status = 'ok' AND source = 'live' AND is_call
                """,
                (ROWS, model, project),
            ).fetchall()
        if len(rows) < CALLS:
            return UNKNOWN
        # an answer that its max_tokens cut off says nothing of how long it would have been
        outputs = sorted((None if cut else output for output, cut, _ in rows), key=lambda n: (n is None, n or 0))
        return Usual(_nearest(sorted(total for *_, total in rows)), _nearest(outputs))


def _nearest(ordered: Sequence[T]) -> T:
    """The value that 99 of 100 do not exceed."""
    return ordered[min(len(ordered) - 1, int(_SHARE * len(ordered)))]
