"""`AsksForValues`: the part of `LLM` that asks for a value of a type, `extract`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from llmnb.asking.asker import Asker
from llmnb.asking.params import Options
from llmnb.jobs.options import RETRIES
from llmnb.templates import wanted

if TYPE_CHECKING:
    from llmnb.asking.content import Prompt
    from llmnb.asking.extraction import Rows

T = TypeVar("T")


class AsksForValues(Asker):
    """An `LLM`'s `extract` and `aextract`."""

    @overload
    def extract(
        self, prompt: Prompt, into: type[list[T]], *, retries: int = ..., **options: Unpack[Options]
    ) -> Rows[T]: ...
    @overload
    def extract(self, prompt: Prompt, into: type[T], *, retries: int = ..., **options: Unpack[Options]) -> T: ...
    @overload
    def extract(self, prompt: Prompt, into: Any = ..., *, retries: int = ..., **options: Unpack[Options]) -> Any: ...
    def extract(self, prompt: Prompt, into: Any = None, *, retries: int = RETRIES, **options: Unpack[Options]) -> Any:
        """Asks for a value of a type: `llm.extract("Ann is 30", Person)` is a `Person`, validated.

        The model is held to the type's JSON schema by the API's structured output, or by a tool where the model or the
        type (recursive ones, dictionaries with free keys) does not take that. An answer that does not validate goes
        back to it with what is wrong. Every attempt is a call of its own in the ledger, and comes from the cache when
        it was made before.

        Args:
            prompt: as for `ask`.
            into: a Pydantic model, dataclass, TypedDict or enum, a list, union or Optional of these, a plain type, or a
                JSON schema as a dict; default: the schema of the prompt's template.
            retries: how often the model is told what was wrong before it is given up.
            **options: any setting of `LLM`, for this call.

        Returns:
            The value. A list is one with `.to_frame()`, which makes a DataFrame of a row an item.

        Raises:
            ExtractionFailed: no answer fits, the model refused, or the answer was cut off; `.text` is the last answer,
                `.errors` what is wrong with it.
            InvalidRequest: there is no JSON schema of `into`; nothing was sent.
        """
        from llmnb.asking import extraction

        into = wanted(prompt, into)
        return extraction.extract(self._asked(prompt, options, typed=True), into, retries)

    @overload
    async def aextract(
        self, prompt: Prompt, into: type[list[T]], *, retries: int = ..., **options: Unpack[Options]
    ) -> Rows[T]: ...
    @overload
    async def aextract(self, prompt: Prompt, into: type[T], *, retries: int = ..., **options: Unpack[Options]) -> T: ...
    @overload
    async def aextract(
        self, prompt: Prompt, into: Any = ..., *, retries: int = ..., **options: Unpack[Options]
    ) -> Any: ...
    async def aextract(
        self, prompt: Prompt, into: Any = None, *, retries: int = RETRIES, **options: Unpack[Options]
    ) -> Any:
        """The async twin of `extract`."""
        from llmnb.asking import extraction

        into = wanted(prompt, into)
        return await extraction.aextract(self._asked(prompt, options, typed=True), into, retries)
