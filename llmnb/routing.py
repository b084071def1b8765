"""`Router`: several models where one name would do; when the first cannot answer the next one does.

A fallback is a loop over whole pipelines, one a model, each with its client's own retries (see `asking.routed`). Here
stands what it goes by: in which order they are asked, and which of them are left alone for a while because they failed
again and again (a circuit breaker). The package circuitbreaker guards one function by a decorator, purgatory a block;
here it is asked beforehand which of several not to try, and never whether to try none.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, TypeAlias, cast, get_args

from llmnb.errors import InvalidRequest
from llmnb.ledger.connection import reading
from llmnb.ledger.shelf import settle
from llmnb.plain_numbers import real
from llmnb.pricing import cost_of
from llmnb.records import Usage
from llmnb.settings import Settings
from llmnb.trouble import quietly

Policy: TypeAlias = Literal["given", "cheapest", "fastest"]

FAILURES = 3
"""So many failures in a row open a breaker."""
OPEN_S = 30.0
"""And so long it stays open, until one call tries again."""
_ROWS = 2_000
_LEAST_CALLS = 3
"""Fewer calls say nothing of how fast a model is."""
_KEPT_S = 30.0
_USUAL = Usage(input_tokens=1_000, output_tokens=300)
"""What a call is taken to use where the ledger has none."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One model that was asked: `why` it did not answer, or "answered"."""

    model: str
    why: str


@dataclass(frozen=True, slots=True)
class Route:
    """How an answer was come by: the `model` that gave it, and all `hops` in their order, that one the last."""

    model: str
    hops: tuple[Hop, ...]

    @property
    def why(self) -> str:
        """Why this model answered, in words."""
        before = ", ".join(f"{hop.model}: {hop.why}" for hop in self.hops[:-1])
        return f"{self.model} answered" + (f" ({before})" if before else ", the first that was asked")


class Router:
    """Models that stand in for each other, used wherever a model's name is: `LLM(Router(["claude-opus-5-5", …]))`.

    The next one is asked when one is overloaded, rate limited, out of reach or out of order, after the retries of its
    own client, and before anything of an answer was shown. What is wrong with a request is wrong with it everywhere,
    and is raised. `reply.route` says who answered and why; each model asked is a row of the ledger, under the first.

    Args:
        models: their names, as for `LLM`, with the prefix of another provider where they need one.
        policy: "given" asks in this order; "cheapest" by what a call as those on the ledger costs on each, "fastest" by
            the median time to the first token, or to the whole, of the last calls on the ledger, and a model of which
            too little is known is tried. What has no price comes last.
        first_token_s: a model that has shown nothing after so many seconds, its retries included, is left for the next;
            the last one is waited for. Time in which llmnb itself holds the call back, for the account's rate limits, a
            budget or the setting `concurrency`, does not count.
        on_refusal: whether a refusal (stop_reason "refusal") is left for the next, too.

    Raises:
        InvalidRequest: there is no model, one is named twice, or an argument is impossible.
    """

    def __init__(
        self,
        models: Sequence[str],
        *,
        policy: Policy = "given",
        first_token_s: float | None = None,
        on_refusal: bool = False,
    ) -> None:
        names = [models] if isinstance(models, str) else list(models)
        if not names or len(set(names)) < len(names):
            raise InvalidRequest("a Router takes a list of models, each named once")
        if policy not in get_args(Policy):
            raise InvalidRequest(f"policy must be one of {', '.join(get_args(Policy))}, not {policy!r}")
        if not all(isinstance(name, str) for name in cast("list[object]", names)):
            raise InvalidRequest(f"a Router takes the names of models, such as 'claude-sonnet-5-5', not {names!r}")
        seconds = real(first_token_s)
        if first_token_s is not None and (seconds is None or seconds <= 0):
            raise InvalidRequest(f"first_token_s must be a number of seconds, not {first_token_s!r}")
        self.models: tuple[str, ...] = tuple(names)
        self.policy: Policy = policy
        self.first_token_s = seconds
        self.on_refusal = on_refusal

    def __repr__(self) -> str:
        return f"Router({list(self.models)!r}, policy={self.policy!r})"

    @property
    def arguments(self) -> dict[str, Any]:
        """What it was made with, as plain JSON values."""
        return {
            "models": list(self.models),
            "policy": self.policy,
            "first_token_s": self.first_token_s,
            "on_refusal": self.on_refusal,
        }

    def order(self, candidates: Sequence[Candidate], settings: Settings) -> list[int]:
        """The places of the candidates in the order they are asked in; those that failed again and again come last."""
        places = list(range(len(candidates)))
        if self.policy != "given":
            known = numbers(settings)
            places.sort(key=lambda place: known.rank(candidates[place], self.policy, settings))
            if self.policy == "fastest":
                places.sort(key=lambda place: not _is_to_be_tried(candidates[place], known))
        places.sort(key=lambda place: not breakers.allow(candidates[place]))
        if self.policy == "fastest":
            _trials[candidates[places[0]]] += 1
        return places


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model at a provider; `place` keeps two addresses of one provider apart, and two accounts at one address."""

    provider: str
    model: str
    place: str = ""


# What the ledger says -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the last calls used on average, and how long each model took."""

    usage: Usage = _USUAL
    first_ms: dict[tuple[str, str], float] | None = None

    def first_ms_of(self, candidate: Candidate) -> float | None:
        """The median time to its first token; None where too few calls are known."""
        return (self.first_ms or {}).get((candidate.provider, candidate.model))

    def rank(self, candidate: Candidate, policy: Policy, settings: Settings) -> float:
        """The less the sooner."""
        if policy == "fastest":
            known = self.first_ms_of(candidate)
            return float("inf") if known is None else known
        cost = cost_of(self.usage, candidate.model, provider=candidate.provider, overrides=settings.prices)
        return float("inf") if cost.nanousd is None else cost.nanousd


_numbers: dict[object, tuple[float, Numbers]] = {}


def numbers(settings: Settings) -> Numbers:
    """Those of the ledger, at most half a minute old; where it cannot be read, none."""
    place, now = settings.ledger_path, time.monotonic()
    found = _numbers.get(place)
    if found is None or now - found[0] > _KEPT_S:
        try:
            found = now, _read(settings)
        except Exception as trouble:
            quietly("reading the ledger for a route", trouble, but="models are asked in the order they were given")
            found = now, Numbers()
        _numbers[place] = found
    return found[1]


def forget_numbers() -> None:
    """Has them read anew for the next call, and models tried anew."""
    _numbers.clear()
    _trials.clear()


_trials: Counter[Candidate] = Counter()


def _is_to_be_tried(candidate: Candidate, known: Numbers) -> bool:
    """Whether too little is known of a model, which would never be asked, and so never be known.

    This process tries each so often as it takes to know it. One that is not asked any more is forgotten, and tried
    again, when the ledger's last calls have none of its own left.
    """
    if known.first_ms_of(candidate) is None:
        return _trials[candidate] < _LEAST_CALLS
    _trials.pop(candidate, None)
    return False


def _read(settings: Settings) -> Numbers:
    settle(settings.ledger_path)
    with reading(settings.ledger_path) as connection:
        rows = (
            []
            if connection is None
            else connection.execute(
                """
                SELECT provider, model_requested, coalesce(ttft_ms, latency_ms),
                    input_tokens + cache_read_tokens + cache_write_5m_tokens + cache_write_1h_tokens
                        + cache_write_unsplit_tokens, output_tokens
                FROM calls NOT INDEXED WHERE id > (SELECT max(id) FROM calls) - ?
                    AND status = 'ok' AND source = 'live' AND is_call
                """,
                (_ROWS,),
            ).fetchall()
        )
    if not rows:
        return Numbers()
    times: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for provider, model, first_ms, *_ in rows:
        if first_ms is not None:
            times[provider, model].append(first_ms)
    usage = Usage(input_tokens=_mean(row[3] for row in rows), output_tokens=_mean(row[4] for row in rows))
    return Numbers(usage, {key: median(all_ms) for key, all_ms in times.items() if len(all_ms) >= _LEAST_CALLS})


def _mean(values: Iterable[int]) -> int:
    found = list(values)
    return round(sum(found) / len(found))


# Circuit breakers -----------------------------------------------------------------------------------------------------


class Breakers:
    """Remembers who failed in a row: a model that is overloaded, or a whole provider that is out of reach."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: defaultdict[tuple[str, ...], int] = defaultdict(int)
        self._open_until: dict[tuple[str, ...], float] = {}

    def allow(self, candidate: Candidate) -> bool:
        """Whether it is to be asked in its turn; when its time is over, by one call, and by all if that succeeds."""
        with self._lock:
            now = self._clock()
            for key in _keys(candidate):
                until = self._open_until.get(key)
                if until is None:
                    continue
                if now < until:
                    return False
                self._open_until[key] = now + OPEN_S  # this call tries
            return True

    def failed(self, candidate: Candidate, *, all_models: bool) -> None:
        """It did not answer; `all_models` when that says something of the whole provider."""
        with self._lock:
            key = _keys(candidate)[0 if all_models else 1]
            self._failures[key] += 1
            if self._failures[key] >= FAILURES:
                self._open_until[key] = self._clock() + OPEN_S

    def answered(self, candidate: Candidate) -> None:
        """It did."""
        with self._lock:
            for key in _keys(candidate):
                self._failures.pop(key, None)
                self._open_until.pop(key, None)

    def reset(self) -> None:
        """Forgets all."""
        with self._lock:
            self._failures.clear()
            self._open_until.clear()


def _keys(candidate: Candidate) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return (candidate.provider, candidate.place), (candidate.provider, candidate.place, candidate.model)


breakers = Breakers()


def router_of(model: object) -> Router | None:
    """The router that was given in the place of a model's name; None for a name, or for none.

    Raises:
        InvalidRequest: a list of names is not right.
    """
    if isinstance(model, Router):
        return model
    return Router(list(cast("Sequence[str]", model))) if isinstance(model, (list, tuple)) else None
