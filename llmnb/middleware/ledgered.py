"""What all calls of one wrapped client share: where their rows go, who asks, and the uids that tell them apart."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import Any, Protocol

from llmnb import forks, origin
from llmnb.ledger.answered import AnsweredCall, UnbilledCall
from llmnb.ledger.beginning import Origin
from llmnb.records import Call, CallContext
from llmnb.settings import Settings


class Recorder(Protocol):
    """The books of the ledger: told of each call that begins and of each row; never raises."""

    def begin(self, call: Mapping[str, Any], origin: Origin | None = None) -> None:
        """A call is sent; these fields of its row are known, and `origin` has those that it shares with others."""
        ...

    def answered(self, call: AnsweredCall) -> None:
        """A call that was told of when it began has been answered, in one piece."""
        ...

    def record(self, call: Call, children: tuple[Call, ...] = ()) -> None:
        """The row of a call as it is now."""
        ...

    def unbilled(self, call: UnbilledCall) -> None:
        """A call was answered from disk; a process that is killed at once loses it, and no money."""
        ...


@dataclass(frozen=True)
class Ledgered:
    """What all calls of one wrapped client share."""

    books: Recorder
    settings: Settings
    provider: str = "anthropic"
    project: str | None = None
    tag: str | None = None
    _origins: dict[tuple[object, ...], Origin] = field(default_factory=dict[tuple[object, ...], Origin], compare=False)
    _latest: list[tuple[CallContext, tuple[object, ...], Origin]] = field(
        default_factory=list[tuple[CallContext, tuple[object, ...], Origin]], compare=False
    )

    @cached_property
    def user(self) -> str | None:
        """Who asks."""
        return origin.user(self.settings)

    @cached_property
    def notebook(self) -> str | None:
        """From where."""
        return origin.notebook(self.settings)

    def origin(self, context: CallContext, model: str, *, stream: bool) -> Origin:
        """What a call of this model has in common with others of the same cell and context."""
        asked = forks.pid, origin.cell(), model, stream
        for context_before, asked_before, found in self._latest:
            if context_before is context and asked_before == asked:
                return found
        labels = _labels_of(context)
        try:
            found = self._origins.get((asked, labels))
        except TypeError:  # a label that is no text: what it is worth, the ledger will tell
            return self._new_origin(labels, model, stream)
        if found is None:
            if len(self._origins) >= _MOST_ORIGINS:
                self._origins.clear()
            self._origins[asked, labels] = found = self._new_origin(labels, model, stream)
        if context.on_end is None:  # else it would be kept from going, and what it tells as well
            self._latest[:] = [(context, asked, found)]
        return found

    def _new_origin(self, labels: tuple[Any, ...], model: str, stream: bool) -> Origin:
        known = dict(zip(_LABELS, labels, strict=True))
        known["project"] = known["project"] or self.project or self.settings.project
        known["tag"] = known["tag"] or self.tag
        return Origin(
            {
                **known,
                "session": origin.session(),
                "user": self.user,
                "notebook": self.notebook,
                "cell": origin.cell(),
                "provider": self.provider,
                "model_requested": model,
                "model": model,  # until an answer tells which model served
                "stream": stream,
            }
        )


_LABELS = ("parent_uid", "project", "chat", "run_id", "batch_id", "template", "tag")
_labels_of: Callable[[CallContext], tuple[Any, ...]] = attrgetter(*_LABELS)
_MOST_ORIGINS = 64


# The names of calls ---------------------------------------------------------------------------------------------------

_random = random.Random()  # noqa: S311 - a uid is no secret; the system's own takes a system call
"""Of our own: who seeds Python's, in a notebook that is to come out the same again, does not mean the ledger."""
_serial = itertools.count(_random.getrandbits(71))
"""The ends of uids, from a beginning that no other process has: to draw each anew, and write it, takes longer."""


def new_uid(now_us: int) -> str:
    """A uid of a call that begins now, in microseconds since 1970; later ones sort behind it."""
    return hex((now_us << 72) + next(_serial))[2:].rjust(32, "0")


def _begin_anew() -> None:
    global _serial
    _random.seed()
    _serial = itertools.count(_random.getrandbits(71))


forks.in_child(_begin_anew)
