"""What the workers of a run leave for each other in the response cache of all: that a row was begun, what became of it.

Dask gives what a lost worker had to do to another one, and tells nobody. By these notes the other one knows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from llmnb.cache.backends import Backend, Item
from llmnb.trouble import quietly

_TTL_S = 86_400.0
"""For what nobody takes away, because the driver was killed. A cluster that shrinks may let a row wait for hours."""
_BEGUN = b"{}"


@dataclass(frozen=True)
class Before:
    """What another worker left of a row: that it began, or what became of it, too; and whether that is an error."""

    is_begun: bool = False
    facts: dict[str, Any] | None = None
    failed: bool = False


class Handed:
    """The notes of one run. What goes wrong here is as if there were none, and one warning says so."""

    def __init__(self, backend: Backend, run: str) -> None:
        self._backend = backend
        self._run = run

    def begin(self, row: str) -> Before:
        """Notes that a row is asked; what was noted before. Then nothing is changed."""
        try:
            kept = self._backend.get(self._name(row))
            if kept is None:
                self._backend.put([Item(self._name(row), _BEGUN, _TTL_S)])
                return Before()
            if kept == _BEGUN:
                return Before(is_begun=True)
            facts, failed = json.loads(kept)
            return Before(is_begun=True, facts=facts, failed=failed)
        except Exception as trouble:
            quietly("looking what another worker left of a row", trouble, but="it is asked")
            return Before()

    def hand_in(self, row: str, facts: dict[str, Any], *, failed: bool = False) -> None:
        """Notes what became of a row, for the case that this worker is lost before the driver has heard of it."""
        try:
            self._backend.put([Item(self._name(row), json.dumps([facts, failed]).encode(), _TTL_S)])
        except Exception as trouble:
            quietly("noting a row for other workers", trouble, but="it is asked again if this worker is lost now")

    def forget(self, rows: Iterable[str]) -> None:
        """Forgets rows of which the driver has heard."""
        try:
            self._backend.delete([self._name(row) for row in rows])
        except Exception as trouble:
            quietly("removing notes of finished rows", trouble, but="they are removed tomorrow")

    def _name(self, row: str) -> str:
        return f":{self._run}:{row}"  # no name of an answer begins so
