"""What this process remembers of the prompts it sent: hashes and times, never text.

It tells how soon a prefix came again, whether the API still holds it, and, when one that should have been read from the
cache was not, what was different from the request before.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field

from llmnb import forks
from llmnb.messages.prompt_outline import Outline, Piece
from llmnb.middleware.balance import Balance
from llmnb.prompt_cache import TTL_S, Candidate, Change, Gaps, Kind, first_change
from llmnb.records import Usage

MOST_PREFIXES = 4_096
MOST_REQUESTS = 32
MOST_THREADS = 256
MOST_GAPS = 8.0
"""As how many gaps those seen so far count, so that a new habit soon outweighs an old one."""
_READ_ENOUGH = 0.9
"""A cache read of this share of what was cached before counts as whole: the API may drop old thinking in between."""
_ALIKE = 0.02
"""System prompts whose sizes differ by no more than this share are taken for versions of one."""


@dataclass(slots=True)
class Sent:
    """One request that was answered, and what the cache did with it once that is known.

    `breakpoints` are the pieces that bear one, with its TTL; `chat` is the label of its conversation.
    """

    outline: Outline
    scope: bytes
    kind: Kind
    chat: str | None
    sent_s: float
    breakpoints: tuple[tuple[int, str], ...]
    candidates: tuple[Candidate, ...] = ()
    cached_tokens: int = 0
    until_s: float = 0.0

    @property
    def last_at(self) -> int:
        """The piece that bears the last breakpoint; -1 when there is none."""
        return self.breakpoints[-1][0] if self.breakpoints else -1


@dataclass(slots=True)
class _Prefix:
    sent_s: float
    gaps: Gaps = field(default_factory=Gaps)
    is_first: bool = False  # of its conversation, or the only time it was sent
    ttl: str | None = None
    until_s: float = 0.0


@dataclass(slots=True)
class _Thread:
    """A message that a thread may go on from: what the API holds up to it."""

    tokens: int
    sent: Sent
    gaps: Gaps


class Sightings:
    """The memory of one process; every method may be called from any thread. `clock` gives seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._owner: int | None = None  # the thread that holds the lock
        self._prefixes: OrderedDict[bytes, _Prefix] = OrderedDict()
        self._recent: deque[Sent] = deque(maxlen=MOST_REQUESTS)
        self._threads: OrderedDict[str, _Thread] = OrderedDict()
        self._openings: dict[tuple[Kind, str], Gaps] = {}
        self._balances: dict[tuple[bytes, str], Balance] = {}
        forks.tell(self)

    @contextmanager
    def _alone(self) -> Generator[bool]:
        """False in a finalizer that runs in the middle of this very memory, and had better leave it alone."""
        if self._owner == threading.get_ident():
            yield False
            return
        with self._lock:
            self._owner = threading.get_ident()
            try:
                yield True
            finally:
                self._owner = None

    # Before a request -------------------------------------------------------------------------------------------------

    def gaps(self, outline: Outline, candidate: Candidate, kind: Kind) -> Gaps:
        """How soon the prefix that ends there came again so far, this time included.

        The end of a conversation counts as the same however much it has grown. Of a new prefix nothing is known but how
        soon other new ones of its kind were sent a second time, if they were.
        """
        with self._alone():
            before = self._before(outline, candidate)
            if before is None:
                openings = self._openings.get((kind, candidate.place), Gaps())
                return openings.scaled(min(openings.total, MOST_GAPS))
            return _one_more(before, self.clock())

    def held(self, outline: Outline, at: int) -> str | None:
        """The TTL of the entry that the API should hold of the prefix up to this piece; None when it holds none."""
        with self._alone():
            known = self._prefixes.get(outline.pieces[at].prefix)
            return known.ttl if known is not None and known.until_s > self.clock() else None

    def held_tokens(self, message_id: str) -> int | None:
        """Tokens that the API holds of a thread up to one of its answers; None when that is not known."""
        with self._alone():
            thread = self._threads.get(message_id)
            return None if thread is None else thread.tokens

    def balance(self, scope: bytes, model: str) -> Balance:
        """What "auto" has won and lost with a model at an address and key."""
        return self._balances.setdefault((scope, model), Balance())

    def _before(self, outline: Outline, candidate: Candidate) -> _Prefix | None:
        if candidate.place != "messages":
            return self._prefixes.get(outline.pieces[candidate.at].prefix)
        if outline.continues is not None:
            thread = self._threads.get(outline.continues)
            return None if thread is None else _Prefix(thread.sent.sent_s, thread.gaps)
        for piece in reversed(outline.pieces[: candidate.at + 1]):
            if piece.section != "messages":
                break
            if (known := self._prefixes.get(piece.prefix)) is not None:
                return known
        return None

    # After it ---------------------------------------------------------------------------------------------------------

    def answered(self, sent: Sent) -> None:
        """The API has taken the request: its prefixes were sent."""
        with self._alone() as alone:
            if not alone:
                return
            pieces = sent.outline.pieces
            for candidate, before in [(c, self._before(sent.outline, c)) for c in sent.candidates]:
                known = self._prefixes.setdefault(pieces[candidate.at].prefix, _Prefix(sent.sent_s))
                known.gaps = Gaps() if before is None else _one_more(before, sent.sent_s)
                self._count_opening((sent.kind, candidate.place), before, sent.sent_s)
                known.is_first, known.sent_s = before is None, max(known.sent_s, sent.sent_s)
            while len(self._prefixes) > MOST_PREFIXES:
                self._prefixes.popitem(last=False)

    def _count_opening(self, key: tuple[Kind, str], before: _Prefix | None, now_s: float) -> None:
        """A new prefix counts as one that never came again, until it does."""
        so_far = self._openings.get(key, Gaps())
        if before is None:
            self._openings[key] = so_far + Gaps(later=1.0)
        elif before.is_first:
            self._openings[key] = (so_far + Gaps(later=-1.0)).with_one(now_s - before.sent_s)
            before.is_first = False

    def settled(self, sent: Sent, usage: Usage, message_id: str | None) -> Change | None:
        """What the cache did is known; why a prefix that should have been read was not, or None."""
        with self._alone() as alone:
            if not alone:
                return None
            missed = self._missed(sent, usage)
            self._keep(sent, usage)
            if sent.outline.in_thread and message_id is not None:
                self._keep_thread(sent, usage, message_id)
            return missed

    def _keep(self, sent: Sent, usage: Usage) -> None:
        sent.cached_tokens = usage.cache_read_tokens + usage.cache_write_tokens
        if not sent.cached_tokens:
            return
        for at, ttl in sent.breakpoints:
            known = self._prefixes.setdefault(sent.outline.pieces[at].prefix, _Prefix(sent.sent_s))
            known.ttl, known.until_s = ttl, sent.sent_s + TTL_S.get(ttl, 0.0)
        for piece in sent.outline.pieces:  # a read renews the shorter entries inside the one it found, too
            known = self._prefixes.get(piece.prefix)
            if known is not None and known.ttl is not None and known.until_s > sent.sent_s:
                known.until_s = max(known.until_s, sent.sent_s + TTL_S.get(known.ttl, 0.0))
        if sent.breakpoints:
            sent.until_s = sent.sent_s + TTL_S.get(sent.breakpoints[-1][1], 0.0)
            self._recent.append(sent)

    def _keep_thread(self, sent: Sent, usage: Usage, message_id: str) -> None:
        previous = self._threads.get(sent.outline.continues or "")
        gaps = Gaps() if previous is None else previous.gaps.with_one(sent.sent_s - previous.sent.sent_s)
        self._threads[message_id] = _Thread(usage.total_input_tokens + usage.output_tokens, sent, gaps)
        while len(self._threads) > MOST_THREADS:
            self._threads.popitem(last=False)

    # Misses -----------------------------------------------------------------------------------------------------------

    def _missed(self, sent: Sent, usage: Usage) -> Change | None:
        if not sent.breakpoints:
            return None
        partner = self._turn_before(sent)
        if partner is not None:
            if usage.cache_read_tokens >= _READ_ENOUGH * partner.cached_tokens:
                return None
            if sent.outline.continues is None:
                change = first_change(partner.outline, sent.outline, partner.last_at)
                if change is not None:
                    return change
            return _gone(sent, partner.until_s, partner.breakpoints[-1][1], partner.sent_s)
        if usage.cache_read_tokens:
            return None
        return self._missed_prefix(sent)

    def _missed_prefix(self, sent: Sent) -> Change | None:
        """The same for a request that goes on from none before it: whether its system prompt and tools were cached."""
        for piece in reversed(sent.outline.pieces[: sent.last_at + 1]):
            known = self._prefixes.get(piece.prefix)
            if known is not None and known.ttl is not None:
                return _gone(sent, known.until_s, known.ttl, known.until_s - TTL_S.get(known.ttl, 0.0))
        other = next((other for other in reversed(self._recent) if _is_version_of(other, sent)), None)
        if other is None or other.until_s <= sent.sent_s:
            return None
        return first_change(other.outline, sent.outline, other.last_at)

    def _turn_before(self, sent: Sent) -> Sent | None:
        """The request before this one in its conversation, if that was cached."""
        if sent.outline.continues is not None:
            thread = self._threads.get(sent.outline.continues)
            return thread.sent if thread is not None and thread.sent.cached_tokens else None
        same = [other for other in reversed(self._recent) if other.scope == sent.scope and other.kind == sent.kind]
        if sent.chat is not None:
            return next((other for other in same if other.chat == sent.chat), None)
        if sent.kind == "single":
            return None
        best = max(same, key=lambda other: _messages_in_common(other, sent), default=None)
        return best if best is not None and _messages_in_common(best, sent) else None

    def after_fork(self) -> None:
        """A thread that is not here any more may have held a lock."""
        self._lock, self._owner = threading.Lock(), None
        self._balances = {}


def _one_more(before: _Prefix, now_s: float) -> Gaps:
    return before.gaps.scaled(min(before.gaps.total, MOST_GAPS - 1)).with_one(now_s - before.sent_s)


def _gone(sent: Sent, until_s: float, ttl: str, used_s: float) -> Change:
    ago = _minutes(sent.sent_s - used_s)
    if sent.sent_s >= until_s:
        longer = "; prompt_cache='1h' keeps it for an hour" if ttl == "5m" else ""
        return Change("expired", f"it was kept for {ttl} and last used {ago} before{longer}")
    return Change(
        "not_found",
        f"nothing changed and it was used {ago} before: the API had dropped it, or had not written it yet",
    )


def _minutes(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.1f} h"


def _messages(sent: Sent) -> list[Piece]:
    return [piece for piece in sent.outline.pieces if piece.section == "messages"]


def _messages_in_common(one: Sent, other: Sent) -> int:
    common = 0
    for a, b in zip(_messages(one), _messages(other), strict=False):
        if a.own != b.own:
            break
        common += 1
    return common


def _is_version_of(before: Sent, sent: Sent) -> bool:
    """Whether a request's tools or system prompt are so alike another's that they are likely to be versions of it."""
    if before.scope != sent.scope or before.kind != sent.kind or before.outline.model != sent.outline.model:
        return False
    (tools, system), (tools_before, system_before) = _front(sent.outline), _front(before.outline)
    if _owns(system) == _owns(system_before) and system:
        return True
    sizes = sum(piece.tokens for piece in system), sum(piece.tokens for piece in system_before)
    return _owns(tools) == _owns(tools_before) and abs(sizes[0] - sizes[1]) <= _ALIKE * max(sizes)


def _front(outline: Outline) -> tuple[list[Piece], list[Piece]]:
    tools = [piece for piece in outline.pieces if piece.section == "tools"]
    return tools, [piece for piece in outline.pieces if piece.section == "system"]


def _owns(pieces: Iterable[Piece]) -> list[bytes]:
    return [piece.own for piece in pieces]


# One memory a process -------------------------------------------------------------------------------------------------

sightings = Sightings()
