"""The events of a stream, in the order it says them: text as it comes, tools, waits, and the end with its cost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decimal import Decimal

    from llmnb.records import PromptCacheUse, Source, Status, Usage


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Thinking:
    """A piece of the model's summarised reasoning; `text` is empty for reasoning that the API keeps hidden."""

    text: str


@dataclass(frozen=True, slots=True)
class Citation:
    """A source the text just before leans on; `url` is empty for documents, `place` says where in them."""

    title: str
    url: str = ""
    cited_text: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The model asks for a tool; `id` pairs it with its `ToolResult`."""

    id: str
    name: str
    input: dict[str, object]


NOT_APPROVED = "The user did not approve this call"
"""What the model is told, first, of a call that a person or the function of `approve=` did not let run."""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool gave back, after `duration_ms`; or, where it `was_refused`, that it was not let run."""

    id: str
    name: str
    content: str
    is_error: bool = False
    duration_ms: float | None = None

    @property
    def was_refused(self) -> bool:
        """Whether it did not run because somebody did not approve of it."""
        return self.is_error and self.content.startswith(NOT_APPROVED)


@dataclass(frozen=True, slots=True)
class Approval:
    """A tool call waits for a person's word. `answer(True)` lets it run; may be called from any thread, once counts."""

    call: ToolCall
    answer: Callable[[bool], None] = field(compare=False)


@dataclass(frozen=True, slots=True)
class Retry:
    """Attempt `attempt` (the next one, from 2) starts in `wait_s` seconds, because of `reason`."""

    wait_s: float
    attempt: int
    reason: str = ""
    max_attempts: int | None = None


@dataclass(frozen=True, slots=True)
class Throttled:
    """The call is held back so that it stays inside the account's rate limits: for `wait_s` seconds more.

    It comes again every other second with what is left then, as far as that is known, and with `wait_s` 0 when the call
    goes. `limit` is which one is near, "requests", "input tokens" or "output tokens", and `per_minute` how much of it
    the account may use in a minute. After a 429 that named none they are "" and None.
    """

    wait_s: float
    limit: str = ""
    per_minute: float | None = None

    @property
    def reason(self) -> str:
        """What is waited for, in words."""
        if self.per_minute is None:
            return "the account's rate limit"
        return f"the account's limit of {self.per_minute:,.0f} {self.limit} a minute"


Wait = Retry | Throttled
"""Why nothing comes of a call for the moment."""


@dataclass(frozen=True, slots=True)
class Done:
    """The end of an answer: what it used and cost, and how long it took.

    `cost_usd` is None when unpriced. `output_tokens_per_s` counts from the first token to the last. `turns` is how many
    answers a loop with tools took; usage, cost and `latency_ms` are then those of all of them. `input_estimated` marks
    an answer that was stopped before its provider counted what it read.
    """

    model: str
    usage: Usage
    cost_usd: Decimal | None
    stop_reason: str | None = None
    source: Source = "live"
    latency_ms: float | None = None
    ttft_ms: float | None = None
    saved_usd: Decimal | None = None
    status: Status = "ok"
    prompt_cache: PromptCacheUse | None = None
    turns: int = 1
    input_estimated: bool = False

    @property
    def output_tokens_per_s(self) -> float | None:
        """Output tokens per second between the first token and the end, or None when that cannot be known."""
        if self.turns > 1 or self.latency_ms is None or self.ttft_ms is None or self.latency_ms <= self.ttft_ms:
            return None
        return self.usage.output_tokens / (self.latency_ms - self.ttft_ms) * 1000


@dataclass(frozen=True, slots=True)
class Partial:
    """A value of a type, as far as the answer has come: plain JSON values (dicts, lists, texts that may go on).

    The last one `is_complete`: its `value` is of the type that was asked for.
    """

    value: Any
    is_complete: bool = False


StreamEvent = Text | Thinking | Citation | ToolCall | ToolResult | Approval | Retry | Throttled | Partial | Done
