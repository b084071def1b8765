"""Where the prompt cache's breakpoints go, for how long, and which part of a prompt changed since it was cached. Pure.

The API writes an entry at each breakpoint (1.25 times the input price for five minutes, 2 for an hour) and reads the
longest entry it finds at a breakpoint or at most 20 blocks before it (0.1 times or less). A breakpoint itself is free.
Rules: https://platform.claude.com/docs/en/build-with-claude/prompt-caching; prices come from genai-prices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

from llmnb.messages.prompt_outline import Outline, Piece
from llmnb.pricing import CachePrices
from llmnb.records import Breakpoint

Ttl = Literal["5m", "1h"]
Mode = Literal["5m", "1h", "auto", "off"]
Place = Literal["tools", "system", "document", "messages"]
Kind = Literal["chat", "loop", "single"]
"""What a request is part of: a conversation, a tool loop, or nothing that goes on."""

MODES: tuple[Mode, ...] = ("5m", "1h", "auto", "off")
TTL_S: dict[str, float] = {"5m": 300.0, "1h": 3_600.0}
MAX_BREAKPOINTS = 4
MAX_IN_THREAD = 3
"""On a message thread the API keeps the fourth for itself (its own refusal of a fourth says so)."""
LOOKBACK_BLOCKS = 20


@dataclass(frozen=True, slots=True)
class Candidate:
    """A place where a breakpoint may pay: the end of a piece, by its number in the outline."""

    place: Place
    at: int


@dataclass(frozen=True, slots=True)
class Mark:
    """A breakpoint to set."""

    candidate: Candidate
    ttl: Ttl


Wish = Callable[[Candidate, Piece], Ttl | None]
"""For how long a candidate is worth caching; None: it is not."""


# Where ----------------------------------------------------------------------------------------------------------------


def kind_of(body: dict[str, Any], outline: Outline, *, in_chat: bool) -> Kind:
    """What the request is part of. Tools make a loop, unless one is forced (it answers once) or none may be used.

    A first message that is not to be answered (max_tokens=0) only warms the cache; nothing goes on from it.
    """
    roles = [cast("dict[str, Any]", message).get("role") for message in body.get("messages") or ()]
    if body.get("max_tokens") == 0 and len(roles) < 2:
        return "single"
    if in_chat:
        return "chat"
    forced = (cast("dict[str, Any]", body.get("tool_choice") or {})).get("type") in ("tool", "any", "none")
    if outline.in_thread or (body.get("tools") and not forced):
        return "loop"
    return "chat" if "assistant" in roles else "single"


def candidates(outline: Outline, kind: Kind, minimum_tokens: int) -> list[Candidate]:
    """Where breakpoints may go, the most wanted first: growing end, system, document, tools.

    The end of the messages is a candidate where a conversation or a tool loop goes on from it. A document is the last
    long part of the first message that something else follows: other questions about it begin alike. Where a turn added
    20 blocks or more, the end of the turn before is one, too, since the API would not look back that far. What stands
    before the last message comes last: it may be examples, which other questions follow.
    """
    found: list[Candidate] = []
    end = outline.last_markable() if kind != "single" else None
    if end is not None and outline.pieces[end].section == "messages":
        found.append(Candidate("messages", end))
        if (before := _end_of_turn_before(outline, end)) is not None:
            found.append(Candidate("messages", before))
    for section in ("system", "tools"):
        found += [Candidate(section, at) for at in [_last_of(outline, section)] if at is not None]
    examples = _before_last_message(outline, end) if found and end is not None else None
    document = _document(outline, minimum_tokens)
    if document is not None:
        found.insert(next((n for n, other in enumerate(found) if other.place == "tools"), len(found)), document)
    return found if examples is None else [*found, Candidate("messages", examples)]


def place(outline: Outline, wanted: Sequence[Candidate], wish: Wish, minimum_tokens: int) -> list[Mark]:
    """The breakpoints to set, in the order of the prompt.

    At most four with the caller's own, which stay as they are (three on a thread); none before which fewer than
    `minimum_tokens` stand; a longer TTL never behind a shorter one. Where a breakpoint of the caller's stands in front
    or behind, ours takes a TTL that may stand there, unless that would cost more than was wished.
    """
    theirs = _theirs(outline)
    free = (MAX_IN_THREAD if outline.in_thread else MAX_BREAKPOINTS) - sum(len(ttls) for _, ttls in theirs)
    marks: list[Mark] = []
    for candidate in wanted:
        piece = outline.pieces[candidate.at]
        taken = any(at == candidate.at for at, _ in theirs) or any(m.candidate.at == candidate.at for m in marks)
        if len(marks) >= free or taken or not piece.is_markable or piece.total < minimum_tokens:
            continue
        ttl = _between(candidate.at, wish(candidate, piece), theirs)
        if ttl is not None:
            marks.append(Mark(candidate, ttl))
    return _longest_first(sorted(marks, key=lambda mark: mark.candidate.at), theirs)


def _last_of(outline: Outline, section: str) -> int | None:
    pieces = outline.pieces
    return next(
        (at for at in range(len(pieces) - 1, -1, -1) if pieces[at].section == section and pieces[at].is_markable), None
    )


def _end_of_turn_before(outline: Outline, end: int) -> int | None:
    """The last piece of the message two before that of `end`, when it is out of the API's sight from there."""
    message = outline.pieces[end].message
    before = None if message is None or message < 3 else outline.last_markable(message - 2)
    return before if before is not None and end - before >= LOOKBACK_BLOCKS else None


def _before_last_message(outline: Outline, end: int) -> int | None:
    message = outline.pieces[end].message
    return None if message is None or message < 2 else outline.last_markable(message - 1)


def _document(outline: Outline, minimum_tokens: int) -> Candidate | None:
    first = [at for at, piece in enumerate(outline.pieces) if piece.message == 1]
    begin = outline.pieces[first[0]].total - outline.pieces[first[0]].tokens if first else 0
    for at in reversed(first[:-1]):
        piece = outline.pieces[at]
        is_long = piece.is_document or piece.tokens >= minimum_tokens
        if is_long and piece.is_markable and piece.total - begin >= minimum_tokens and outline.continues is None:
            return Candidate("document", at)
    return None


_Theirs = list[tuple[int, tuple[str, ...]]]


def _theirs(outline: Outline) -> _Theirs:
    """The caller's own breakpoints by the piece they are on, the one of the whole request among them."""
    found = [(at, piece.ttls) for at, piece in enumerate(outline.pieces) if piece.ttls]
    if outline.automatic_ttl is not None:
        at = outline.automatic_at
        found.append((len(outline.pieces) if at is None else at, (outline.automatic_ttl,)))
    return sorted(found)


def _between(at: int, ttl: Ttl | None, theirs: _Theirs) -> Ttl | None:
    if ttl is None:
        return None
    if any("5m" in ttls for other, ttls in theirs if other < at):
        ttl = "5m"
    if ttl == "5m" and any("1h" in ttls for other, ttls in theirs if other > at):
        return None
    return ttl


def _longest_first(marks: list[Mark], theirs: _Theirs) -> list[Mark]:
    """Our own among each other: behind a five-minute one there is no longer one."""
    kept: list[Mark] = []
    for mark in marks:
        ttl = "5m" if any(other.ttl == "5m" for other in kept) else mark.ttl
        if _between(mark.candidate.at, ttl, theirs) == ttl:
            kept.append(Mark(mark.candidate, ttl))
    return kept


def breakpoints(outline: Outline, marks: Sequence[Mark]) -> tuple[Breakpoint, ...]:
    """All breakpoints of the request as it is sent, ours and the caller's, in the order of the prompt."""
    pieces = outline.pieces
    ours = [(m.candidate.at, Breakpoint(m.candidate.place, m.ttl, pieces[m.candidate.at].total)) for m in marks]
    given = [
        (at, Breakpoint(_section(outline, at), ttl, pieces[min(at, len(pieces) - 1)].total, yours=True))
        for at, ttls in _theirs(outline)
        for ttl in ttls
        if pieces
    ]
    return tuple(breakpoint for _, breakpoint in sorted(ours + given, key=lambda entry: entry[0]))


def _section(outline: Outline, at: int) -> str:
    return outline.pieces[at].section if at < len(outline.pieces) else "messages"


# Setting them ---------------------------------------------------------------------------------------------------------


def marked(body: dict[str, Any], outline: Outline, marks: Sequence[Mark]) -> dict[str, Any]:
    """The request with the breakpoints set. The one given is not changed: what differs is a copy, the rest is shared.

    A text that has to bear one becomes a list of one block with that very text, which the API reads alike.
    """
    for mark in marks:
        control = {"type": "ephemeral"} if mark.ttl == "5m" else {"type": "ephemeral", "ttl": mark.ttl}
        body = _with(body, outline.pieces[mark.candidate.at].path, control)
    return body


def parted(body: dict[str, Any], chars: int) -> dict[str, Any]:
    """The request with the first `chars` of its question's text as a block of their own, which can bear a breakpoint.

    The one given is not changed. It is given back where there are not two texts to make of it.
    """
    messages = cast("list[Any]", body.get("messages") or [])
    content = cast("dict[str, Any]", messages[0]).get("content") if messages else None
    if not isinstance(content, str) or not content[:chars].strip() or not content[chars:].strip():
        return body
    blocks = [{"type": "text", "text": text} for text in (content[:chars], content[chars:])]
    return {**body, "messages": [{**messages[0], "content": blocks}, *messages[1:]]}


def _with(value: Any, path: Sequence[str | int], control: dict[str, str]) -> Any:
    if not path:
        block = {"type": "text", "text": value} if isinstance(value, str) else value
        copied = {**cast("dict[str, Any]", block), "cache_control": control}
        return [copied] if isinstance(value, str) else copied
    key, rest = path[0], path[1:]
    copy: Any = dict(cast("dict[str, Any]", value)) if isinstance(value, dict) else list(cast("list[Any]", value))
    copy[key] = _with(copy[key], rest, control)
    return copy


# For how long ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Gaps:
    """How often the next request with the same prefix came within five minutes, then within an hour, or later if ever.

    Counts, or shares of some; only their proportions matter.
    """

    within_5m: float = 0.0
    within_1h: float = 0.0
    later: float = 0.0

    @property
    def total(self) -> float:
        """All of them."""
        return self.within_5m + self.within_1h + self.later

    def __add__(self, other: Gaps) -> Gaps:
        return Gaps(self.within_5m + other.within_5m, self.within_1h + other.within_1h, self.later + other.later)

    def with_one(self, gap_s: float) -> Gaps:
        """With one more, of that many seconds."""
        near, hour = gap_s <= TTL_S["5m"], gap_s <= TTL_S["1h"]
        return self + Gaps(float(near), float(hour and not near), float(not hour))

    def scaled(self, total: float) -> Gaps:
        """The same proportions, counting as `total` of them."""
        share = total / self.total if self.total else 0.0
        return Gaps(self.within_5m * share, self.within_1h * share, self.later * share)


PRIOR: dict[Kind, Gaps] = {"chat": Gaps(1.0, 0.2, 0.8), "loop": Gaps(1.4, 0.1, 0.5), "single": Gaps(0.1, 0.05, 0.85)}
"""What is taken for granted before anything was seen, as if it had been seen that many times. A chat is there to go on
and a tool's result is soon sent back, so a first turn is cached; a single question is not: nothing says that its prefix
will be sent again, and writing it would cost a quarter more. One repetition within the TTL changes that."""
HISTORY_WEIGHT = 3.0
"""As how many requests of this process the ledger's history of earlier ones counts, until it has seen as many itself:
the history may be of other prompts. What a wrong one costs is bounded besides, see `llmnb.middleware.balance`."""


def cheapest(gaps: Gaps, prices: CachePrices) -> Ttl | None:
    """The TTL at which a prefix costs least, None where that is without caching.

    With a share p of requests that come before the entry is gone, a request pays on average for each token of the
    prefix p x (read) + (1 - p) x (write), in terms of the input price: a hit reads it, anything else writes it anew.
    Without caching it pays 1.
    """
    if not gaps.total:
        return None
    near, hour = gaps.within_5m / gaps.total, (gaps.within_5m + gaps.within_1h) / gaps.total
    costs: list[tuple[float, Ttl | None]] = [
        (1.0, None), (near * prices.read + (1 - near) * prices.write_5m, "5m")
    ]  # fmt: skip
    if prices.write_1h is not None:
        costs.append((hour * prices.read + (1 - hour) * prices.write_1h, "1h"))
    return min(costs, key=lambda cost: cost[0])[1]


# What changed ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """The first part in which a prompt differs from an earlier one: the API's word for it, and a sentence."""

    reason: str
    text: str


def first_change(before: Outline, now: Outline, up_to: int) -> Change | None:
    """What keeps the first `up_to` + 1 pieces of an earlier prompt from being read now; None: they are all here.

    Of several changes the first in the order model, tools, system, settings, messages counts.
    """
    if before.model != now.model:
        return Change("model_changed", f"the model was {before.model}, and each model has a cache of its own")
    if before.speed != now.speed:
        return Change("model_changed", f"the speed was {before.speed}, and each speed has a cache of its own")
    at = next((at for at, piece in enumerate(before.pieces[: up_to + 1]) if not _is_at(piece, now, at)), None)
    if at is None:
        return None
    was = before.pieces[at]
    # where one prompt has run out of tools or system blocks, the other's section is the one that differs
    sections = [was.section, *(piece.section for piece in now.pieces[at : at + 1])]
    section = min(sections, key=("tools", "system", "messages").index)
    if section == "tools":
        return Change("tools_changed", "the tools are not what they were in the request before")
    if section == "system":
        return Change("system_changed", "the system prompt is not what it was in the request before")
    if before.parameters != now.parameters:
        return Change("settings_changed", "thinking or tool_choice is not what it was in the request before")
    return Change("messages_changed", f"message {was.message} is not what it was in the request before")


def _is_at(piece: Piece, outline: Outline, at: int) -> bool:
    return at < len(outline.pieces) and outline.pieces[at].prefix == piece.prefix
