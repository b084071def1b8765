"""The frozen records every room speaks: what was used, what it cost, the row a call leaves.

Token classes are disjoint: a token is counted in exactly one of them, so that a cost is one dot product. Money is an
integer number of nano-dollars (1e-9 USD), so that sums are exact; `None` means unpriced, never 0.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar

if TYPE_CHECKING:
    from llmnb.events import Wait

NANO = Decimal(1_000_000_000)

Status = Literal["running", "ok", "error", "cancelled", "truncated", "interrupted"]
"""How a call ended.

`running`: not yet. `ok`: to its end. `error`: the API or the network refused it. `cancelled`: the caller closed it
early (Stop, break, an exception, garbage collection). `truncated`: the stream ended without `message_stop`.
`interrupted`: the process died in the middle of it.
"""

Source = Literal["live", "cache", "replay"]

RecordT = TypeVar("RecordT")


def made(kind: type[RecordT], known: dict[str, Any]) -> RecordT:
    """A frozen dataclass of which these fields are known; the others have their defaults. The dict is its own then.

    Every answer makes some of these records, and to set fifty frozen fields one by one costs more than to fill them.
    """
    record = object.__new__(kind)
    object.__setattr__(record, "__dict__", known)
    return record


@dataclass(frozen=True)  # no slots, see `made`
class Usage:
    """Tokens and server-tool requests of one call, in disjoint classes.

    `input_tokens` are the uncached ones only; `thinking_tokens` are inside `output_tokens` (None: not reported).
    `cache_write_unsplit_tokens` were written to the cache without the API telling their TTL. `estimated` is True when
    a number is a bound and not what the API reported.
    """

    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cache_write_unsplit_tokens: int = 0
    output_tokens: int = 0
    thinking_tokens: int | None = None
    web_search_requests: int = 0
    web_fetch_requests: int = 0
    estimated: bool = False

    @property
    def cache_write_tokens(self) -> int:
        """All tokens written to the prompt cache, whatever their TTL."""
        return self.cache_write_5m_tokens + self.cache_write_1h_tokens + self.cache_write_unsplit_tokens

    @property
    def total_input_tokens(self) -> int:
        """All the model read: uncached, cache reads, cache writes (OpenTelemetry: gen_ai.usage.input_tokens)."""
        return self.input_tokens + self.cache_read_tokens + self.cache_write_tokens

    def __add__(self, other: Usage) -> Usage:
        thinking = [value for value in (self.thinking_tokens, other.thinking_tokens) if value is not None]
        return Usage(
            **{name: getattr(self, name) + getattr(other, name) for name in _ADDED},
            thinking_tokens=sum(thinking) if thinking else None,
            estimated=self.estimated or other.estimated,
        )


USAGE_FIELDS = tuple(f.name for f in fields(Usage))
_ADDED = tuple(name for name in USAGE_FIELDS if name not in ("thinking_tokens", "estimated"))


@dataclass(frozen=True, slots=True)
class Cost:
    """What a usage costs: exact nano-dollars, or None when no price is known; `price_id` names price and source."""

    nanousd: int | None
    price_id: str | None = None

    @property
    def usd(self) -> Decimal | None:
        """Dollars, exact to the nano-dollar, or None when unpriced."""
        return None if self.nanousd is None else Decimal(self.nanousd) / NANO


UNPRICED = Cost(None)
_usage_values: Callable[[object], tuple[Any, ...]] = attrgetter(*USAGE_FIELDS)


@dataclass(frozen=True)  # no slots, see `made`
class Call:
    """One row of the ledger; the fields are the columns, in their order.

    `ts` is the start in microseconds since 1970 (UTC). `uid` is a time-ordered unique id of ours. `is_call` is False
    for child rows (`parent_uid`), which hold iterations billed on another model. Durations are milliseconds, `wait_ms`
    is the time slept between attempts. `estimated` marks counts that are bounds and not what the API reported.
    `estimated_input_tokens` were counted offline before the call was sent, in the way `estimated_by` names; only a
    sample of the calls is counted, for `Calibration`.
    """

    uid: str
    ts: int
    model_requested: str
    parent_uid: str | None = None
    project: str | None = None
    session: str | None = None
    user: str | None = None
    notebook: str | None = None
    cell: str | None = None
    chat: str | None = None
    run_id: str | None = None
    batch_id: str | None = None
    template: str | None = None
    tag: str | None = None
    provider: str = "anthropic"
    model: str | None = None
    status: Status = "running"
    source: Source = "live"
    is_call: bool = True
    stop_reason: str | None = None
    error_type: str | None = None
    stream: bool = False
    attempts: int = 1
    wait_ms: float = 0.0
    latency_ms: float | None = None
    ttft_ms: float | None = None
    input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    cache_write_unsplit_tokens: int = 0
    output_tokens: int = 0
    thinking_tokens: int | None = None
    web_search_requests: int = 0
    web_fetch_requests: int = 0
    service_tier: str | None = None
    speed: str | None = None
    inference_geo: str | None = None
    cost_nanousd: int | None = None
    saved_nanousd: int | None = None
    cache_breakpoints: int | None = None
    cache_miss_reason: str | None = None
    estimated: bool = False
    price_id: str | None = None
    request_id: str | None = None
    content: str | None = None
    estimated_input_tokens: int | None = None
    estimated_by: str | None = None

    @property
    def usage(self) -> Usage:
        """The token classes of the row as one `Usage`."""
        return made(Usage, dict(zip(USAGE_FIELDS, _usage_values(self), strict=True)))

    @property
    def cost(self) -> Cost:
        """The cost of the row, unpriced when `nanousd` is None."""
        return Cost(self.cost_nanousd, self.price_id)


CacheUse = bool | Literal["all"]
"""Whether the response cache is used: for nothing, for plain calls, or also for those with server tools."""


@dataclass(frozen=True, slots=True)
class Caching:
    """What a call wants of the response cache.

    `use` is None for what the client was wrapped with. `fresh` asks again and replaces what is kept; `sample` is the
    number of an independent answer; no answer older than `ttl_s` seconds is taken, and what comes is kept as long.
    `words_per_s` gives a stream at that speed; None is at once.
    """

    use: CacheUse | None = None
    fresh: bool = False
    sample: int = 0
    ttl_s: float | None = None
    words_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Calibration:
    """How the input tokens that `model` bills follow from an offline count: `base + slope × count`.

    `counter` is the way of counting it belongs to. Nine of ten calls lie within the relative `error` of it; `calls` is
    how many on the books it was fitted to, 0 when there were too few and a default stands.
    """

    model: str
    counter: str
    slope: float = 1.0
    base: float = 0.0
    error: float = 0.0
    calls: int = 0

    def billed(self, counted: float) -> float:
        """The input tokens that a call with this offline count is expected to bill.

        Never less than a quarter of it: below the calls that it was fitted to, a line leads to nothing.
        """
        return max(self.base + self.slope * counted, counted / 4)


class Ended(Protocol):
    """A call that has ended, or an attempt of one."""

    @property
    def rows(self) -> tuple[Call, ...]:
        """Its row and its child rows; made when somebody asks, and the same ones for everybody."""
        ...


@dataclass(frozen=True, slots=True)
class Rows:
    """One whose rows are there (`Ended`)."""

    rows: tuple[Call, ...]


@dataclass(frozen=True, slots=True)
class CallContext:
    """Who asks, for the ledger row of every call made while it is active (see `calling`).

    Fields that are None fall back to what the client was wrapped with and what the kernel knows. `on_end` is told each
    attempt that has ended, in the thread or task that ended it; it must not raise. `prompt_cache` is the mode of the
    prompt cache (5m, 1h, auto, off), and `on_marked` is handed what was marked in each attempt (`PromptMarks`).
    `on_wait` is told of each further attempt before the wait for it begins, and while a call is held back by pacing; it
    must neither block nor raise. `on_held` is told, with True, when a call begins to be held back by what is ours, and
    with False when it goes; it must neither block nor raise, either. `owner` is who waits for the call, where another
    thread makes it (see `llmnb.slots.this_owner`). A call that could cost more than `ceiling_nanousd` is not sent. So
    many more calls begin with the first `shared_chars` of the question's text that these are worth caching apart.
    """

    chat: str | None = None
    run_id: str | None = None
    batch_id: str | None = None
    template: str | None = None
    tag: str | None = None
    project: str | None = None
    parent_uid: str | None = None
    log_content: bool | None = None
    owner: tuple[int, int] | None = None
    caching: Caching | None = None
    on_end: Callable[[Ended], None] | None = field(default=None, compare=False)
    prompt_cache: str | None = None
    on_marked: Callable[[PromptMarks], None] | None = field(default=None, compare=False)
    on_wait: Callable[[Wait], None] | None = field(default=None, compare=False)
    on_held: Callable[[bool], None] | None = field(default=None, compare=False)
    ceiling_nanousd: int | None = None
    shared_chars: int = 0

    def tell_held(self, *, is_held: bool) -> None:
        """Tells whoever wants to know that the call is held back by what is ours, or goes."""
        if self.on_held is not None:
            self.on_held(is_held)


_NOBODY = CallContext()
_context: ContextVar[CallContext] = ContextVar("llmnb_call_context", default=_NOBODY)


def current_context() -> CallContext:
    """The context of the calls made here and now."""
    return _context.get()


def calling(**changes: Any) -> AbstractContextManager[None]:
    """Calls made inside carry these `CallContext` fields; nested uses add to each other."""
    return _Calling(changes)


class _Calling(AbstractContextManager[None]):
    # no generator-based manager and no `replace` where nothing is replaced: this stands in the way of every call
    __slots__ = ("_changes", "_token")

    def __init__(self, changes: dict[str, Any]) -> None:
        self._changes = changes

    def __enter__(self) -> None:
        outer = _context.get()
        inner = CallContext(**self._changes) if outer is _NOBODY else replace(outer, **self._changes)
        self._token = _context.set(inner)

    def __exit__(self, *_: object) -> None:
        _context.reset(self._token)


# The prompt cache -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Breakpoint:
    """Where a request asks the API to cache its prompt: everything up to here, for `ttl` after its last use.

    `place` is tools, system, document (what a question is about) or messages (the growing end of a conversation);
    `tokens` is an estimate of all that stands up to here. `yours` is True for one that the caller set.
    """

    place: str
    ttl: str
    tokens: int
    yours: bool = False


class PromptMarks(Protocol):
    """What was marked in one request, and why the cache was missed, which is known once its usage is."""

    @property
    def breakpoints(self) -> tuple[Breakpoint, ...]:
        """All breakpoints of the request, in the order of the prompt."""
        ...

    @property
    def miss(self) -> str:
        """Why a prefix that should have been read was not, in words; empty when none was missed."""
        ...

    @property
    def bound_tokens(self) -> int | None:
        """What "auto" may lose with this model in all, in tokens at the input price; None where it did not decide."""
        ...

    def settle(self, usage: Usage, told: str | None, message_id: str | None) -> str | None:
        """The answer's usage is known: why the cache was missed, in one word; `told` is what the API said itself."""
        ...


@dataclass(frozen=True, slots=True)
class PromptCacheUse:
    """What the API's prompt cache did for one answer.

    Tokens are those of `Usage`. `saved_nanousd` is what the answer would have cost with nothing cached less what it
    cost, exact; it is negative where writing cost more than reading saved, 0 where nothing was cached, None when
    unpriced. `miss_reason` is why a prefix that should have been read was not (below_minimum, expired, not_found,
    model_changed, tools_changed, system_changed, messages_changed, settings_changed, or what the API says), and `miss`
    the same in words. `estimated` marks tokens and dollars that are bounds.

    `bound_nanousd` is what prompt_cache="auto" would at most have lost by now, in this kernel with this model, against
    no caching, however wrong its guesses were: one and a half times this prompt and a twentieth of all input so far
    (see `LLM`). None where "auto" did not decide, or is unpriced.
    """

    breakpoints: tuple[Breakpoint, ...] = ()
    read_tokens: int = 0
    written_5m_tokens: int = 0
    written_1h_tokens: int = 0
    written_unsplit_tokens: int = 0
    saved_nanousd: int | None = None
    miss_reason: str | None = None
    miss: str = ""
    estimated: bool = False
    bound_nanousd: int | None = None

    @property
    def bound_usd(self) -> Decimal | None:
        """`bound_nanousd` in dollars."""
        return None if self.bound_nanousd is None else Decimal(self.bound_nanousd) / NANO

    @property
    def written_tokens(self) -> int:
        """All tokens written to the cache, whatever their TTL."""
        return self.written_5m_tokens + self.written_1h_tokens + self.written_unsplit_tokens

    @property
    def saved_usd(self) -> Decimal | None:
        """Dollars saved against no caching (negative: lost), exact to the nano-dollar; None when unpriced."""
        return None if self.saved_nanousd is None else Decimal(self.saved_nanousd) / NANO
