"""`LLM`: a model with its settings, to ask questions of."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Never, Unpack

from llmnb import settings as settings_room
from llmnb.access import Access, OurClients, UserClient
from llmnb.asking import Question
from llmnb.content import content_of
from llmnb.params import KNOWN, SAMPLING, Options, SdkParams, check_names, plan
from llmnb.records import StreamEvent
from llmnb.reply import Reply

if TYPE_CHECKING:
    from anthropic.types import TextBlockParam, ThinkingConfigParam

    from llmnb.chat import Chat
    from llmnb.content import Prompt
    from llmnb.estimate import Estimate
    from llmnb.params import Effort

_SHOWN_CHARS = 40


class LLM:
    """A model with its settings. `llm("…")` asks it; nothing is sent before that.

    In a notebook or an IPython terminal the answer streams into a live view; in a script it stays quiet. Every
    setting can also be given for one call: `llm("…", max_tokens=100)`; there, None goes back to the default.

    Args:
        model: the model's name; default: the setting `model` (LLMNB_MODEL).
        system: the system prompt, a text or text blocks.
        project: project written on the ledger rows; default: the setting.
        tag: tag written on the ledger rows.
        max_tokens: the longest answer in tokens; default: the setting, else the model's limit, at most 8,192. Long
            answers are streamed underneath, as the SDK demands.
        temperature: sampling parameters, sent only when given; models from 4.7 on refuse them, and llmnb says so
            before it sends anything. So for `top_p` and `top_k`.
        thinking: True, False, or the SDK's dict.
        effort: how much work the model puts in: low, medium, high, xhigh, max.
        stop_sequences: texts that end the answer.
        client: a client of the anthropic SDK to ask through, of any class; default: one of the environment's key.
        display: widget, html, terminal, static, print or none; default: the setting, else what fits.
        log_content: write prompts and answers into the ledger, too; default: the setting.
        **params: other parameters of the SDK's `messages.create`, such as `service_tier` or `extra_headers`.

    Raises:
        InvalidRequest: the model is known to refuse one of the settings.
        UnknownModel: `model` is no name.
        SettingsError: a setting of the environment or of pyproject.toml is wrong.
        TypeError: an argument does not exist.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        system: str | Sequence[TextBlockParam] | None = None,
        project: str | None = None,
        tag: str | None = None,
        max_tokens: int | None = None,
        temperature: float | None = None,
        top_p: float | None = None,
        top_k: int | None = None,
        thinking: bool | ThinkingConfigParam | None = None,
        effort: Effort | None = None,
        stop_sequences: str | Sequence[str] | None = None,
        client: object | None = None,
        display: str | None = None,
        log_content: bool | None = None,
        **params: Unpack[SdkParams],
    ) -> None:
        given: dict[str, Any] = {
            "model": model,
            "system": system,
            "project": project,
            "tag": tag,
            "max_tokens": max_tokens,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "thinking": thinking,
            "effort": effort,
            "stop_sequences": stop_sequences,
            "display": display,
            "log_content": log_content,
        }
        check_names(params, (*KNOWN, "client"), "LLM()")
        self._settings = settings_room.load()
        self._options = {name: value for name, value in {**given, **params}.items() if value is not None}
        self._plan = plan(self._options, self._settings)
        self._access: Access = OurClients(self._settings) if client is None else UserClient(client)

    @property
    def model(self) -> str:
        """The name of the model that is asked."""
        return self._plan.model

    @property
    def options(self) -> dict[str, Any]:
        """What was set, by name; a copy."""
        return dict(self._options)

    # Asking -----------------------------------------------------------------------------------------------------------

    def ask(self, prompt: Prompt, **options: Unpack[Options]) -> Reply:
        """Asks, and gives the whole answer.

        Args:
            prompt: a text; or bytes, a Path (image, PDF, text), an SDK content block, or a list of all these.
            **options: any setting of `LLM`, for this call.

        Raises:
            InvalidRequest: the call cannot work; nothing was sent.
            MissingKey: there is no API key; nothing was sent.
            IncompleteReply: the stream ended before the answer did; `.partial` holds its beginning.
            anthropic.APIError: whatever the SDK raises, unchanged.
            KeyboardInterrupt: the answer was stopped.
        """
        return self._question(self._messages(prompt), options).ask()

    __call__ = ask

    async def aask(self, prompt: Prompt, **options: Unpack[Options]) -> Reply:
        """The async twin of `ask`, for `await` at the top level of a cell and elsewhere."""
        return await self._question(self._messages(prompt), options).aask()

    def stream(self, prompt: Prompt, **options: Unpack[Options]) -> Generator[StreamEvent, None, Reply]:
        """Asks, and gives events as they come: `Thinking`, `Text`, and `Done` with usage and cost at the end.

        Errors are raised, as in `ask`. Closing the generator, or leaving its loop, ends the answer at once.
        """
        return self._question(self._messages(prompt), options).stream()

    def astream(self, prompt: Prompt, **options: Unpack[Options]) -> AsyncGenerator[StreamEvent]:
        """The async twin of `stream`: `async for event in llm.astream("…")`."""
        return self._question(self._messages(prompt), options).astream()

    # Before asking ----------------------------------------------------------------------------------------------------

    def estimate(
        self, prompt: Prompt, *, tools: object = None, exact: bool = False, **options: Unpack[Options]
    ) -> Estimate:
        """What asking this would read, write and cost; nothing is sent and, unless `exact`, no network is used.

        Args:
            prompt: as for `ask`.
            tools: tools that would be given: functions, tools of the SDK, dicts.
            exact: have the API count the input (`count_tokens`: free, and needs a key).
            **options: any setting of `LLM`, for this call.

        Raises:
            InvalidRequest: the call could not work.
            MissingKey, anthropic.APIError: with `exact` only.
        """
        from llmnb.estimating import estimated

        return estimated(self._question(self._messages(prompt), options), self._settings, tools, exact=exact)

    async def aestimate(
        self, prompt: Prompt, *, tools: object = None, exact: bool = False, **options: Unpack[Options]
    ) -> Estimate:
        """The async twin of `estimate`."""
        from llmnb.estimating import aestimated

        return await aestimated(self._question(self._messages(prompt), options), self._settings, tools, exact=exact)

    # ------------------------------------------------------------------------------------------------------------------

    def chat(self, *text: Never, name: str | None = None, system: str | None = None) -> Chat:
        """A conversation with this model.

        Args:
            name: a named conversation is continued when the kernel has one of that name.
            system: the system prompt of this conversation; default: the LLM's.

        Raises:
            TypeError: a text was given; `chat = llm.chat()`, then `chat("…")`.
        """
        if text:
            raise TypeError(
                'llm.chat() starts a conversation and takes no text: chat = llm.chat(), then chat("…"). '
                'To name it: llm.chat(name="…").'
            )
        from llmnb.chat import open_chat

        return open_chat(self, name=name, system=system)

    # ------------------------------------------------------------------------------------------------------------------

    def _question(self, messages: Sequence[Any], options: Mapping[str, Any], *, chat: str | None = None) -> Question:
        """What will be sent; for `Chat`, too."""
        planned = self._plan
        if options:
            check_names(options, KNOWN, "a call")
            planned = plan({**self._options, **options}, self._settings)
        return Question(planned, messages, self._access, self._settings.concurrency, chat)

    def _messages(self, prompt: Prompt) -> list[Any]:
        return [{"role": "user", "content": content_of(prompt)}]

    def __repr__(self) -> str:
        shown = {name: value for name, value in self._options.items() if name in _SHOWN}
        return f"LLM({', '.join([repr(self.model), *(f'{name}={_short(value)}' for name, value in shown.items())])})"


# values of the others may be secrets
_SHOWN = (
    "system",
    "project",
    "tag",
    "max_tokens",
    *SAMPLING,
    "thinking",
    "effort",
    "stop_sequences",
    "display",
)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 2]}…{text[-1]}"
