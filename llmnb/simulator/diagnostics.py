"""Why a prompt was not read from the cache: the comparison behind `diagnostics.previous_message_id`."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b

from llmnb.simulator.json_value import Json, dumps
from llmnb.simulator.prompt import Block, Prompt, without_control

KEPT = 4096
SECTIONS = ("tools", "system")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What one request's prompt looked like: hashes by section, and the tokens of each message block."""

    model: str
    sections: dict[str, bytes]
    messages: tuple[bytes, ...]
    parameters: bytes
    cached_tokens: int
    section_tokens: dict[str, int]
    message_tokens: tuple[int, ...]


class Diagnostics:
    """The fingerprints of recent requests, by message id."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, Fingerprint] = OrderedDict()

    def remember(self, message_id: str, fingerprint: Fingerprint) -> None:
        """Keep a request's fingerprint for a later comparison."""
        self._known[message_id] = fingerprint
        if len(self._known) > KEPT:
            self._known.popitem(last=False)

    def compare(self, previous_id: str, current: Fingerprint) -> Json | None:
        """The response's `diagnostics`: the first divergence from the request before, or None when there is none."""
        previous = self._known.get(previous_id)
        if previous is None:
            return {"cache_miss_reason": {"type": "previous_message_not_found"}}
        reason = _divergence(previous, current)
        return None if reason is None else {"cache_miss_reason": reason}


def fingerprint(body: Json, prompt: Prompt, cached_tokens: int) -> Fingerprint:
    """The fingerprint of a request whose cache use is known."""
    by_section = {name: [b for b in prompt.blocks if b.section == name] for name in (*SECTIONS, "messages")}
    return Fingerprint(
        model=dumps([body.get("model"), body.get("speed")]),
        sections={name: _hash([_value(b) for b in by_section[name]]) for name in SECTIONS},
        messages=tuple(_hash(_value(b)) for b in by_section["messages"]),
        parameters=_hash([body.get("thinking"), body.get("tool_choice")]),
        cached_tokens=cached_tokens,
        section_tokens={name: sum(b.tokens for b in blocks) for name, blocks in by_section.items()},
        message_tokens=tuple(b.tokens for b in by_section["messages"]),
    )


def _divergence(previous: Fingerprint, current: Fingerprint) -> Json | None:
    missed = previous.cached_tokens
    if previous.model != current.model:
        return {"type": "model_changed", "cache_missed_input_tokens": missed}
    kept = 0
    for name in SECTIONS:
        if previous.sections[name] != current.sections[name]:
            return {"type": f"{name}_changed", "cache_missed_input_tokens": max(0, missed - kept)}
        kept += previous.section_tokens[name]
    for at, message in enumerate(previous.messages):
        if at >= len(current.messages) or current.messages[at] != message:
            kept += sum(previous.message_tokens[:at])
            return {"type": "messages_changed", "cache_missed_input_tokens": max(0, missed - kept)}
    return {"type": "unavailable"} if previous.parameters != current.parameters else None


def _value(block: Block) -> Json:
    return without_control(block.value)


def _hash(value: object) -> bytes:
    return blake2b(dumps(value).encode("utf-8", "replace"), digest_size=12).digest()
