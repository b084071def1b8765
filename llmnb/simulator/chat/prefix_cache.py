"""Prompt caching as OpenAI does it by itself: beginnings of 1,024 tokens and more, in steps of 128, without a word.

Source: https://platform.openai.com/docs/guides/prompt-caching. What it caches here is cut between messages.
"""

from __future__ import annotations

from hashlib import blake2b

from llmnb.simulator.chat.models import ChatModel
from llmnb.simulator.json_value import dumps
from llmnb.simulator.prompt import Prompt
from llmnb.simulator.prompt_cache import CacheUse

MINIMUM_TOKENS = 1_024
STEP_TOKENS = 128
LIFETIME_S = 600.0


class PrefixCache:
    """The beginnings that were read before."""

    def __init__(self) -> None:
        self._expires: dict[bytes, float] = {}

    def clear(self) -> None:
        """Forget everything."""
        self._expires.clear()

    def use(self, prompt: Prompt, scope: str, now: float, model: ChatModel) -> CacheUse:
        """What of the prompt was read before, and what is kept of it now."""
        link, total, read = scope.encode(), prompt.loose_tokens, 0
        kept: list[bytes] = []
        for block in prompt.blocks:
            link = blake2b(link + dumps(block.value).encode("utf-8", "replace"), digest_size=16).digest()
            total += block.tokens
            if total >= MINIMUM_TOKENS:
                if self._expires.get(link, 0.0) > now:
                    read = _stepped(total)
                kept.append(link)
        self._expires.update(dict.fromkeys(kept, now + LIFETIME_S))
        written = max(0, _stepped(total) - read) if model.bills_cache_writes and total >= MINIMUM_TOKENS else 0
        return CacheUse(total - read - written, read, written)


def _stepped(tokens: int) -> int:
    return tokens - tokens % STEP_TOKENS
