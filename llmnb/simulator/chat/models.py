"""The models that the simulator serves over the chat completions wire, and what each of them refuses.

Ids follow the installed openai SDK's list and ollama's library; contexts follow genai-prices 0.2.3; what a model
refuses follows https://platform.openai.com/docs/guides/reasoning.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from llmnb.simulator.catalog import Model
from llmnb.simulator.json_value import Json

Thoughts = Literal["none", "counted", "beside", "reasoning", "reasoning_content"]


@dataclass(frozen=True, slots=True)
class ChatModel:
    """One model.

    `thoughts` is how it tells what it thought: not at all (it does not think), `counted` in the usage only, `beside`
    the completion tokens and only in the total (as Gemini does), or as text in the field of that name.
    """

    id: str
    owner: str
    thoughts: Thoughts = "none"
    max_input_tokens: int = 128_000
    max_tokens: int = 16_384
    takes_schema: bool = True
    bills_cache_writes: bool = False

    @property
    def is_reasoning(self) -> bool:
        """Whether it thinks before it answers, and refuses what such models of OpenAI's refuse."""
        return self.thoughts == "counted"

    @property
    def is_local(self) -> bool:
        """Whether it runs where ollama does, which counts no more than what was read and written."""
        return self.owner == "library"

    @property
    def asked(self) -> Model:
        """The model as the simulator's own head is asked."""
        thinks = "off" if self.thoughts == "none" else "adaptive"
        return Model(
            self.id, self.id, self.owner, (4, 6), "2026-01-01",
            max_input_tokens=self.max_input_tokens, max_tokens=self.max_tokens, thinking=thinks,
        )  # fmt: skip

    def info(self) -> Json:
        """The model as `GET /v1/models` lists it."""
        return {"id": self.id, "object": "model", "created": 1_767_225_600, "owned_by": self.owner}


CHAT_MODELS = (
    ChatModel("gpt-6-sol", "openai", "counted", 1_000_000, 128_000, bills_cache_writes=True),
    ChatModel("gpt-5.2", "openai", "counted", 400_000, 128_000),
    ChatModel("gpt-5-mini", "openai", "counted", 400_000, 128_000),
    ChatModel("gpt-4o", "openai"),
    ChatModel("gpt-4o-mini", "openai"),
    ChatModel("gpt-4-turbo", "openai", max_tokens=4_096, takes_schema=False),
    ChatModel("gemini-2.5-flash", "google", "beside", 1_000_000, 65_536),
    ChatModel("llama3.2", "library", max_input_tokens=131_072),
    ChatModel("qwen3:8b", "library", "reasoning", 40_960),
    ChatModel("deepseek-r1", "library", "reasoning_content"),
)

BY_ID = {model.id: model for model in CHAT_MODELS}
