"""`LLM`: a model with its settings, to ask questions of."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, Never, TypeAlias, TypeVar, Unpack, cast, overload

from llmnb import settings as settings_room
from llmnb.asking.access import Access
from llmnb.asking.content import content_of
from llmnb.asking.exchange import Exchange
from llmnb.asking.params import KNOWN, SAMPLING, LLMParams, Options, Plan, check_names, plan
from llmnb.asking.prewarming import Prewarmed, prewarming, ttl_for
from llmnb.asking.question import Question
from llmnb.asking.routed import Routing, ways_of
from llmnb.asking.ways import Accesses
from llmnb.client import UNSAID, cache_mode
from llmnb.errors import InvalidRequest
from llmnb.events import StreamEvent
from llmnb.jobs.options import RETRIES
from llmnb.messages.prompt_outline import prompt_bytes
from llmnb.middleware.history import history
from llmnb.reply import Reply
from llmnb.routing import Router, router_of
from llmnb.templates import opened, wanted

if TYPE_CHECKING:
    import pandas as pd
    from anthropic.types import TextBlockParam, ThinkingConfigParam

    from llmnb.asking.content import Prompt
    from llmnb.asking.extraction import Rows
    from llmnb.asking.params import Effort
    from llmnb.asking.window import WhenFull
    from llmnb.chat import Chat
    from llmnb.durations import Duration
    from llmnb.estimate import Estimate
    from llmnb.jobs.estimate import MapEstimate
    from llmnb.jobs.mapped import Mapped
    from llmnb.jobs.mapping import Job
    from llmnb.jobs.options import Errors, MapOptions, Via
    from llmnb.jobs.written import MappedFile
    from llmnb.prompt_cache import Mode
    from llmnb.records import CacheUse
    from llmnb.templates import Template

    RowPrompt: TypeAlias = str | Template | Callable[[pd.Series[Any]], Any]

T = TypeVar("T")

_SHOWN_CHARS = 40
_LONG_BYTES = 1_024
"""A shorter system prompt is below every model's minimum for caching."""


class LLM:
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

    # Values -----------------------------------------------------------------------------------------------------------

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

    # Many rows --------------------------------------------------------------------------------------------------------

    @overload
    def map(
        self, rows: Any, prompt: RowPrompt, *, dry_run: Literal[True], **options: Unpack[MapOptions]
    ) -> MapEstimate: ...
    @overload
    def map(
        self, rows: Any, prompt: RowPrompt, *, out: str | PathLike[str], **options: Unpack[MapOptions]
    ) -> MappedFile: ...
    @overload
    def map(
        self,
        rows: Any,
        prompt: RowPrompt,
        *,
        dry_run: Literal[False] = ...,
        out: None = ...,
        **options: Unpack[MapOptions],
    ) -> Mapped: ...
    def map(
        self,
        rows: Any,
        prompt: RowPrompt,
        *,
        schema: Any = None,
        concurrency: int | None = None,
        retries: int = RETRIES,
        errors: Errors = "keep",
        progress: bool = True,
        dry_run: bool = False,
        confirm: bool = False,
        via: Via = "live",
        within: Duration | None = None,
        executor: Any = None,
        out: str | PathLike[str] | None = None,
        **options: Unpack[Options],
    ) -> Mapped | MappedFile | MapEstimate:
        """Asks the same of every row: `llm.map(frame, "Summarise: {{ abstract }}")`.

        Every finished row is on disk when it is finished. When the kernel dies or is stopped, the same call goes on,
        and asks what is not finished; rows may have been added, changed or sorted by then. Another template, model or
        setting is another run. Rows that ask the same are asked once.

        Args:
            rows: a DataFrame, a Series, a list, an iterator, or a Path to a CSV, JSON Lines or Parquet file.
            prompt: a template, whose fields are the columns (rows without columns: {{ value }}; a column with any name:
                {{ row["my column"] }}), or a function that makes a prompt of a row, such as `[row.picture, "What?"]`
                with a Path in the column.
            schema: a type as for `extract`; its fields become columns. Default: the template's.
            concurrency: how many rows are asked at once; default: the setting.
            retries: with a schema, how often the model is told what was wrong.
            errors: "keep" has a row that failed tell why; "raise" ends the run at the first.
            progress: shows how far it is: a bar in a notebook, a line in a terminal, nothing in a script.
            dry_run: sends nothing, and gives a `MapEstimate`: tokens, dollars and minutes, by what is known of such
                answers and of the account's limits, how many rows are finished, and how many in the response cache.
            confirm: shows that estimate, and asks you before the first row is sent.
            via: "batch" sends the rows as message batches: half the price, ready within a day, mostly within an hour.
                It waits for them, and may be stopped or killed: the same call waits on, and nothing is sent twice
                (`llmnb.batches()`). Requests that expired, or failed on the API's side, are sent once more. "auto"
                chooses by when the rows are needed.
            within: when that is, from now: "2h", or seconds.
            executor: a `dask.distributed.Client`, whose workers ask in the place of this process (`pip install
                'llmnb[dask]'`, there, too); `concurrency` is that of all of them together. They share the ledger, and
                with it budgets and rate limits: on several machines set LLMNB_STORE_URL=postgresql://… and, for the
                response cache, LLMNB_CACHE_URL=redis://…, here and in their environment, which has to hold the API key,
                too: keys are not sent. A row whose worker is lost is asked again by another one.
            out: a path of a Parquet file to write the results to, for more rows than fit into memory: a file or an
                iterator is read in pieces then. It is there when the run is over; what names the rows is a column.
            **options: any setting of `LLM`, for all rows; `fresh=True` asks finished ones, too. `budget_usd` is what
                the run may cost in all, with what it cost before: a row that could take it over, if its answer were as
                long as max_tokens allows, is not asked, and says so.

        Returns:
            The rows in their order with their index, and with the columns `text` or the schema's fields, `cost_usd`,
            `source`, `error`, `input_tokens`, `output_tokens` and `stop_reason` (`…_llm` where a column has that name
            already); with `out`, a `MappedFile` (`.path`, `.frame()`). Figures of equal rows stand at the first.
            `.retry_failed()` asks again what failed; what failed at no cost (no connection, rate limits) the same call
            asks again by itself. `.run_id` is the ledger's.

        Raises:
            InvalidRequest: a column is missing, or the rows or settings cannot be asked; nothing was sent.
            MissingKey: there is no API key; nothing was sent.
            Exception: what every row would fail with: a wrong key, an unknown model, a budget that is spent, or eight
                rows at the beginning that all failed the same way. Finished rows are kept.
        """
        given: dict[str, Any] = {"schema": schema, "concurrency": concurrency, "retries": retries, "errors": errors}
        given |= {"progress": progress, "confirm": confirm, "via": via, "within": within, "executor": executor}
        given["out"] = out
        job = self._job(rows, prompt, {**options, **given})
        return job.estimate() if dry_run else job.ask()

    @overload
    async def amap(
        self, rows: Any, prompt: RowPrompt, *, dry_run: Literal[True], **options: Unpack[MapOptions]
    ) -> MapEstimate: ...
    @overload
    async def amap(
        self, rows: Any, prompt: RowPrompt, *, out: str | PathLike[str], **options: Unpack[MapOptions]
    ) -> MappedFile: ...
    @overload
    async def amap(
        self,
        rows: Any,
        prompt: RowPrompt,
        *,
        dry_run: Literal[False] = ...,
        out: None = ...,
        **options: Unpack[MapOptions],
    ) -> Mapped: ...
    async def amap(
        self,
        rows: Any,
        prompt: RowPrompt,
        *,
        dry_run: bool = False,
        out: str | PathLike[str] | None = None,
        **options: Unpack[MapOptions],
    ) -> Mapped | MappedFile | MapEstimate:
        """The async twin of `map`."""
        job = self._job(rows, prompt, {**options, "out": out})
        return job.estimate() if dry_run else await job.aask()

    # Before asking ----------------------------------------------------------------------------------------------------

    def estimate(self, prompt: Prompt, *, exact: bool = False, **options: Unpack[Options]) -> Estimate:
        """What asking this would read, write and cost; nothing is sent and, unless `exact`, no network is used.

        What is in the response cache costs nothing, and is said to. With the prompt cache: by the breakpoints that this
        call would get now, and without.

        Args:
            prompt: as for `ask`.
            exact: have the API count the input (`count_tokens`: free, and needs a key).
            **options: any setting of `LLM`, for this call; `tools` may be bare definitions, too.

        Raises:
            InvalidRequest: the call could not work.
            MissingKey, anthropic.APIError: with `exact` only.
        """
        from llmnb.asking.estimating import estimated

        return estimated(self._asked(prompt, options, typed=True), self._settings, exact=exact)

    async def aestimate(self, prompt: Prompt, *, exact: bool = False, **options: Unpack[Options]) -> Estimate:
        """The async twin of `estimate`."""
        from llmnb.asking.estimating import aestimated

        return await aestimated(self._asked(prompt, options, typed=True), self._settings, exact=exact)

    def prewarm(self, documents: Prompt | None = None, **options: Unpack[Options]) -> Prewarmed:
        """Has the API cache what the next questions begin with, so that the first one reads it already.

        Cached are tools, system prompt and `documents`; a question reads them when it has the same system prompt and
        tools and begins with the same documents: `llm.prewarm(Path("paper.pdf"))`, then
        `llm([Path("paper.pdf"), "What is …?"])`. It costs what writing that prompt to the cache costs, or, where it is
        there already, what reading it does, which renews it. It is a row of the ledger (tag "prewarm", unless you give
        one).

        Args:
            documents: what questions will begin with: a text, a Path, bytes, a content block, or a list of them.
            **options: any setting of `LLM`, for this call, `tools` among them; prompt_cache="1h" keeps it for an hour
                instead of five minutes.

        Returns:
            What it cost, and until when it holds.

        Raises:
            InvalidRequest: there is nothing to cache, it is too short for the model, or the API cannot prewarm with
                these settings; nothing was sent.
            MissingKey: there is no API key; nothing was sent.
            anthropic.APIError: whatever the SDK raises, unchanged.
        """
        exchange, access, asked_at = self._prewarming(documents, options)
        return Prewarmed.of(exchange.ask(access.sync), asked_at)

    async def aprewarm(self, documents: Prompt | None = None, **options: Unpack[Options]) -> Prewarmed:
        """The async twin of `prewarm`."""
        exchange, access, asked_at = self._prewarming(documents, options)
        return Prewarmed.of(await exchange.aask(access.here), asked_at)

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

    def _asked(self, prompt: Prompt, options: Mapping[str, Any], *, typed: bool = False) -> Question:
        if type(prompt) is not str:
            prompt, options = opened(prompt, options, typed=typed)
        return self._question(self._messages(prompt), options)

    def _question(self, messages: Sequence[Any], options: Mapping[str, Any], *, chat: str | None = None) -> Question:
        """What will be sent; for `Chat`, too."""
        planned = self._planned(options, "a call") if options else self._plan
        question = Question(planned, messages, self._accesses.of(planned), self._settings.concurrency, chat)
        if self._router is None or "model" in options:
            return question
        others = [self._planned({**options, "model": name}, "a call") for name in self._router.models[1:]]
        ways = ways_of([planned, *others], self._accesses.of)
        return replace(question, routing=Routing(self._router, ways, self._settings))

    def _prewarming(self, documents: Prompt | None, options: Mapping[str, Any]) -> tuple[Exchange, Access, datetime]:
        planned = self._planned({"prompt_cache": self._prompt_cache, **options}, "prewarm()")
        access = self._accesses.of(planned)
        if access.endpoint is not None:
            raise InvalidRequest(f"{access.provider} cannot be prewarmed: its prompt cache works by itself")
        planned.ledger["prompt_cache"] = ttl_for(planned.ledger["prompt_cache"])
        planned, messages = prewarming(planned, documents)
        exchange = Exchange(planned, messages, limit=self._settings.concurrency)
        return exchange, access, datetime.now().astimezone()

    def _job(self, rows: Any, prompt: object, options: Mapping[str, Any]) -> Job:
        from llmnb.jobs.mapping import job

        return job(rows, prompt, lambda told: self._question([], told), self._settings, dict(options))

    def _planned(self, options: Mapping[str, Any], called: str) -> Plan:
        check_names(options, KNOWN, called)
        return plan({**self._options, **options}, self._settings)

    @property
    def _prompt_cache(self) -> Mode:
        return cast("Mode", self._options.get("prompt_cache", self._access.prompt_cache))

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
    "prompt_cache",
    "display",
    "cache",
    "fresh",
    "sample",
    "ttl",
)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 2]}…{text[-1]}"
