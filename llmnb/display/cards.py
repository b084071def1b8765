"""What stands between the text of an answer as HTML: tool calls, waits, the thinking's label, errors."""

from __future__ import annotations

import json
from html import escape
from math import ceil

from llmnb.display.answer import Prose, Tool, Waiting, clean, is_stop
from llmnb.display.footer import seconds, shortened
from llmnb.display.markdown import coloured
from llmnb.events import Throttled

MAX_VALUE_CHARS = 20_000
"""Of arguments and results more than this is not shown; the reply holds all of it."""


def tool(part: Tool) -> str:
    """A tool call as a card: state, name, time; folded inside: arguments and result."""
    state, icon, word = _state(part)
    took = part.result.duration_ms if part.result else None
    time = f'<span class="llmnb-time">{seconds(took)}</span>' if took is not None else ""
    result = _section("Result", f"<pre>{_limited(part.result.content)}</pre>") if part.result else ""
    is_open = " open" if part.asking else ""  # nobody shall let run what they have not seen
    return (
        f'<details class="llmnb-tool llmnb-{state}"{is_open}><summary>'
        f'<span class="llmnb-icon" aria-hidden="true">{icon}</span> '
        f'<code>{escape(shortened(part.call.name))}</code> <span class="llmnb-state">{word}</span> {time} '
        f'<span class="llmnb-peek">{escape(_peek(part))}</span></summary>'
        f"{_section('Arguments', _arguments(part))}{_buttons(part)}{result}</details>"
    )


def tool_text(part: Tool) -> str:
    """A tool call in one line."""
    took = part.result.duration_ms if part.result else None
    time = f", {seconds(took)}" if took is not None else ""
    return f"{shortened(part.call.name)}({_peek(part)}): {_state(part)[2]}{time}"


def waiting(part: Waiting) -> str:
    """A wait as one line."""
    text = waiting_text(part)
    return f'<p class="llmnb-retry" role="note">{escape(text)}</p>' if text else ""


def waiting_text(part: Waiting) -> str:
    """A wait in words; '' for one that is over and of which nobody needs to know any more."""
    retry = part.wait
    if isinstance(retry, Throttled):
        return "" if part.over else f"◷ waiting {max(1, ceil(retry.wait_s))} s for {shortened(retry.reason, 200)}"
    of = f" of {retry.max_attempts}" if retry.max_attempts else ""
    reason = f" ({shortened(retry.reason, 200)})" if retry.reason else ""
    verb = "waited" if part.over else "waiting"
    return f"↻ {verb} {retry.wait_s:.1f} s, attempt {retry.attempt}{of}{reason}"


def thinking_label(part: Prose) -> str:
    """What stands on the fold over the model's reasoning."""
    if not part.ended:
        return "Thinking…"
    return f"Thought ({len(part.text.split()):,} words)" if part.text.strip() else "Thought (kept hidden by the API)"


def error(failure: BaseException | None) -> str:
    """Why an answer failed, as one box; '' for none, and for the person's own Stop."""
    text = error_text(failure)
    return f'<div class="llmnb-error" role="alert">{escape(text)}</div>' if text else ""


def error_text(failure: BaseException | None) -> str:
    """Why an answer failed, in one line; '' for none, and for the person's own Stop."""
    if failure is None or is_stop(failure):
        return ""
    return shortened(f"{type(failure).__name__}: {failure}", 500)


def arguments_text(part: Tool) -> str:
    """The arguments as JSON, made for reading."""
    return clean(json.dumps(part.call.input, indent=2, ensure_ascii=False, default=str))


def _buttons(part: Tool) -> str:
    """What a person answers with, while one is asked; response.js hears them."""
    if not part.asking:
        return ""
    call = escape(part.call.id)
    name = escape(shortened(part.call.name))
    return (
        f'<div class="llmnb-ask" role="group" aria-label="May {name} run?">'
        f'<button type="button" class="llmnb-yes" data-call="{call}" data-lm-suppress-shortcuts="true">Run it</button> '
        f'<button type="button" class="llmnb-no" data-call="{call}" data-lm-suppress-shortcuts="true">Don’t run'
        "</button></div>"
    )


def _state(part: Tool) -> tuple[str, str, str]:
    if part.asking:
        return "asking", "?", "waits for your word"
    if part.result is None:
        return ("abandoned", "◌", "no result") if part.abandoned else ("running", "●", "running…")
    if part.result.was_refused:
        return "refused", "⊘", "not approved"
    return ("failed", "✕", "failed") if part.result.is_error else ("finished", "✓", "done")


def _peek(part: Tool) -> str:
    return shortened(", ".join(f"{name}={_short_json(value)}" for name, value in part.call.input.items()), 80)


def _short_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)[:80]


def _arguments(part: Tool) -> str:
    text = arguments_text(part)
    if len(text) > MAX_VALUE_CHARS:
        return f"<pre>{_limited(text)}</pre>"
    return f'<pre class="highlight">{coloured(text, "json")}</pre>'


def _section(title: str, body: str) -> str:
    return f'<div class="llmnb-section"><span class="llmnb-label">{title}</span>{body}</div>'


def _limited(text: str) -> str:
    text = clean(text)
    if len(text) <= MAX_VALUE_CHARS:
        return escape(text)
    return f"{escape(text[:MAX_VALUE_CHARS])}\n… {len(text) - MAX_VALUE_CHARS:,} characters more"
