"""Makes an `Estimate` of a question: counts what would be sent, looks up what such answers were like, and prices it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any, cast

from llmnb.asking.kept import kept_answer
from llmnb.asking.question import Question
from llmnb.cache.stored import StoredAnswer
from llmnb.client import marking_of
from llmnb.errors import InvalidRequest, LlmnbError
from llmnb.estimate import CacheEstimate, Estimate, KeptAnswer
from llmnb.ledger.history import History, history
from llmnb.ledger.sums import quantile
from llmnb.middleware.placement import Marking, Placement
from llmnb.pricing import cost_of
from llmnb.prompt_cache import Mode, breakpoints
from llmnb.records import Calibration, CallContext, Cost, Usage
from llmnb.settings import Settings
from llmnb.tokens import offline_counter
from llmnb.tokens.calibration import COUNTED_ERROR, fitted
from llmnb.trouble import quietly

LOW, TYPICAL, HIGH = 0.1, 0.5, 0.9

Json = dict[str, Any]


def estimated(question: Question, settings: Settings, *, exact: bool) -> Estimate:
    """The estimate of a question. With `exact` the API counts its input; otherwise there is no network.

    Raises:
        InvalidRequest: a tool is none.
        MissingKey, anthropic.APIError: the API does not count it.
    """
    sketch = _Sketch(question, settings)
    if not exact:
        return sketch.estimate(sketch.calibrated())
    _check_counts(question)
    client = question.access.sync()
    counted = client.messages.count_tokens(**sketch.countable(client.messages.count_tokens))
    return sketch.estimate(sketch.counted(counted.input_tokens))


async def aestimated(question: Question, settings: Settings, *, exact: bool) -> Estimate:
    """The async twin of `estimated`."""
    sketch = _Sketch(question, settings)
    if not exact:
        return sketch.estimate(sketch.calibrated())
    _check_counts(question)
    client = question.access.here()
    counted = await client.messages.count_tokens(**sketch.countable(client.messages.count_tokens))
    return sketch.estimate(sketch.counted(counted.input_tokens))


def _check_counts(question: Question) -> None:
    if question.access.endpoint is not None:
        raise InvalidRequest(f"{question.access.provider} does not count a prompt before it is sent: leave out exact=")


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

    def __init__(self, question: Question, settings: Settings) -> None:
        self._question = question
        self._plan = plan = question.plan
        self._provider = question.access.provider
        self._settings = settings
        self._project = plan.ledger.get("project") or settings.project
        self._body: Json = {**plan.arguments, **plan.arguments.get("extra_body", {}), "messages": question.messages}
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
        return {name: value for name, value in sent.items() if name in known and name != "extra_body"}

    # The whole --------------------------------------------------------------------------------------------------------

    def estimate(self, read: _Input) -> Estimate:
        """The estimate for this input; one that is in the response cache costs nothing."""
        fresh = self._asked(read)
        answer = kept_answer(self._question, self._body, self._settings)
        if answer is None:
            return fresh
        kept = _kept(answer)
        nothing = dict.fromkeys(_COSTS, Decimal(0))
        known = {
            "output_tokens": kept.output_tokens,
            "output_low": kept.output_tokens,
            "output_high": kept.output_tokens,
        }
        return replace(fresh, **nothing, **known, cache=None, kept=kept, fresh=fresh)

    def _asked(self, read: _Input) -> Estimate:
        """The same for a question that is sent."""
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
        """What the breakpoints do that the marking part would set now, or could set."""
        if self._question.access.endpoint is not None:  # there are none
            return None
        placement = self._placement()
        prompt = placement.outline
        set_ = breakpoints(prompt, placement.likely())
        points = set_ or breakpoints(prompt, placement.possible())
        if not points or not prompt.pieces[-1].total or points[-1].tokens < placement.minimum:
            return None
        # breakpoints are counted by characters, without what stands around the pieces
        counted = self._offline.tokens if self._counted_by == "characters" else prompt.pieces[-1].total
        scale = read.tokens / max(counted, 1)
        end, held = (
            min(round(tokens * scale), round(read.tokens)) for tokens in (points[-1].tokens, placement.held_tokens)
        )
        hour = min(round(max((point.tokens for point in points if point.ttl == "1h"), default=0) * scale), end)
        held = min(held, end)
        return CacheEstimate(
            end,
            points[-1].ttl,
            self._usd(_cached(read, output, end, hour, 0)),
            self._usd(_cached(read, output, end, hour, end)),
            is_marked=bool(set_),
            breakpoints=points,
            held_tokens=held,
            now_usd=self._usd(_cached(read, output, end, hour, held)) if set_ else None,
        )

    def _placement(self) -> Placement:
        access, plan = self._question.access, self._plan
        mode = cast("Mode", plan.ledger.get("prompt_cache") or access.prompt_cache)
        client = access.known()
        marking = None if client is None else marking_of(client)
        if marking is None:  # nothing was sent by this process yet
            marking = Marking(self._settings, mode, provider=self._provider, project=self._project)
        shared_chars = plan.ledger.get("shared_chars", 0)
        context = CallContext(chat=self._question.chat, project=plan.ledger.get("project"), shared_chars=shared_chars)
        return Placement.of(marking, mode, context, self._body)

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


_COSTS = ("cost_usd", "cost_low_usd", "cost_high_usd", "cost_most_usd", "input_cost_usd")


def _kept(answer: StoredAnswer) -> KeptAnswer:
    usage = answer.outcome().usage or Usage()
    return KeptAnswer(
        model=str(answer.message.get("model") or answer.model_requested),
        created=datetime.fromtimestamp(answer.created_us / 1e6, timezone.utc).astimezone(),  # noqa: UP017
        input_tokens=usage.total_input_tokens,
        output_tokens=usage.output_tokens,
    )


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


def _cached(read: _Input, output: int, end: int, hour: int, held: int) -> Usage:
    """A call whose input is cached up to `end`, up to `hour` for an hour, and of which `held` is there."""
    return Usage(
        round(read.tokens) - end,
        cache_read_tokens=held,
        cache_write_1h_tokens=max(hour - held, 0),
        cache_write_5m_tokens=max(end - max(hour, held), 0),
        output_tokens=output,
    )
