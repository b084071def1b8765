"""The models the simulator offers, with their limits, what each accepts, and the shape `GET /v1/models` gives them.

Ids, context windows and lines follow the installed SDK's model list and genai-prices 0.2.3; cache minimums follow
https://platform.claude.com/docs/en/build-with-claude/prompt-caching (models newer than that table take the
smallest minimum, 512); what a model refuses follows the SDK's parameter docs and the API's error guide.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from llmnb.simulator.json_value import Json

Thinking = Literal["off", "adaptive", "always"]

EFFORTS_45 = ("low", "medium", "high")
EFFORTS_46 = (*EFFORTS_45, "max")
EFFORTS_47 = (*EFFORTS_45, "xhigh", "max")


@dataclass(frozen=True, slots=True)
class Model:
    """One model: limits in tokens, `generation` as (major, minor).

    `thinking` is what happens when a request does not say: `off`; `adaptive`, on and can be switched off; `always`,
    on and cannot be.
    """

    id: str
    name: str
    line: str
    generation: tuple[int, int]
    created: str
    aliases: tuple[str, ...] = ()
    max_input_tokens: int = 1_000_000
    max_tokens: int = 128_000
    cache_minimum_tokens: int = 512
    thinking: Thinking = "off"
    efforts: tuple[str, ...] = EFFORTS_47
    deprecated_at: str | None = None
    retires_at: str | None = None
    fast: bool = False
    server_tools: bool = True
    names: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", frozenset((self.id, *self.aliases)))

    @property
    def takes_sampling(self) -> bool:
        """Whether temperature, top_p and top_k are accepted: up to 4.6."""
        return self.generation <= (4, 6)

    @property
    def takes_prefill(self) -> bool:
        """Whether the last message may be the assistant's: before 4.6."""
        return self.generation < (4, 6)

    @property
    def thinking_types(self) -> frozenset[str]:
        """The `thinking.type` values the model takes."""
        types = {"enabled"} if self.generation <= (4, 6) else set[str]()
        if self.generation >= (4, 6):
            types.add("adaptive")
        if self.thinking != "always":
            types.add("disabled")
        if self.generation >= (5, 5):
            types.add("between_tools")
        return frozenset(types)

    def info(self) -> Json:
        """The model as `GET /v1/models/{id}` gives it."""
        return {
            "type": "model",
            "id": self.id,
            "display_name": self.name,
            "created_at": f"{self.created}T00:00:00Z",
            "lifecycle": "deprecated" if self.deprecated_at else "active",
            "deprecated_at": self.deprecated_at and f"{self.deprecated_at}T00:00:00Z",
            "retires_at": self.retires_at and f"{self.retires_at}T00:00:00Z",
            "line": self.line,
            "max_input_tokens": self.max_input_tokens,
            "max_tokens": self.max_tokens,
            "capabilities": self._capabilities(),
        }

    def _capabilities(self) -> Json:
        newer = self.generation >= (4, 5)
        levels = {level: _support(level in self.efforts) for level in EFFORTS_47}
        kinds = ("adaptive", "between_tools", "disabled", "enabled")
        edits = ("clear_thinking_20251015", "clear_tool_uses_20250919")
        return {
            "batch": _support(True),
            "citations": _support(True),
            "code_execution": _support(self.generation >= (4, 6)),
            "context_management": {"supported": newer}
            | {edit: _support(newer) for edit in edits}
            | {"compact_20260112": _support(self.generation >= (4, 6))},
            "effort": {"supported": bool(self.efforts)} | levels,
            "image_input": _support(True),
            "pdf_input": _support(True),
            "server_tools": _support(self.server_tools)
            | {"code_execution": _support(self.server_tools), "web_search": _support(self.server_tools)},
            "structured_outputs": _support(newer),
            "thinking": {
                "supported": True,
                "types": {kind: _support(kind in self.thinking_types) for kind in kinds},
            },
        }


def _support(supported: bool) -> Json:
    return {"supported": supported}


MODELS = (
    Model("claude-sonnet-5-5", "Claude Sonnet 5.5", "sonnet", (5, 5), "2026-10-07"),
    Model("claude-haiku-5-5", "Claude Haiku 5.5", "haiku", (5, 5), "2026-10-14", max_tokens=64_000),
    Model("claude-opus-5-5", "Claude Opus 5.5", "opus", (5, 5), "2026-09-22", thinking="adaptive", fast=True),
    Model("claude-fable-5-2", "Claude Fable 5.2", "fable", (5, 2), "2026-10-20", thinking="always", fast=True),
    Model("claude-mythos-5-2", "Claude Mythos 5.2", "mythos", (5, 2), "2026-10-20", thinking="always", fast=True),
    Model("claude-fable-5-1", "Claude Fable 5.1", "fable", (5, 1), "2026-08-18", thinking="always"),
    Model("claude-sonnet-5", "Claude Sonnet 5", "sonnet", (5, 0), "2026-06-30", cache_minimum_tokens=1024),
    Model("claude-fable-5", "Claude Fable 5", "fable", (5, 0), "2026-06-09", thinking="always"),
    Model("claude-opus-5", "Claude Opus 5", "opus", (5, 0), "2026-07-21", thinking="adaptive", fast=True),
    Model(
        "claude-opus-4-8", "Claude Opus 4.8", "opus", (4, 8), "2026-05-28", cache_minimum_tokens=1024, fast=True
    ),
    Model("claude-opus-4-7", "Claude Opus 4.7", "opus", (4, 7), "2026-04-16", cache_minimum_tokens=2048),
    Model(
        "claude-opus-4-6", "Claude Opus 4.6", "opus", (4, 6), "2026-02-05", cache_minimum_tokens=4096,
        efforts=EFFORTS_46,
    ),
    Model(
        "claude-sonnet-4-6", "Claude Sonnet 4.6", "sonnet", (4, 6), "2026-02-17", cache_minimum_tokens=1024,
        max_tokens=64_000, efforts=EFFORTS_46,
    ),
    Model(
        "claude-opus-4-5-20251101", "Claude Opus 4.5", "opus", (4, 5), "2025-11-24", aliases=("claude-opus-4-5",),
        max_input_tokens=200_000, max_tokens=64_000, cache_minimum_tokens=4096, efforts=EFFORTS_45,
    ),
    Model(
        "claude-haiku-4-5-20251001", "Claude Haiku 4.5", "haiku", (4, 5), "2025-10-15", aliases=("claude-haiku-4-5",),
        max_input_tokens=200_000, max_tokens=64_000, cache_minimum_tokens=4096, efforts=(),
    ),
    Model(
        "claude-sonnet-4-5-20250929", "Claude Sonnet 4.5", "sonnet", (4, 5), "2025-09-29",
        aliases=("claude-sonnet-4-5",), max_input_tokens=200_000, max_tokens=64_000, cache_minimum_tokens=1024,
        efforts=(), deprecated_at="2026-08-31", retires_at="2026-11-30",
    ),
)  # fmt: skip

BY_NAME = {name: model for model in MODELS for name in model.names}
