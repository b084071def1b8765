"""The parameters of a question: which there are, what they default to, and how they become a request.

Every one can be set on an `LLM` and for one call; a call's `None` goes back to the default. What is certain to be
refused by the model is refused here, before anything is sent.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict, cast

from llmnb import durations
from llmnb.asking.content import check_characters, check_inside
from llmnb.client import cache_mode, label
from llmnb.errors import InvalidRequest
from llmnb.messages import models
from llmnb.plain_numbers import count, real, whole
from llmnb.providers.known import Provider, split
from llmnb.records import Caching
from llmnb.settings import Settings
from llmnb.tools.toolbox import Toolbox, ceiling_nanousd, toolbox

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from decimal import Decimal
    from typing import Literal, TypeAlias

    import httpx2
    from anthropic.types import (
        CacheControlEphemeralParam,
        DiagnosticsParam,
        MetadataParam,
        OutputConfigParam,
        TextBlockParam,
        ThinkingConfigParam,
    )
    from anthropic.types.message_create_params_container_param import MessageCreateParamsContainerParam

    from llmnb.durations import Duration
    from llmnb.events import ToolCall
    from llmnb.prompt_cache import Mode
    from llmnb.records import CacheUse

    Effort: TypeAlias = Literal["low", "medium", "high", "xhigh", "max"]

SAMPLING = ("temperature", "top_p", "top_k")
SAMPLING_API_VERSION = "2023-06-01"
"""The last API version that takes sampling parameters: 2026-10-21, which the SDK sends, refuses them on every model."""


class SdkParams(TypedDict, total=False):
    """Parameters of the SDK's `messages.create` that are passed on as they are."""

    cache_control: CacheControlEphemeralParam | None
    container: MessageCreateParamsContainerParam | None
    diagnostics: DiagnosticsParam | None
    inference_geo: str | None
    metadata: MetadataParam | None
    output_config: OutputConfigParam | None
    service_tier: Literal["auto", "standard_only"] | None
    speed: Literal["standard", "fast"] | None
    user_profile_id: str | None
    workspace_id: str | None
    extra_headers: Mapping[str, str] | None
    extra_query: Mapping[str, object] | None
    extra_body: Mapping[str, object] | None
    timeout: float | httpx2.Timeout | None


class ToolParams(TypedDict, total=False):
    """The tools of a call and how far their loop may go.

    `tools` are functions with type hints and a docstring (sync ones run in threads), tools of the SDK, or dicts of
    tools that run on the API's side. The model is asked again with their results until it needs none, at most
    `max_turns` answers (default 10), `budget_usd` dollars and `time_limit` (seconds or "5m") in all; then
    `ToolLoopLimit`. A turn that could pass `budget_usd`, by its input and `max_tokens`, is not asked; without tools it
    is a ceiling of the one call (`BudgetExceeded`). One tool may take `tool_timeout` (default 120 s). `tool_choice` is
    auto, any, none, the name of a tool that the first answer must call, or the SDK's dict. `approve` is True to be
    asked before a tool runs, or a function of the `ToolCall` that gives True, False, or a text that says why not.
    Results are kept with the cached answers, so that a cell that runs again runs no finished tool twice;
    `rerun_tools=True` runs them again.
    """

    tools: Any
    tool_choice: Literal["auto", "any", "none"] | str | Mapping[str, Any] | None
    max_turns: int | None
    budget_usd: float | Decimal | None
    time_limit: Duration | None
    tool_timeout: Duration | None
    approve: bool | Callable[[ToolCall], bool | str | Awaitable[bool | str | None] | None] | None
    rerun_tools: bool | None


class LLMParams(SdkParams, ToolParams, total=False):
    """What `LLM` takes besides its named arguments."""


class Options(SdkParams, ToolParams, total=False):
    """Everything that can be set for one call.

    `thinking` is True, False or the SDK's dict; `effort` is how much work the model puts in. `prompt_cache` is 5m, 1h,
    auto, or None for no caching. `project`, `tag`, `template` and `log_content` go to the ledger row, `display` chooses
    how the answer is shown. `cache`, `fresh`, `sample`, `ttl` and `cache_pace` are for the response cache, see `LLM`.
    """

    model: str | None
    system: str | Sequence[TextBlockParam] | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    thinking: bool | ThinkingConfigParam | None
    effort: Effort | None
    stop_sequences: str | Sequence[str] | None
    prompt_cache: Mode | None
    project: str | None
    tag: str | None
    template: str | None
    display: str | None
    log_content: bool | None
    cache: CacheUse | None
    fresh: bool | None
    sample: int | None
    ttl: Duration | None
    cache_pace: float | Literal["reading"] | None


KNOWN = tuple(Options.__annotations__)
_PASSED_ON = tuple(SdkParams.__annotations__)
_LEDGER = ("project", "tag", "template", "log_content")


@dataclass(frozen=True, slots=True)
class Plan:
    """A question without its text: the arguments of `messages.create` but `messages` and `stream`, and what is ours."""

    model: str
    arguments: dict[str, Any]
    display: str | None = None
    provider: Provider | None = None
    """Who serves the model; None: whoever speaks Messages."""
    ledger: dict[str, Any] = field(default_factory=dict[str, Any])
    tools: Toolbox | None = None

    @property
    def full_name(self) -> str:
        """The model's name with its provider's prefix."""
        return self.model if self.provider is None else f"{self.provider.prefix}:{self.model}"

    @property
    def must_stream(self) -> bool:
        """Whether `max_tokens` is more than the SDK sends without streaming."""
        return self.arguments["max_tokens"] > models.nonstreaming_limit(self.model)


def check_names(given: Mapping[str, object], known: tuple[str, ...], called: str) -> None:
    """Refuses keyword arguments that do not exist.

    Raises:
        TypeError: names the first unknown one, the nearest, and all known ones.
    """
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise TypeError(f"{called} has no argument {name!r}.{hint} Known: {', '.join(sorted(known))}.")


def plan(options: Mapping[str, Any], settings: Settings) -> Plan:
    """What will be sent for these options.

    Raises:
        InvalidRequest: the model is known to refuse one of them, or a value is impossible.
        UnknownModel: the model's name is empty or no name at all.
    """
    provider, model = split(models.check_name(settings.model if options.get("model") is None else options["model"]))
    facts = models.facts(model) if provider is None else models.ModelFacts(model, None, None, provider.longest(model))
    arguments: dict[str, Any] = {name: options[name] for name in _PASSED_ON if options.get(name) is not None}
    arguments["model"] = model
    arguments["max_tokens"] = _max_tokens(options.get("max_tokens"), settings, facts)
    if (timeout := _timeout(options.get("timeout"))) is not None:
        arguments["timeout"] = timeout
    if settings.timeout_s is not None:
        arguments.setdefault("timeout", settings.timeout_s)
    _add_system(arguments, options.get("system"))
    _add_stop_sequences(arguments, options.get("stop_sequences"))
    _add_sampling(arguments, options, facts)
    _add_thinking(arguments, options.get("thinking"), facts)
    if options.get("effort") is not None:
        arguments["output_config"] = {**arguments.get("output_config", {}), "effort": options["effort"]}
    ledger = {name: options[name] for name in _LEDGER if options.get(name) is not None}
    ledger |= {name: label(ledger[name], name) for name in ("project", "tag") if name in ledger}
    if "prompt_cache" in options:
        ledger["prompt_cache"] = cache_mode(options["prompt_cache"], None)
    ledger["caching"] = _caching(options, settings)
    tools = toolbox(options)
    if tools is None:
        if options.get("budget_usd") is not None:
            ledger["ceiling_nanousd"] = ceiling_nanousd(options["budget_usd"])
    else:
        arguments["tools"] = list(tools.definitions)
        if tools.choice is not None:
            arguments["tool_choice"] = tools.choice
    display = options.get("display") or settings.display
    return Plan(model, arguments, display, provider, ledger, tools)


def _max_tokens(asked: Any, settings: Settings, facts: models.ModelFacts) -> int:
    if asked is None:
        return settings.max_tokens or facts.default_max_tokens
    return count(asked, "max_tokens")


def _timeout(timeout: object) -> object:
    if timeout is None or type(timeout).__name__ == "Timeout":  # httpx2's, not imported here
        return timeout
    seconds = real(timeout)
    if seconds is None or seconds <= 0:
        raise InvalidRequest(f"timeout must be a number of seconds or an httpx2.Timeout, not {timeout!r}")
    return seconds


def _add_system(arguments: dict[str, Any], system: object) -> None:
    if system is None or (isinstance(system, str) and not system.strip()):
        return
    if not isinstance(system, (str, list, tuple)):
        raise InvalidRequest(f"system must be a text or a list of text blocks, not {type(system).__name__}")
    if isinstance(system, str):
        check_characters(system, "the system prompt")
    else:
        check_inside(cast("Sequence[object]", system), "the system prompt")
    arguments["system"] = system if isinstance(system, str) else list(cast("Sequence[object]", system))


def _add_stop_sequences(arguments: dict[str, Any], stop_sequences: Any) -> None:
    given: Any = stop_sequences or () if isinstance(stop_sequences, str | None) else stop_sequences
    try:
        listed: list[object] = [given] if isinstance(given, str) else list(given)  # an array has no truth value
    except TypeError:
        listed = [given]
    if wrong := [one for one in listed if not isinstance(one, str)]:
        raise InvalidRequest(f"stop_sequences must be a text or a list of texts, and {wrong[0]!r} is none")
    if listed:
        arguments["stop_sequences"] = [str(one) for one in listed]


def _sampled(name: str, value: Any) -> int | float:
    number = whole(value) if name == "top_k" else real(value)
    if number is None:
        raise InvalidRequest(f"{name} must be a {'whole ' if name == 'top_k' else ''}number, not {value!r}")
    return number


def _add_sampling(arguments: dict[str, Any], options: Mapping[str, Any], facts: models.ModelFacts) -> None:
    given = {name: _sampled(name, options[name]) for name in SAMPLING if options.get(name) is not None}
    if not given:
        return
    if not facts.takes_sampling:
        raise InvalidRequest(
            f"{facts.name} takes no {' or '.join(given)} (no Claude model from 4.7 on does): leave it out, and steer "
            "with effort= or in words. Models up to 4.6, such as 'claude-sonnet-4-6', take it."
        )
    arguments["extra_body"] = {**arguments.get("extra_body", {}), **given}
    headers: dict[str, Any] = dict(arguments.get("extra_headers", {}))
    if not any(name.lower() == "anthropic-version" for name in headers):
        headers["anthropic-version"] = SAMPLING_API_VERSION
    arguments["extra_headers"] = headers


# The response cache ---------------------------------------------------------------------------------------------------

READING_WORDS_PER_S = 4.0
"""How fast people read without a sound: 238 words a minute (Brysbaert 2019, a review of 190 studies)."""


def _caching(options: Mapping[str, Any], settings: Settings) -> Caching:
    use, sample, ttl = options.get("cache"), options.get("sample"), options.get("ttl")
    if use is None:
        use = {"on": True, "off": False, "all": "all"}[settings.cache]
    if use not in (True, False, "all"):
        raise InvalidRequest(f"cache must be True, False or 'all' (server tools, too), not {use!r}")
    number = 0 if sample is None else whole(sample)
    if number is None or number < 0:
        raise InvalidRequest(f"sample is the number of an independent answer, from 0, not {sample!r}")
    fresh = options.get("fresh")
    if fresh not in (None, True, False):
        raise InvalidRequest(f"fresh must be True or False, not {fresh!r}")
    return Caching(
        use=use,
        fresh=bool(fresh),
        sample=number,
        ttl_s=None if ttl is None else durations.seconds(ttl, "ttl"),
        words_per_s=_words_per_s(options.get("cache_pace")),
    )


def _words_per_s(pace: Any) -> float | None:
    if pace is None or pace == "reading":
        return pace and READING_WORDS_PER_S
    words = real(pace)
    if words is None or words <= 0:
        raise InvalidRequest(f"cache_pace must be 'reading' or words a second, not {pace!r}")
    return float(words)


# Thinking -------------------------------------------------------------------------------------------------------------


def _add_thinking(arguments: dict[str, Any], thinking: Any, facts: models.ModelFacts) -> None:
    if thinking is None:
        return
    if thinking is True:
        thinking = _thinking_on(arguments["max_tokens"], facts)
    elif thinking is False:
        thinking = _thinking_off(facts)
    elif not isinstance(thinking, Mapping):
        raise InvalidRequest('thinking must be True, False or a dict such as {"type": "adaptive"}')
    asked = dict(cast("Mapping[str, Any]", thinking))
    _check_thinking(asked, facts)
    arguments["thinking"] = asked


def _thinking_on(max_tokens: int, facts: models.ModelFacts) -> dict[str, Any]:
    if facts.takes_adaptive_thinking:
        # newer models keep their thinking hidden unless asked; who says thinking=True wants to read it
        return {"type": "adaptive", "display": "summarized"}
    if max_tokens <= 1_024:
        raise InvalidRequest(f"thinking needs more than 1,024 max_tokens on {facts.name}, not {max_tokens:,}")
    return {"type": "enabled", "budget_tokens": max(1_024, max_tokens // 2)}


def _thinking_off(facts: models.ModelFacts) -> dict[str, Any]:
    if facts.family == "sonnet" and not facts.thinking_can_be_off:
        return {"type": "between_tools"}  # its documented replacement for "disabled": no thinking before the answer
    return {"type": "disabled"}


def _check_thinking(asked: Mapping[str, Any], facts: models.ModelFacts) -> None:
    kind = asked.get("type")
    if kind == "disabled" and not facts.thinking_can_be_off:
        raise InvalidRequest(f"thinking cannot be switched off on {facts.name}; effort='low' keeps it short")
    if kind == "enabled" and not facts.takes_thinking_budget:
        instead = "use thinking=True and effort=" if facts.takes_adaptive_thinking else "leave thinking= out"
        raise InvalidRequest(f"{facts.name} takes no thinking budget: {instead}")
