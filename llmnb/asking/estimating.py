"""Makes an `Estimate` of a question: counts what would be sent, looks up what such answers were like, and prices it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, cast

from llmnb.asking.question import Question
from llmnb.errors import InvalidRequest, LlmnbError
from llmnb.estimate import CacheEstimate, Estimate
from llmnb.ledger.history import History, history
from llmnb.ledger.sums import quantile
from llmnb.pricing import cost_of
from llmnb.records import Calibration, Cost, Usage
from llmnb.settings import Settings
from llmnb.tokens import Counter, offline_counter
from llmnb.tokens.blocks import Count
from llmnb.tokens.calibration import COUNTED_ERROR, fitted
from llmnb.trouble import quietly

LOW, TYPICAL, HIGH = 0.1, 0.5, 0.9

Json = dict[str, Any]


def estimated(question: Question, settings: Settings, tools: object, *, exact: bool) -> Estimate:
    """The estimate of a question. With `exact` the API counts its input; otherwise there is no network.

    Raises:
        InvalidRequest: a tool is none.
        MissingKey, anthropic.APIError: the API does not count it.
    """
    sketch = _Sketch(question, settings, tools)
    if not exact:
        return sketch.estimate(sketch.calibrated())
    client = question.access.sync()
    counted = client.messages.count_tokens(**sketch.countable(client.messages.count_tokens))
    return sketch.estimate(sketch.counted(counted.input_tokens))


async def aestimated(question: Question, settings: Settings, tools: object, *, exact: bool) -> Estimate:
    """The async twin of `estimated`."""
    sketch = _Sketch(question, settings, tools)
    if not exact:
        return sketch.estimate(sketch.calibrated())
    client = question.access.here()
    counted = await client.messages.count_tokens(**sketch.countable(client.messages.count_tokens))
    return sketch.estimate(sketch.counted(counted.input_tokens))


@dataclass(frozen=True, slots=True)
class _Input:
    """The input tokens, as well as they are known."""

    tokens: float
    error: float
    counted_by: str
    calibrated_on: int
    complete: bool


class _Sketch:
    """A question that is estimated: its body, and what the books say about such questions."""

    def __init__(self, question: Question, settings: Settings, tools: object) -> None:
        self._plan = plan = question.plan
        self._provider = question.access.provider
        self._settings = settings
        self._project = plan.ledger.get("project") or settings.project
        self._body: Json = {**plan.arguments, **plan.arguments.get("extra_body", {}), "messages": question.messages}
        if tools is not None:
            self._body["tools"] = [_tool(tool) for tool in _listed(tools)]
        self._counter, self._counted_by = offline_counter(plan.model)
        self._offline = self._counter.request(self._body)
        self._history = self._looked_up()

    def _looked_up(self) -> History:
        try:
            return history(self._plan.model, self._counted_by, self._project, self._settings.ledger_path)
        except LlmnbError as error:  # a ledger that cannot be read is no reason to know nothing
            quietly("looking up earlier calls for an estimate", error)
            return History()

    # The input --------------------------------------------------------------------------------------------------------

    def calibrated(self) -> _Input:
        """The offline count, corrected with what was billed."""
        line: Calibration = fitted(self._plan.model, self._counted_by, self._history.pairs)
        tokens = line.billed(self._offline.tokens)
        return _Input(tokens, line.error, self._counted_by, line.calls, self._offline.complete)

    def counted(self, tokens: int) -> _Input:
        """What the API counted."""
        return _Input(tokens, COUNTED_ERROR, "count_tokens", 0, self._offline.complete)

    def countable(self, count_tokens: Callable[..., object]) -> Json:
        """The arguments that `count_tokens` takes of those that would be sent."""
        known = inspect.signature(count_tokens).parameters
        sent = {**self._plan.arguments, "messages": self._body["messages"]}
        if "tools" in self._body:
            sent["tools"] = self._body["tools"]
        return {name: value for name, value in sent.items() if name in known and name != "extra_body"}

    # The whole --------------------------------------------------------------------------------------------------------

    def estimate(self, read: _Input) -> Estimate:
        """The estimate for this input."""
        most = int(self._body["max_tokens"])
        outputs = sorted(min(tokens, most) for tokens in self._history.outputs)
        low, typical, high = (_whole(quantile(outputs, share)) for share in (LOW, TYPICAL, HIGH))
        near, far = read.tokens * (1 - read.error), read.tokens * (1 + read.error)
        dearest = self._cost(Usage(round(far), output_tokens=most))
        return Estimate(
            self._plan.model,
            round(read.tokens),
            most,
            read.counted_by,
            read.error,
            complete=read.complete,
            calibrated_on=read.calibrated_on,
            output_tokens=typical,
            output_low=low,
            output_high=high,
            history_calls=len(outputs),
            project=self._history.project,
            cost_usd=None if typical is None else self._usd(Usage(round(read.tokens), output_tokens=typical)),
            cost_low_usd=self._usd(Usage(round(near), output_tokens=low or 0)),
            cost_high_usd=dearest.usd if high is None else self._usd(Usage(round(far), output_tokens=high)),
            cost_most_usd=dearest.usd,
            input_cost_usd=self._usd(Usage(round(read.tokens))),
            price_id=dearest.price_id,
            cache=self._cache(read, typical or 0),
        )

    def _cache(self, read: _Input, output: int) -> CacheEstimate | None:
        prefix = prefix_before_breakpoint(self._body, self._counter)
        if prefix is None or not self._offline.tokens:
            return None
        counted, ttl, is_marked = prefix
        tokens = min(round(read.tokens * counted.tokens / self._offline.tokens), round(read.tokens))
        rest = Usage(round(read.tokens) - tokens, output_tokens=output)
        written = {"cache_write_1h_tokens" if ttl == "1h" else "cache_write_5m_tokens": tokens}
        return CacheEstimate(
            tokens,
            ttl,
            self._usd(replace(rest, **written)),
            self._usd(replace(rest, cache_read_tokens=tokens)),
            is_marked,
        )

    # Money ------------------------------------------------------------------------------------------------------------

    def _usd(self, usage: Usage) -> Decimal | None:
        return self._cost(usage).usd

    def _cost(self, usage: Usage) -> Cost:
        body = self._body
        return cost_of(
            usage,
            self._plan.model,
            provider=self._provider,
            service_tier=body.get("service_tier"),
            speed=body.get("speed"),
            inference_geo=body.get("inference_geo"),
            overrides=self._settings.prices,
        )


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


# What a cache can hold ------------------------------------------------------------------------------------------------


def prefix_before_breakpoint(body: Mapping[str, Any], counter: Counter) -> tuple[Count, str, bool] | None:
    """The tokens before the last breakpoint of a request, its TTL, and True.

    Without a breakpoint: those before the last message, where the next one would be set, and False; None when that is
    less than the API keeps.
    """
    parts = list(_parts(body, counter))
    marked = [at for at, (_, control) in enumerate(parts) if control]
    if body.get("cache_control"):
        return sum((count for count, _ in parts), Count()), _ttl(body["cache_control"]), True
    if marked:
        count = sum((count for count, _ in parts[: marked[-1] + 1]), Count())
        return count, _ttl(parts[marked[-1]][1]), True
    last = len(list(_blocks(body["messages"][-1])))
    count = sum((count for count, _ in parts[: len(parts) - last]), Count())
    return (count, "5m", False) if count.tokens >= LEAST_CACHED_TOKENS else None


LEAST_CACHED_TOKENS = 1_024
"""No model keeps a shorter prefix (the API's documentation, "Prompt caching")."""


def _parts(body: Mapping[str, Any], counter: Counter) -> Iterable[tuple[Count, object]]:
    """The prompt in the order the cache sees it, each part with its breakpoint."""
    tools = _listed(body.get("tools") or [])
    if tools:
        extra = counter.tools(tools[:1], body.get("tool_choice")).tokens - counter.tool(tools[0]).tokens
        for at, tool in enumerate(tools):
            yield counter.tool(tool) + Count(0 if at else extra), tool.get("cache_control")
    system = body.get("system")
    for block in [{"type": "text", "text": system}] if isinstance(system, str) else _listed(system or []):
        yield counter.block(block), block.get("cache_control")
    for message in body["messages"]:
        for block in _blocks(message):
            yield counter.block(block), block.get("cache_control")


def _blocks(message: Mapping[str, Any]) -> list[Json]:
    content = message.get("content")
    return [{"type": "text", "text": content}] if isinstance(content, str) else _listed(content or [])


def _ttl(control: object) -> str:
    return str(cast("Json", control).get("ttl") or "5m") if isinstance(control, Mapping) else "5m"


def _listed(value: object) -> list[Any]:
    if isinstance(value, (list, tuple)):
        return list(cast("Sequence[Any]", value))
    return [value]


def _tool(tool: object) -> Json:
    """A tool as the API takes it: given so, made by the SDK, or a function."""
    if isinstance(tool, Mapping):
        return dict(cast("Mapping[str, Any]", tool))
    made: Any = tool
    if not hasattr(tool, "to_dict") and callable(tool):
        from anthropic import beta_tool

        made = beta_tool(cast("Callable[..., Any]", tool))
    if hasattr(made, "to_dict"):
        return dict(made.to_dict())
    raise InvalidRequest(
        f"a tool is a function with a docstring, a tool of the SDK, or a dict as the API takes it, not {tool!r}"
    )
