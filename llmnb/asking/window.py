"""Keeps a conversation inside its model's context window: by refusing, by leaving turns out, or by a summary of them.

Counted is offline. Cut is only between turns, so that a question keeps its answer and a tool call its result, and below
what would just fit, so that the prompt cache is not spoilt at every question that follows. Whatever is done is said.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from llmnb.asking.question import Question
from llmnb.asking.turns import Message, Turn, messages_of
from llmnb.errors import ContextFull, InvalidRequest
from llmnb.messages.prompt_outline import prompt_bytes
from llmnb.plain_numbers import count
from llmnb.reply import Reply
from llmnb.tokens import offline_counter
from llmnb.trouble import LlmnbWarning, warn_user

WhenFull = Literal["error", "trim", "compact"]
POLICIES: tuple[WhenFull, ...] = get_args(WhenFull)

DOWN_TO = 0.5
"""How full the window is left when turns go: half of it is free for what follows."""
_MARGIN = 1.1
"""Offline counts of English and code were up to a tenth too low (see `llmnb.tokens`)."""
_SUMMARY_TOKENS = 4_096
ASKED_FOR_SUMMARY = (
    "Summarise our conversation so far, so that you could go on with it from the summary alone: what I want, what we "
    "found out and decided, names, numbers, code and sources that matter, results of tools, what is still open. Give "
    "the summary only."
)


@dataclass(frozen=True, slots=True)
class Sent:
    """What of a conversation is sent: all turns but the first `left_out`, and a `summary` of those if there is one."""

    left_out: int = 0
    summary: tuple[Message, ...] = ()

    def messages(self, turns: Sequence[Turn], model: str | None = None) -> list[Message]:
        """The turns as they are sent to `model`."""
        if self.left_out > len(turns):  # what the summary is about is partly undone
            return messages_of(turns, model)
        return [*self.summary, *messages_of(turns[self.left_out :], model)]


@dataclass(frozen=True, slots=True)
class Guard:
    """When a chat's window is full, and what is done then. `window_tokens` None is the model's own."""

    when_full: WhenFull = "error"
    window_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.when_full not in POLICIES:
            raise InvalidRequest(f"when_full must be one of {', '.join(POLICIES)}, not {self.when_full!r}")
        if self.window_tokens is not None:
            object.__setattr__(self, "window_tokens", count(self.window_tokens, "window_tokens"))

    def fitted(self, question: Question, turns: Sequence[Turn], sent: Sent) -> Generator[Question, Reply, Sent]:
        """What to send so that `question` fits; on the way, gives what has to be asked for a summary.

        `question` holds the new message only.

        Raises:
            ContextFull: it does not fit, and nothing is to be left out, or that would not help.
        """
        room = _Room(question, self.window_tokens)
        if room.fits(sent.messages(turns, question.plan.model)):
            return sent
        if self.when_full == "error" or not turns:
            raise room.full(sent.messages(turns))
        left_out = room.cut(turns, sent.left_out)
        if not room.fits(messages_of(turns[left_out:])):
            raise room.full(messages_of(turns[left_out:]))
        summary: tuple[Message, ...] = ()
        if self.when_full == "compact":
            before = Sent(sent.left_out, sent.summary).messages(turns[:left_out], question.plan.model)
            reply = yield _summarising(question, before)
            summary = _summary(reply)
        _say(left_out - sent.left_out, room, summarised=bool(summary))
        return Sent(left_out, summary)


class _Room:
    """How much fits beside a question."""

    def __init__(self, question: Question, window_tokens: int | None) -> None:
        self._question = question
        plan = question.plan
        self.window = window_tokens or _window(question)
        self.tokens = None if self.window is None else self.window - int(plan.arguments["max_tokens"])
        self.count = 0

    def fits(self, messages: list[Message], share: float = 1.0) -> bool:
        """Whether the question fits after these messages, into that share of the room."""
        if self.tokens is None:
            return True
        body = {**self._question.plan.arguments, "messages": [*messages, *self._question.messages]}
        if prompt_bytes(body) < self.tokens * share and not _has_media(body):
            return True  # no token is shorter than a byte
        counter, _ = offline_counter(self._question.plan.model)
        self.count = round(counter.request(body).tokens * _MARGIN)
        return self.count <= self.tokens * share

    def cut(self, turns: Sequence[Turn], first: int) -> int:
        """How many turns are to be left out, at least one more than `first`."""
        least = min(first + 1, len(turns))
        cuts = range(least, len(turns))
        return next((cut for cut in cuts if self.fits(messages_of(turns[cut:]), DOWN_TO)), len(turns))

    def full(self, messages: list[Message]) -> ContextFull:
        """Why it cannot be sent."""
        self.fits(messages)
        what = "this conversation" if messages else "this question"
        return ContextFull(
            f"{what} is too long for {self._question.plan.model}: about {self.count:,} tokens (counted offline) and "
            f"max_tokens {self._question.plan.arguments['max_tokens']:,} in a window of {self.window:,}. Nothing was "
            'sent. chat.when_full = "trim" leaves the oldest turns out, "compact" puts a summary in their place; '
            "chat.undo() takes the last ones back, a smaller max_tokens makes room.",
            tokens=self.count,
            window_tokens=self.window or 0,
        )


def _window(question: Question) -> int | None:
    from llmnb.pricing.book import find

    known = find(question.access.provider, question.plan.model) or find("anthropic", question.plan.model)
    return None if known is None else known[1].context_window


def _has_media(body: dict[str, Any]) -> bool:
    listed = [message["content"] for message in body["messages"] if isinstance(message["content"], list)]
    blocks = (block for content in listed for block in content)
    return any(block.get("type") in ("image", "document") for block in blocks)


def _summarising(question: Question, before: list[Message]) -> Question:
    """What asks for the summary: quiet, with no tool to be called, and as its own row of the ledger."""
    plan = question.plan
    arguments = {**plan.arguments, "max_tokens": min(_SUMMARY_TOKENS, plan.arguments["max_tokens"])}
    arguments.pop("output_config", None)
    if "tools" in arguments:
        arguments["tool_choice"] = {"type": "none"}
    ledger = {"tag": "compaction", **plan.ledger}
    plan = replace(plan, arguments=arguments, display="none", ledger=ledger, tools=None)
    messages = [*before, {"role": "user", "content": ASKED_FOR_SUMMARY}]
    return replace(question, plan=plan, messages=messages, on_reply=None)


def _summary(reply: Reply) -> tuple[Message, ...]:
    if reply.refused or not reply.text.strip():
        raise InvalidRequest(
            f"the conversation could not be summarised (stop_reason {reply.stop_reason}), so there is no room for the "
            'question: it was not sent. chat.when_full = "trim" leaves the oldest turns out.'
        )
    said = [{"type": "text", "text": reply.text}]
    return ({"role": "user", "content": ASKED_FOR_SUMMARY}, {"role": "assistant", "content": said})


def _say(turns: int, room: _Room, *, summarised: bool) -> None:
    what = f"the oldest {turns} turns are" if turns != 1 else "the oldest turn is"
    done = "sent as a summary from now on, which was a call of its own" if summarised else "not sent any more"
    warn_user(
        f"the context window of {room.window:,} tokens is full: {what} {done}. chat.messages has all that was said, "
        "chat.sent_messages what is sent.",
        LlmnbWarning,
    )
