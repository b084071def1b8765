"""`LLM`: a model with its settings, to ask questions of."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Never, Unpack

from llmnb import settings as settings_room
from llmnb.asking.access import Access
from llmnb.asking.foresight import LooksAhead
from llmnb.asking.params import KNOWN, SAMPLING, LLMParams, Options, check_names, plan
from llmnb.asking.question import Question
from llmnb.asking.routed import Routing, ways_of
from llmnb.asking.values import AsksForValues
from llmnb.asking.ways import Accesses
from llmnb.client import UNSAID, cache_mode
from llmnb.events import StreamEvent
from llmnb.jobs.doors import AsksOfRows
from llmnb.messages.prompt_outline import prompt_bytes
from llmnb.middleware.history import history
from llmnb.reply import Reply
from llmnb.routing import Router, router_of
from llmnb.templates import wanted

if TYPE_CHECKING:
    from anthropic.types import TextBlockParam, ThinkingConfigParam

    from llmnb.asking.content import Prompt
    from llmnb.asking.params import Effort
    from llmnb.asking.window import WhenFull
    from llmnb.chat import Chat
    from llmnb.durations import Duration
    from llmnb.prompt_cache import Mode
    from llmnb.records import CacheUse

_SHOWN_CHARS = 40
_LONG_BYTES = 1_024
"""A shorter system prompt is below every model's minimum for caching."""


class LLM(AsksForValues, AsksOfRows, LooksAhead):
    """A model with its settings. `llm("…")` asks it; nothing is sent before that.

    In a notebook or an IPython terminal the answer streams into a live view; in a script it stays quiet. Every
    setting can also be given for one call: `llm("…", max_tokens=100)`; there, None goes back to the default (but
    prompt_cache=None is without caching).

    Args:
        model: the model's name; default: the setting `model` (LLMNB_MODEL). A list of names, or a `Router`, has the
            next one answer where one is overloaded or out of reach. Models of others have a prefix:
            "openai:gpt-5.2", "gemini:gemini-2.5-flash", "ollama:llama3.2" (they need `pip install 'llmnb[openai]'`).
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
        prompt_cache: how the API's prompt cache is used for tools, system prompt, long documents and the growing end of
            chats. "5m" and "1h" cache them for so long, at 1.25 and 2 times the input price, to be read at a tenth or
            less. "auto" caches what is likely to be read often enough to pay, by how soon such prompts came again in
            this kernel and, from the ledger, in earlier ones: chats and tool loops from their first turn, anything else
            from its first repetition. Where it guesses wrong again and again it stops: in one kernel and with one model
            it never costs more against no caching than one and a half times the largest prompt and a twentieth of all
            input (`reply.prompt_cache.bound_usd`). None never caches. Default: the setting, "auto". Breakpoints
            (`cache_control`) of your own are respected. `reply.prompt_cache` says what it did and saved.
        client: a client of the anthropic SDK to ask through, of any class, or one of the openai SDK; default: one of
            the environment's key.
        base_url: the address of another server: for `openai:` models one that speaks chat completions, such as
            "http://localhost:8000/v1", for models without a prefix one that speaks Messages.
        display: widget, html, terminal, static, print or none; default: the setting, else what fits.
        log_content: write prompts and answers into the ledger, too; default: the setting.
        cache: True answers what was asked before from the response cache, for nothing, and keeps new answers; "all"
            does so for calls with server tools (web search, code execution) or a container, too; False asks each time.
            Default: the setting, else True.
        fresh: ask again, and keep the new answer in place of the old one.
        sample: the number of an independent answer to the same question; 0, 1, 2 are kept each for itself.
        ttl: how old an answer from the cache may be, in seconds or as "30m", "24h", "7d"; default: any age.
        cache_pace: "reading", or words a second, at which a stream from the cache comes; default: at once.
        **params: `tools` that the model may call, and how far that may go: `max_turns`, `budget_usd`, `time_limit`,
            `tool_timeout`, `tool_choice`, `approve`, `rerun_tools` (see `llmnb.asking.params.ToolParams`); and other
            parameters of the SDK's `messages.create`, such as `service_tier` or `extra_headers`.

    Raises:
        InvalidRequest: the model is known to refuse one of the settings.
        UnknownModel: `model` is no name, or has a prefix that llmnb does not know.
        SettingsError: a setting of the environment or of pyproject.toml is wrong.
        TypeError: an argument does not exist.
    """

    def __init__(
        self,
        model: str | Sequence[str] | Router | None = None,
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
        prompt_cache: Mode | None = UNSAID,
        client: object | None = None,
        base_url: str | None = None,
        display: str | None = None,
        log_content: bool | None = None,
        cache: CacheUse | None = None,
        fresh: bool | None = None,
        sample: int | None = None,
        ttl: Duration | None = None,
        cache_pace: float | Literal["reading"] | None = None,
        **params: Unpack[LLMParams],
    ) -> None:
        self._router = router_of(model)
        given: dict[str, Any] = {
            "model": model if self._router is None else self._router.models[0],
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
            "cache": cache,
            "fresh": fresh,
            "sample": sample,
            "ttl": ttl,
            "cache_pace": cache_pace,
        }
        if prompt_cache is not UNSAID:
            given["prompt_cache"] = cache_mode(prompt_cache, None)
        check_names(params, (*KNOWN, "base_url", "client"), "LLM()")
        self._settings = settings_room.load()
        self._options = {name: value for name, value in {**given, **params}.items() if value is not None}
        self._plan = plan(self._options, self._settings)
        self._accesses = Accesses(self._settings, client, base_url, self._plan.provider)
        self._access: Access = self._accesses.of(self._plan)
        if self._prompt_cache == "auto" and prompt_bytes(self._plan.arguments) > _LONG_BYTES:
            history(self._settings.ledger_path).begin()  # so that it is there when the first question decides by it

    @property
    def model(self) -> str:
        """The name of the model that is asked, with the prefix of its provider."""
        return self._plan.full_name

    @property
    def router(self) -> Router | None:
        """The models that stand in for each other; None where there is one."""
        return self._router

    @property
    def options(self) -> dict[str, Any]:
        """What was set, by name; a copy."""
        return dict(self._options)

    # Asking -----------------------------------------------------------------------------------------------------------

    def ask(self, prompt: Prompt, **options: Unpack[Options]) -> Reply:
        """Asks, and gives the whole answer.

        Args:
            prompt: a text; or bytes, a Path (image, PDF, text), an SDK content block, or a list of all these; one that
                came of a `Template` brings the template's settings along.
            **options: any setting of `LLM`, for this call.

        Raises:
            InvalidRequest: the call cannot work; nothing was sent.
            MissingKey: there is no API key; nothing was sent.
            IncompleteReply: the stream ended before the answer did; `.partial` holds its beginning.
            ToolLoopLimit: with tools, a limit of turns, dollars or time was reached; `.messages` is what was said.
            anthropic.APIError: whatever the SDK raises, unchanged.
            KeyboardInterrupt: the answer was stopped.
        """
        return self._asked(prompt, options).ask()

    __call__ = ask

    async def aask(self, prompt: Prompt, **options: Unpack[Options]) -> Reply:
        """The async twin of `ask`, for `await` at the top level of a cell and elsewhere."""
        return await self._asked(prompt, options).aask()

    def stream(
        self, prompt: Prompt, *, into: Any = None, **options: Unpack[Options]
    ) -> Generator[StreamEvent, None, Reply]:
        """Asks, and gives events as they come: `Thinking`, `Text`, and `Done` with usage and cost at the end.

        Tools, yours and those that run on the API's side, are `ToolCall` and `ToolResult`; sources are `Citation`,
        a request that had to be repeated is a `Retry`, and one held back for a rate limit is `Throttled`.
        With `into`, a type as for `extract`, the value so far comes as `Partial` in the place of text, and the last one
        is the whole, validated; what does not fit raises ExtractionFailed.

        Errors are raised, as in `ask`. Closing the generator, or leaving its loop, ends the answer at once.
        """
        into = into if type(prompt) is str else wanted(prompt, into)
        question = self._asked(prompt, options, typed=into is not None)
        if into is None:
            return question.stream()
        from llmnb.asking import extraction

        return extraction.stream(question, into)

    def astream(self, prompt: Prompt, *, into: Any = None, **options: Unpack[Options]) -> AsyncGenerator[StreamEvent]:
        """The async twin of `stream`: `async for event in llm.astream("…")`."""
        into = into if type(prompt) is str else wanted(prompt, into)
        question = self._asked(prompt, options, typed=into is not None)
        if into is None:
            return question.astream()
        from llmnb.asking import extraction

        return extraction.astream(question, into)

    # Conversations ----------------------------------------------------------------------------------------------------

    def chat(
        self,
        *text: Never,
        name: str | None = None,
        system: str | None = None,
        tools: Any = None,
        when_full: WhenFull | None = None,
        window_tokens: int | None = None,
    ) -> Chat:
        """A conversation with this model.

        Args:
            name: a named conversation is continued when the kernel has one of that name.
            system: the system prompt of this conversation; default: the LLM's.
            tools: tools for every question of it; default: the LLM's.
            when_full: what is done when it has grown out of the context window: "error" (the default) refuses the
                question, "trim" sends the oldest turns no more, "compact" sends a summary in their place.
            window_tokens: how large the window is; default: the model's, as far as it is known.

        Raises:
            TypeError: a text was given; `chat = llm.chat()`, then `chat("…")`.
        """
        if text:
            raise TypeError(
                'llm.chat() starts a conversation and takes no text: chat = llm.chat(), then chat("…"). '
                'To name it: llm.chat(name="…").'
            )
        from llmnb.chat import open_chat

        given = {"tools": tools, "when_full": when_full, "window_tokens": window_tokens}
        more = {key: value for key, value in given.items() if value is not None}
        return open_chat(self, name=name, system=system, **more)

    # ------------------------------------------------------------------------------------------------------------------

    def _question(self, messages: Sequence[Any], options: Mapping[str, Any], *, chat: str | None = None) -> Question:
        """What will be sent; for `Chat`, too."""
        planned = self._planned(options, "a call") if options else self._plan
        question = Question(planned, messages, self._accesses.of(planned), self._settings.concurrency, chat)
        if self._router is None or "model" in options:
            return question
        others = [self._planned({**options, "model": name}, "a call") for name in self._router.models[1:]]
        ways = ways_of([planned, *others], self._accesses.of)
        return replace(question, routing=Routing(self._router, ways, self._settings))

    def __copy__(self) -> LLM:
        # nothing of an LLM changes, but a class of the user's may have what does
        return self if type(self) is LLM else _with(self, _own(self))

    def __deepcopy__(self, memo: dict[int, Any]) -> LLM:
        return self if type(self) is LLM else _with(self, copy.deepcopy(_own(self), memo))

    def __reduce__(self) -> tuple[Any, ...]:
        if self._accesses.client is not None:
            raise TypeError(
                "an LLM with a client of your own cannot be pickled: its connections belong to this process. Make the "
                "LLM where it is used, or leave client= out: the key of the environment is used there, too."
            )
        options = {name: value for name, value in self._options.items() if name != "model"}
        model = self.model if self._router is None else self._router
        return _made, (model, self._accesses.base_url, options, type(self), _own(self))

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
    "prompt_cache",
    "display",
    "cache",
    "fresh",
    "sample",
    "ttl",
)


_PARTS = ("_router", "_settings", "_options", "_plan", "_accesses", "_access")


def _own(llm: LLM) -> dict[str, Any]:
    """What a class that inherits from LLM has added."""
    return {name: value for name, value in vars(llm).items() if name not in _PARTS}


def _with(llm: LLM, own: dict[str, Any]) -> LLM:
    again = object.__new__(type(llm))
    vars(again).update({**vars(llm), **own})
    return again


def _made(model: Any, base_url: str | None, options: dict[str, Any], kind: type[LLM], own: dict[str, Any]) -> LLM:
    """Of any class: its own arguments are not known here, what it made of them is."""
    again = object.__new__(kind)
    LLM.__init__(again, model, base_url=base_url, **options)
    vars(again).update(own)
    return again


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 2]}…{text[-1]}"
