"""A request's prompt as one line of blocks in the order the cache sees them: tools, system, messages.

Each block knows its tokens, the hash of everything up to and including it, and the breakpoint set on it, if any.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b

from llmnb.simulator import tokenizer
from llmnb.simulator.json_value import Json, as_object, as_objects, as_text, content_blocks, dumps

UNCACHEABLE = frozenset({"thinking", "redacted_thinking"})


@dataclass(slots=True)
class Block:
    """One piece of prompt: `section` is tools, system or messages; `ttl` the breakpoint on it ("5m", "1h") or None."""

    section: str
    tokens: int
    value: Json
    ttl: str | None = None
    prefix: bytes = b""


@dataclass(frozen=True, slots=True)
class Prompt:
    """The blocks, and the tokens that belong to none of them."""

    blocks: list[Block]
    loose_tokens: int

    @property
    def tokens(self) -> int:
        """Every input token."""
        return self.loose_tokens + sum(block.tokens for block in self.blocks)

    @property
    def breakpoints(self) -> list[int]:
        """Positions of the blocks that carry a breakpoint."""
        return [at for at, block in enumerate(self.blocks) if block.ttl is not None]


def read_prompt(body: Json, scope: str) -> Prompt:
    """The prompt of a validated request; `scope` is what a cache entry is private to (key or workspace)."""
    blocks = [*_tool_blocks(body), *_system_blocks(body), *_message_blocks(body)]
    _place_automatic_breakpoint(body, blocks)
    if any(block.ttl is not None for block in blocks):
        _hash_prefixes(blocks, body, scope)
    return Prompt(blocks, tokenizer.REQUEST_TOKENS)


def _tool_blocks(body: Json) -> list[Block]:
    tools = as_objects(body.get("tools"))
    blocks = [Block("tools", tokenizer.count_tool(tool), tool, _ttl(tool)) for tool in tools]
    if blocks:
        blocks[0].tokens += tokenizer.TOOLS_TOKENS
    return blocks


def _system_blocks(body: Json) -> list[Block]:
    system = content_blocks(body.get("system"))
    blocks = [Block("system", tokenizer.count_block(part), part, _ttl(part)) for part in system]
    if blocks:
        blocks[0].tokens += tokenizer.SYSTEM_TOKENS
    return blocks


def _message_blocks(body: Json) -> list[Block]:
    found: list[Block] = []
    for message in as_objects(body.get("messages")):
        role = as_text(message.get("role"))
        extra = tokenizer.MESSAGE_TOKENS
        for part in content_blocks(message.get("content")):
            value = {"role": role, **part}
            found.append(Block("messages", tokenizer.count_block(part) + extra, value, _ttl(part)))
            extra = 0
        if extra:
            found.append(Block("messages", extra, {"role": role}))
    return found


def _ttl(part: Json) -> str | None:
    control = as_object(part.get("cache_control"))
    return (as_text(control.get("ttl")) or "5m") if control.get("type") == "ephemeral" else None


def _place_automatic_breakpoint(body: Json, blocks: list[Block]) -> None:
    """The top-level `cache_control` marks the last block that can be cached."""
    ttl = _ttl(body)
    if ttl is None:
        return
    for block in reversed(blocks):
        if block.value.get("type") not in UNCACHEABLE:
            block.ttl = block.ttl or ttl
            return


def _hash_prefixes(blocks: list[Block], body: Json, scope: str) -> None:
    """Chain the hashes. What changes only how messages are read (thinking, tool choice) enters where they begin."""
    running = blake2b(dumps([scope, body.get("model"), body.get("speed")]).encode(), digest_size=16).digest()
    in_messages = False
    for block in blocks:
        if block.section == "messages" and not in_messages:
            in_messages = True
            running = _link(running, dumps([body.get("thinking"), body.get("tool_choice")]))
        running = _link(running, dumps(without_control(block.value)))
        block.prefix = running


def _link(running: bytes, text: str) -> bytes:
    return blake2b(running + text.encode("utf-8", "replace"), digest_size=16).digest()


def without_control(value: Json) -> Json:
    """The block without its `cache_control`, which is no part of the prompt."""
    return {key: item for key, item in value.items() if key != "cache_control"}
