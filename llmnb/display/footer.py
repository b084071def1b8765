"""The line under an answer: model, tokens, cost, time, and why it ended when that matters."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from html import escape
from typing import Literal

from llmnb.display.answer import Answer, clean, is_stop
from llmnb.events import Done
from llmnb.records import PromptCacheUse

Kind = Literal["fact", "good", "warning"]
MODEL_CHARS = 80


@dataclass(frozen=True, slots=True)
class Item:
    """One fact of the line; `title` explains it where there is a pointer to hover with."""

    text: str
    title: str = ""
    kind: Kind = "fact"


def items(answer: Answer) -> list[Item]:
    """The facts known of an answer, the most wanted first."""
    done = answer.done
    if done is None:
        return [*_ended_early(answer), Item(shortened(answer.model), "the model asked")] if answer.model else []
    model = Item(shortened(done.model), "the model that answered")
    turns = [Item(f"{done.turns} turns", "answers of the model, tools between them")] if done.turns > 1 else []
    return [*_endings(done), model, *turns, *_tokens(done), *_cost(done), *_prompt_cache(done), *_speed(done)]


def html(answer: Answer) -> str:
    """The line as HTML, or '' when nothing is known."""
    facts = items(answer)
    if not facts:
        return ""
    # a fact and the dot after it are one box: a line never begins with a dot
    spans = [
        f'<span><span class="llmnb-{item.kind}" title="{escape(item.title)}">{escape(item.text)}</span>{dot}</span>'
        for item, dot in zip(facts, [*["&nbsp;·"] * (len(facts) - 1), ""], strict=True)
    ]
    return f'<div class="llmnb-footer">{" ".join(spans)}</div>'


def plain(answer: Answer) -> str:
    """The line as plain text, or '' when nothing is known."""
    return " · ".join(item.text for item in items(answer))


def dollars(usd: Decimal) -> str:
    """Dollars to four digits of worth: $12.34, $0.0421, $0.000075; $0 only for nothing."""
    if usd == 0:
        return "$0"
    places = 2 if abs(usd) >= 1 else min(9, max(4, 1 - usd.adjusted()))
    return f"${usd:,.{places}f}" if abs(usd) >= Decimal("1e-9") else "<$0.000000001"


def seconds(ms: float) -> str:
    """A duration for reading: 3 ms, 0.42 s, 12.3 s, 2 min 5 s."""
    if ms < 100:
        return f"{ms:.0f} ms"
    value = ms / 1000
    if value >= 120:
        return f"{int(value // 60)} min {int(value % 60)} s"
    return f"{value:.2f} s" if value < 10 else f"{value:.1f} s"


def shortened(name: str, chars: int = MODEL_CHARS) -> str:
    """A name on one line and not longer than the line."""
    name = " ".join(clean(name).split())
    return name if len(name) <= chars else name[: chars - 1] + "…"


def _ended_early(answer: Answer) -> list[Item]:
    if is_stop(answer.error):
        return [Item("stopped", "you stopped the answer; the text so far stays", "warning")]
    return [Item("failed", "the call failed", "warning")] if answer.error else []


_STOP_REASONS = {
    "max_tokens": Item("cut off at max_tokens", "the answer is not complete: raise max_tokens to get more", "warning"),
    "model_context_window_exceeded": Item("context window full", "the answer is not complete", "warning"),
    "refusal": Item("refused", "the model declined to answer (stop_reason refusal)", "warning"),
    "pause_turn": Item("paused", "the model paused a long turn; send the messages back to go on", "warning"),
}
_STATUSES = {
    "cancelled": Item("stopped", "closed before its end; the text so far stays", "warning"),
    "truncated": Item("broken off", "the stream ended before the message did: the answer is not complete", "warning"),
    "interrupted": Item("interrupted", "the answer is not complete", "warning"),
    "error": Item("failed", "the call failed", "warning"),
}


def _endings(done: Done) -> list[Item]:
    found = [_STATUSES.get(done.status), _STOP_REASONS.get(done.stop_reason or "")]
    return [item for item in found if item]


def _tokens(done: Done) -> list[Item]:
    usage = done.usage
    about_in = "≈ " if done.input_estimated and usage.estimated else ""
    about = "≈ " if usage.estimated else ""
    cached = f" ({usage.cache_read_tokens:,} cached)" if usage.cache_read_tokens else ""
    detail = f"input tokens: {usage.input_tokens:,} uncached, {usage.cache_read_tokens:,} read from the prompt cache"
    if usage.cache_write_tokens:
        detail += f", {usage.cache_write_tokens:,} written to it"
    thinking = f", {usage.thinking_tokens:,} of them thinking" if usage.thinking_tokens else ""
    return [
        Item(f"{about_in}{usage.total_input_tokens:,} in{cached}", detail),
        Item(f"{about}{usage.output_tokens:,} out", f"output tokens{thinking}"),
    ]


def _cost(done: Done) -> list[Item]:
    if done.source != "live":
        word = "cached" if done.source == "cache" else "replayed"
        saved = f", saved {dollars(done.saved_usd)}" if done.saved_usd is not None else ""
        return [Item(word + saved, "answered from disk: nothing was sent and nothing paid", "good")]
    if done.cost_usd is None:
        return [Item("unpriced", "no price is known for this model", "warning")]
    if done.usage.estimated:
        return [Item(f"≈ {dollars(done.cost_usd)}", "estimated: the exact counts never came")]
    return [Item(dollars(done.cost_usd), f"cost in US dollars: {done.cost_usd:f}")]


def _prompt_cache(done: Done) -> list[Item]:
    """What the API's prompt cache saved, or cost to fill, and why it was missed."""
    use = done.prompt_cache
    if use is None or done.source != "live":
        return []
    found: list[Item] = []
    about = "≈ " if use.estimated else ""
    if use.saved_usd is not None and use.saved_usd > 0:
        title = f"against no caching: {use.read_tokens:,} tokens read from the prompt cache, {_written(use)}"
        found.append(Item(f"{about}{dollars(use.saved_usd)} saved by caching", title, "good"))
    elif use.saved_usd is not None and use.saved_usd < 0:
        title = f"{_written(use)}, which costs this much more now and is saved many times over when it is read"
        found.append(Item(f"{about}{dollars(-use.saved_usd)} to cache", title))
    if use.miss_reason == "below_minimum":  # nothing went wrong, and nothing was paid for it
        found.append(Item("too short to cache", use.miss))
    elif use.miss:
        found.append(Item(f"cache missed: {_reason(use)}", use.miss, "warning"))
    return found


def _written(use: PromptCacheUse) -> str:
    kinds = [("5 minutes", use.written_5m_tokens + use.written_unsplit_tokens), ("an hour", use.written_1h_tokens)]
    return " and ".join(f"{tokens:,} written for {kept}" for kept, tokens in kinds if tokens) or "none written"


_REASONS = {
    "expired": "expired",
    "not_found": "not found",
    "settings_changed": "settings changed",
}


def _reason(use: PromptCacheUse) -> str:
    return _REASONS.get(use.miss_reason or "", (use.miss_reason or "").replace("_", " "))


def _speed(done: Done) -> list[Item]:
    facts: list[Item] = []
    if done.source == "live" and done.ttft_ms is not None:
        facts.append(Item(f"first token {seconds(done.ttft_ms)}", "time to first token"))
    if done.latency_ms is not None:
        facts.append(Item(seconds(done.latency_ms), "time from the question to the end of the answer"))
    if done.source == "live" and (rate := done.output_tokens_per_s):
        facts.append(Item(f"{rate:,.0f} tokens/s", "output tokens a second, from the first token to the last"))
    return facts
