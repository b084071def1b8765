"""`Asker`: what every part of an `LLM` stands on: its settings, and how they and what was typed become a question."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from llmnb.asking.content import content_of
from llmnb.asking.params import KNOWN, Plan, check_names, plan
from llmnb.templates import opened

if TYPE_CHECKING:
    from llmnb.asking.access import Access
    from llmnb.asking.content import Prompt
    from llmnb.asking.question import Question
    from llmnb.asking.ways import Accesses
    from llmnb.prompt_cache import Mode
    from llmnb.settings import Settings


class Asker(ABC):
    """A model with its settings, as `LLM` has them."""

    _settings: Settings
    _options: dict[str, Any]
    _accesses: Accesses
    _access: Access

    @abstractmethod
    def _question(self, messages: Sequence[Any], options: Mapping[str, Any], *, chat: str | None = None) -> Question:
        """What will be sent."""

    def _asked(self, prompt: Prompt, options: Mapping[str, Any], *, typed: bool = False) -> Question:
        if type(prompt) is not str:
            prompt, options = opened(prompt, options, typed=typed)
        return self._question([{"role": "user", "content": content_of(prompt)}], options)

    def _planned(self, options: Mapping[str, Any], called: str) -> Plan:
        check_names(options, KNOWN, called)
        return plan({**self._options, **options}, self._settings)

    @property
    def _prompt_cache(self) -> Mode:
        return cast("Mode", self._options.get("prompt_cache", self._access.prompt_cache))
