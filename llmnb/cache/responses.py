"""The response cache of a process: finds answers, keeps new ones a moment later, and never raises.

An answer that has just come is found in memory until it is written; a thread writes what came together. What fails in
here (no disk, a damaged file, a server gone) is a miss: the call goes on live, one warning says why, and the place is
left alone for a while, so that not every call runs into the same trouble.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from llmnb import forks
from llmnb.cache.backends import Backend, Item, Pickled, open_backend
from llmnb.cache.flights import Flight, Flights
from llmnb.cache.stored import StoredAnswer, Unreadable, stored
from llmnb.cache.threads import Threads, end_of, thread_name
from llmnb.errors import MissingExtra
from llmnb.keys import Turn
from llmnb.later import Later
from llmnb.settings import Settings, load
from llmnb.trouble import LlmnbWarning, warn_once_of

INLINE_BYTES = 8_192
"""A request longer than that is kept apart from its answer, so that a hit need not read the pictures in it."""

TOUCH_EVERY_S = 3_600.0
"""The use of an entry is noted at most that often by one process."""

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 60.0
"""After a failure the place is left alone, twice as long each time it fails again."""

CLOCK_SKEW_US = 60_000_000
"""An answer that seems to come from later than this says nothing of its age: the clock went back."""


@dataclass(eq=False)  # not frozen: to fill frozen fields one by one takes three times as long
class Arrived:
    """A response that has come, to be looked at by whoever needs it first: the writer, or the next who asks.

    `body` gives the decoded body and `headers` what came with it; `request` gives the question as JSON.
    """

    key: str
    model_requested: str
    provider: str
    request: Callable[[], bytes]
    body: Callable[[], bytes]
    created_us: int
    headers: Callable[[], Iterable[tuple[str, str]]] = tuple
    status: int = 200
    ttl_s: float | None = None
    flight: Flight | None = None
    turn: Turn | None = None

    @cached_property
    def answer(self) -> StoredAnswer | None:
        """The answer in it; None when that is not whole, an error, or a refusal."""
        expires_us = None if self.ttl_s is None else self.created_us + int(self.ttl_s * 1e6)
        return stored(
            self.body(),
            model_requested=self.model_requested,
            created_us=self.created_us,
            status=self.status,
            headers=self.headers(),
            provider=self.provider,
            key=self.key,
            expires_us=expires_us,
            request=self.request(),
        )


class _Rest:
    """When something failed it is left alone for a while, twice as long each time it fails again."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._not_before = 0.0
        self.pause_s = 0.0
        """How long it is left alone after its last failure; 0 when it works."""

    @property
    def is_on(self) -> bool:
        """Whether it is left alone now."""
        return self.pause_s > 0 and self._monotonic() < self._not_before

    def begin(self) -> None:
        """It has failed."""
        self.pause_s = min(LONGEST_PAUSE_S, self.pause_s * 2 or FIRST_PAUSE_S)
        self._not_before = self._monotonic() + self.pause_s

    def end(self) -> None:
        """It has worked."""
        self.pause_s = 0.0


class ResponseCache:
    """Answers by key, in the place that `opened` gives on first use."""

    def __init__(
        self,
        opened: Callable[[], Backend],
        *,
        remote: bool = False,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`remote`: the place is on another machine, for which what is written on this one does not wait."""
        self._opened = opened
        self._remote = remote
        self._backend: Backend | None = None
        self._clock = clock
        self._monotonic = monotonic
        self.flights = Flights(self._claim, self._renew, self._release)
        self.at_once = 0
        """How many want an answer written before its call goes on, and not a moment later."""
        self._begin()
        forks.tell(self)

    def _begin(self) -> None:
        self._arrived: dict[str, Arrived] = {}
        self.threads = Threads(self._read)
        self._unclaimed: deque[str] = deque()
        self._unwanted: deque[str] = deque()
        self._used: dict[str, float] = {}
        self._to_touch: set[str] = set()
        self._no_reading = _Rest(self._monotonic)  # apart: what cannot be written may be read all the same
        self._no_writing = _Rest(self._monotonic)
        self._writing = threading.RLock()
        self._later = Later(self._write, apart=self._remote)
        self._unsaid: deque[tuple[str, str]] = deque()  # warnings of the writing thread, for the user's to say

    @property
    def backend(self) -> Backend:
        """The place; raises what it raises."""
        if self._backend is None:
            self._backend = self._opened()
        return self._backend

    # Finding ----------------------------------------------------------------------------------------------------------

    def find(self, key: str, *, ttl_s: float | None = None) -> StoredAnswer | None:
        """The answer under a key that is not older than `ttl_s` seconds; None when there is none, or on any trouble."""
        if self._unsaid:
            self._say()
        if (arrived := self._arrived.get(key)) is not None and arrived.answer is not None:
            return arrived.answer
        data = self._read(key)
        answer = None if data is None else self._decoded(key, data)
        if answer is None or not self._is_fresh(answer, ttl_s):
            return None
        self._note_use(key)
        return answer

    def just_now(self, key: str) -> StoredAnswer | None:
        """The answer under a key that has come so lately that it is not written yet."""
        arrived = self._arrived.get(key)
        return None if arrived is None else arrived.answer

    def _read(self, key: str) -> bytes | None:
        rest = self._no_reading
        if rest.pause_s and rest.is_on:
            return None
        try:
            data = (self._backend or self.backend).get(key)
        except Pickled as error:
            self._discard(key, error)
            return None
        except Exception as error:
            self._failed(error, rest)
            return None
        if rest.pause_s:
            rest.end()
        return data

    def _decoded(self, key: str, data: bytes) -> StoredAnswer | None:
        try:
            answer = StoredAnswer.decoded(data)
            if answer.key != key:
                raise Unreadable("it is the answer to another question")
        except Unreadable as error:
            self._discard(key, error)
            return None
        return answer

    def _is_fresh(self, answer: StoredAnswer, ttl_s: float | None) -> bool:
        if ttl_s is None and answer.expires_us is None:
            return True
        now_us = self.now_us()
        if answer.created_us > now_us + CLOCK_SKEW_US:
            self._warn(
                "cache clock",
                "the clock of this machine went back, or another's goes ahead: an answer in the response cache seems "
                "to come from later than now. Its age cannot be told, so what has a ttl is asked again.",
            )
            return False
        expired = answer.expires_us is not None and now_us >= answer.expires_us
        return not expired and (ttl_s is None or now_us - answer.created_us <= ttl_s * 1e6)

    def _note_use(self, key: str) -> None:
        now = self._monotonic()
        if now - self._used.get(key, -TOUCH_EVERY_S) >= TOUCH_EVERY_S:
            self._used[key] = now
            self._to_touch.add(key)
            self._later.ask()

    # Keeping ----------------------------------------------------------------------------------------------------------

    def keep(self, arrived: Arrived) -> None:
        """Keeps the answer in a response, if there is one, in place of an older one; written a moment later."""
        self._arrived[arrived.key] = arrived
        if arrived.turn is not None:
            self.threads.coming(arrived.turn, lambda: arrived.answer)
        if self.at_once:
            self._write()
        else:
            self._later.ask()

    def now_us(self) -> int:
        """The time, in microseconds since 1970."""
        return int(self._clock() * 1e6)

    def settle(self) -> None:
        """Writes now what waits."""
        self._write()
        self._say()

    def close(self) -> None:
        """Writes what waits, and lets go of files and connections."""
        self.settle()
        if self._backend is not None:
            with suppress(Exception):
                self._backend.close()

    def _write(self) -> None:
        with self._writing:
            arrived = list(self._arrived.values())
            try:
                if arrived or self._unwanted or self._to_touch:
                    self._put(arrived)
            finally:
                for one in arrived:
                    if self._arrived.get(one.key) is one:
                        del self._arrived[one.key]
                self._free([one.flight.key for one in arrived if one.flight is not None and one.flight.lands()])

    def _put(self, arrived: list[Arrived]) -> None:
        if self._no_writing.is_on:
            return
        try:
            self._forget_unwanted()
            if arrived:
                self.backend.put(item for one in arrived for item in items(one))
            touched, self._to_touch = self._to_touch, set()
            if touched:
                self.backend.touch([*touched, *map(request_name, touched)])
            self._no_writing.end()
        except Exception as error:
            self._failed(error, self._no_writing)

    def _forget_unwanted(self) -> None:
        unwanted: list[str] = []
        while self._unwanted:
            unwanted.append(self._unwanted.popleft())
        if unwanted:
            self.backend.delete(unwanted)

    def _free(self, names: list[str]) -> None:
        """Lets other processes ask what these names stand for, and what was given up meanwhile."""
        while self._unclaimed:
            names.append(self._unclaimed.popleft())
        if names:
            with suppress(Exception):
                self.backend.release(names)

    # Other processes --------------------------------------------------------------------------------------------------

    def _claim(self, key: str) -> bool:
        if self._no_writing.pause_s and self._no_writing.is_on:
            return True
        try:
            return (self._backend or self.backend).claim(key)
        except Exception as error:
            self._failed(error, self._no_writing)
            return True

    def _renew(self, keys: Iterable[str]) -> None:
        with suppress(Exception):
            self.backend.renew(keys)

    def _release(self, key: str) -> None:
        self._unclaimed.append(key)  # not here and now: this may be a finalizer
        self._later.ask()

    # Trouble ----------------------------------------------------------------------------------------------------------

    def _discard(self, key: str, why: Exception) -> None:
        self._unwanted.append(key)
        self._later.ask()
        self._warn(
            f"cache entry: {type(why).__name__}",
            f"an entry of the response cache {self.place} cannot be used ({why}): it is removed, and what was asked "
            "is asked again.",
        )

    def _failed(self, error: Exception, rest: _Rest) -> None:
        rest.begin()
        if isinstance(error, MissingExtra):
            self._warn("cache extra", f"{error}. Until then nothing is cached.")
            return
        what = "read" if rest is self._no_reading else "written"
        self._warn(
            "cache",  # one trouble may have several sides
            f"the response cache {self.place} cannot be {what} ({error}): your calls go on, and what is not found "
            "in it is paid. It is tried again in a while; `llmnb doctor` checks the set-up.",
        )

    @property
    def place(self) -> str:
        """Where it is, as far as that is known already."""
        return "" if self._backend is None else self._backend.where

    def _warn(self, topic: str, message: str) -> None:
        self._unsaid.append((topic, message))
        if not self._later.is_here():
            self._say()

    def _say(self) -> None:
        if self._later.is_here():
            return
        troubles: list[tuple[str, str]] = []
        with suppress(IndexError):  # another thread says the rest
            while self._unsaid:
                troubles.append(self._unsaid.popleft())
        if troubles:
            with suppress(LlmnbWarning):  # the user may have turned warnings into errors, and this is no place for one
                warn_once_of(troubles)

    def after_fork(self) -> None:
        """Begins anew in a forked child."""
        self._begin()  # what waits is the parent's to write
        self._backend = None  # another thread may have been in the middle of using it
        self.flights.forget()


def items(arrived: Arrived) -> list[Item]:
    """What is kept of a response: nothing of one that is no answer."""
    answer = arrived.answer
    if answer is None:
        return []
    found: list[Item] = []
    if answer.request is not None and len(answer.request) > INLINE_BYTES:
        found.append(Item(request_name(arrived.key), answer.request, arrived.ttl_s))
        answer = replace(answer, request=None)
    if arrived.turn is not None and (end := end_of(arrived.turn, answer)) is not None:
        found.append(Item(thread_name(str(answer.message.get("id"))), end, arrived.ttl_s))
    found.append(Item(arrived.key, answer.encoded(), arrived.ttl_s))
    return found


def request_name(key: str) -> str:
    """The name under which the request of a key is kept when it is kept apart."""
    return f"{key}/request"


# One cache a process and place ----------------------------------------------------------------------------------------

_caches: forks.OnePerPlace[tuple[Any, ...], ResponseCache] = forks.OnePerPlace()


def responses(settings: Settings | None = None) -> ResponseCache:
    """The response cache of this process for the place that the settings name; nothing is opened before its use."""
    chosen = settings or load()
    place = (chosen.cache_url, chosen.cache_folder, chosen.cache_limit)
    is_remote = chosen.cache_url is not None
    return _caches.at(place, lambda: ResponseCache(lambda: open_backend(chosen), remote=is_remote))
