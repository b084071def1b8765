"""`Turn`: a question of a conversation and all that was said until its answer, as content of the Messages API."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from llmnb.asking.content import THINKING, Block, taken_back
from llmnb.reply import Reply

Message = dict[str, Any]

CALLS = ("tool_use", "server_tool_use", "mcp_tool_use")


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer; `model` is the one that was asked.

    `between` are the messages between them: what the model asked of tools, and what they gave.
    """

    user: str | list[Block]
    assistant: list[Block]
    model: str
    between: tuple[Message, ...] = ()

    @property
    def messages(self) -> list[Message]:
        """The turn as messages, the question first and the answer last."""
        return [
            {"role": "user", "content": self.user},
            *self.between,
            {"role": "assistant", "content": self.assistant},
        ]

    @property
    def answered(self) -> list[Block]:
        """All blocks after the question, calls and results of tools among them."""
        return [*(block for message in self.between for block in _blocks(message)), *self.assistant]

    @property
    def has_tools(self) -> bool:
        """Whether a tool was called in it, so that the API must be told of tools to take it back."""
        return any(block.get("type") in ("tool_use", "tool_result") for block in self.answered)

    @classmethod
    def of(cls, question: str | list[Block], reply: Reply, model: str) -> Turn | None:
        """The turn that a reply ends; None when the API would not take its answer back.

        A call without its result is left out, as an answer that was cut off can end with: the API would refuse it.
        """
        answer = _settled(taken_back(reply))
        return cls(question, answer, model, tuple(reply.between)) if answer else None


def _settled(blocks: list[Block]) -> list[Block]:
    done = {block.get("tool_use_id") for block in blocks}
    kept = [block for block in blocks if block["type"] not in CALLS or block.get("id") in done]
    while kept and kept[-1]["type"] in THINKING:
        kept.pop()
    return kept


def messages_of(turns: Iterable[Turn], model: str | None = None) -> list[Message]:
    """The turns as messages. For a `model`, without the thinking of others: a model takes back only its own."""
    messages: list[Message] = []
    for turn in turns:
        foreign = model is not None and turn.model != model
        messages += [_unthought(message) for message in turn.messages] if foreign else turn.messages
    return messages


def turns_of(messages: Sequence[Message], models: Sequence[str], lengths: Sequence[int]) -> Iterator[Turn]:
    """The turns that stand behind `messages`, of so many messages each."""
    first = 0
    for model, length in zip(models, lengths, strict=True):
        question, *between, answer = messages[first : first + length]
        yield Turn(question["content"], answer["content"], model, tuple(between))
        first += length


def _unthought(message: Message) -> Message:
    if message["role"] != "assistant":
        return message
    return {**message, "content": [block for block in message["content"] if block["type"] not in THINKING]}


def _blocks(message: Mapping[str, Any]) -> list[Block]:
    content = message["content"]
    return cast("list[Block]", content) if isinstance(content, list) else [{"type": "text", "text": content}]
