"""`Comparison`: what `llmnb.compare` gives, as frames, a summary and a chart."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from importlib import import_module
from statistics import median
from typing import TYPE_CHECKING, Any, cast

from llmnb.errors import InvalidRequest
from llmnb.jobs.comparing.judging import Pair
from llmnb.jobs.comparing.scores import Scores, Standing, counted, standing
from llmnb.records import NANO
from llmnb.reply import Reply, is_cell_result, is_in_kernel, running_cell

if TYPE_CHECKING:
    import pandas as pd

Facts = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Comparison:
    """The answers of all contestants to all prompts, with what they cost, how long they took and how good they are.

    `labels` are the contestants, `prompts` the rows that were asked. `replies` are the whole replies by label, where
    there was one prompt. `criteria` are the judge's, and what it cost is `judge_cost_usd`, apart from `cost_usd`;
    `judge_competes` says that a contestant is of the judge's model, and models tend to like their own answers better.
    """

    labels: tuple[str, ...]
    prompts: pd.DataFrame
    facts: Mapping[str, Sequence[Facts]] = field(repr=False)
    scores: Scores = field(repr=False, default_factory=dict[str, list[float | None]])
    pairs: Sequence[Pair] = field(repr=False, default=())
    criteria: str | None = None
    judge_nanousd: int | None = 0
    judge_calls: int = 0
    judge_competes: bool = False
    replies: Mapping[str, Reply] = field(repr=False, default_factory=dict[str, Reply])
    errors: Mapping[str, Exception] = field(repr=False, default_factory=dict[str, Exception])
    is_single: bool = False
    shown_in: str | None = field(repr=False, default=None)

    # The figures ------------------------------------------------------------------------------------------------------

    @property
    def cost_usd(self) -> Decimal | None:
        """What the answers cost, exact to the nano-dollar; None where one has no price. Without the judge."""
        return _dollars([fact["cost_nanousd"] for column in self.facts.values() for fact in column])

    @property
    def judge_cost_usd(self) -> Decimal | None:
        """What the judge cost; None where it has no price."""
        return _dollars([self.judge_nanousd])

    def frame(self) -> pd.DataFrame:
        """One row for each prompt and contestant, in the order of the prompts, with their index and columns.

        Columns: `contestant`, `model` (that answered), `answer` (with a schema the value), `score`, `cost_usd` (what
        was paid), `full_cost_usd` (what it costs where it is not in the cache), `seconds` and `ttft_seconds` (to the
        first token), `input_tokens`, `output_tokens`, `source`, `stop_reason`, `error`. Of an answer from the cache the
        seconds are those of the cache.
        """
        import pandas as pd

        rows = [(n, label) for n in range(len(self.prompts)) for label in self.labels]
        said = [self.facts[label][n] for n, label in rows]
        columns: dict[str, Any] = {
            "contestant": [label for _, label in rows],
            "model": [fact.get("model") for fact in said],
            "answer": [answer_of(fact) for fact in said],
            "score": pd.array([self._score(label, n) for n, label in rows], "Float64"),
            "cost_usd": pd.array([_float(fact["cost_nanousd"]) for fact in said], "Float64"),
            "full_cost_usd": pd.array([_float(full_of(fact)) for fact in said], "Float64"),
            "seconds": pd.array([_seconds(fact.get("latency_ms")) for fact in said], "Float64"),
            "ttft_seconds": pd.array([_seconds(fact.get("ttft_ms")) for fact in said], "Float64"),
            "input_tokens": pd.array([fact["input_tokens"] for fact in said], "Int64"),
            "output_tokens": pd.array([fact["output_tokens"] for fact in said], "Int64"),
            **{name: [fact.get(name) for fact in said] for name in ("source", "stop_reason", "error")},
        }
        index = self.prompts.index.repeat(len(self.labels))
        prompts = self.prompts.loc[:, [name for name in self.prompts.columns if name not in columns]]
        repeated = cast("Any", prompts.iloc[[n for n, _ in rows]])
        repeated.index = index
        return pd.concat([repeated, pd.DataFrame(columns, index=index)], axis=1)

    def answers(self) -> pd.DataFrame:
        """One row a prompt and one column a contestant: the answers, None where there is none."""
        import pandas as pd

        told = {label: [answer_of(fact) for fact in self.facts[label]] for label in self.labels}
        return pd.concat([self.prompts, pd.DataFrame(told, index=self.prompts.index)], axis=1)

    def summary(self) -> pd.DataFrame:
        """One row a contestant, the best first where there are scores.

        `score` is the mean over the `scored` prompts (with a judge: the win rate, a tie is half a win), `score_low` and
        `score_high` its 95 % interval, by `llmnb.jobs.comparing.scores`; `wins`, `losses`, `ties` and `disagreed` count
        pairs, the last those in which the judge contradicted itself once the answers were swapped. `answered` and
        `failed` count prompts. `full_cost_usd` is for one prompt on average, without the cache; `cost_usd` what was
        paid for all. Seconds are medians over the answers that did not come from the cache.
        """
        import pandas as pd

        rows = [self._summed(label) for label in self.labels]
        summed = pd.DataFrame(rows, index=pd.Index(self.labels, name="contestant"))
        if not self.scores:
            return summed.drop(columns=["score", "score_low", "score_high", "scored"])
        return summed.sort_values("score", ascending=False, kind="stable", na_position="last")

    def verdicts(self) -> pd.DataFrame:
        """One row for each pair of answers that stood before the judge: `first`, `second`, the `winner` (a label or
        "tie"), whether it `agreed` with itself once they were swapped, its reasons in both orders, and its `error`."""
        import pandas as pd

        told = [
            {
                "first": pair.first,
                "second": pair.second,
                "winner": pair.winner,
                "agreed": pair.agreed,
                "reasoning": pair.reasons[0] if pair.reasons else None,
                "reasoning_swapped": pair.reasons[1] if pair.reasons else None,
                "error": pair.error,
            }
            for pair in self.pairs
        ]
        names = ["first", "second", "winner", "agreed", "reasoning", "reasoning_swapped", "error"]
        index = self.prompts.index.take([pair.row for pair in self.pairs])
        return pd.DataFrame(told, index=index, columns=names)

    def pareto(self) -> Any:
        """An Altair chart of quality against what one answer costs without the cache.

        Whoever nobody else beats in both is on the Pareto front, which is drawn.

        Raises:
            InvalidRequest: there are no scores.
            MissingExtra: Altair is not installed.
        """
        if not self.scores:
            raise InvalidRequest("there is no quality to plot: compare with judge= and criteria=, or with score=")
        return import_module("llmnb.display.pareto").pareto(self.summary())

    def standing(self, label: str) -> Standing:
        """The score of a contestant and how sure it is."""
        are_rates = all(0 <= score <= 1 for column in self.scores.values() for score in column if score is not None)
        return standing(self.scores.get(label, ()), are_rates=are_rates)

    def _score(self, label: str, row: int) -> float | None:
        return self.scores[label][row] if self.scores else None

    def _summed(self, label: str) -> dict[str, Any]:
        facts = self.facts[label]
        answered = [fact for fact in facts if answer_of(fact) is not None]
        live = [fact for fact in answered if fact.get("source") == "live"]
        stands = self.standing(label)
        full = [full_of(fact) for fact in answered]
        known = [cost for cost in full if cost is not None]
        tokens = [fact["output_tokens"] for fact in answered]
        return {
            "score": _nan(stands.score),
            "score_low": _nan(stands.low),
            "score_high": _nan(stands.high),
            "scored": stands.n,
            **(counted(self.pairs, label) if self.pairs else {}),
            "answered": len(answered),
            "failed": len(facts) - len(answered),
            "full_cost_usd": sum(known) / len(known) / 1e9 if known and len(known) == len(full) else float("nan"),
            "cost_usd": _nan(_float(_sum([fact["cost_nanousd"] for fact in facts]))),
            "seconds": _median(live, "latency_ms"),
            "ttft_seconds": _median(live, "ttft_ms"),
            "output_tokens": sum(tokens) / len(tokens) if tokens else float("nan"),
        }

    # How it is shown --------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.prompts)

    def __repr__(self) -> str:
        return import_module("llmnb.display.compared").short(self)

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        del include, exclude  # IPython filters the bundle itself
        return import_module("llmnb.display.compared").bundle(self)

    def _ipython_display_(self) -> None:
        if self.shown_in is not None and self.shown_in == running_cell() and is_cell_result():
            if not is_in_kernel():
                sys.stdout.write(f"\n{self!r}\n")  # after the "Out[1]: " that IPython has written by now
            return  # it stands right above
        raise NotImplementedError  # IPython goes on to _repr_mimebundle_


def answer_of(fact: Facts) -> Any:
    """The answer of a row: its text or value; None where there is none, or the model refused."""
    if "error" in fact and not fact.get("scoring_failed"):
        return None
    return fact.get("value", fact.get("text"))


def full_of(fact: Facts) -> int | None:
    """What an answer costs in nano-dollars where it is not in the cache."""
    return fact.get("full_nanousd", fact["cost_nanousd"])


def _sum(costs: Sequence[int | None]) -> int | None:
    return None if None in costs else sum(cost or 0 for cost in costs)


def _dollars(costs: Sequence[int | None]) -> Decimal | None:
    total = _sum(costs)
    return None if total is None else Decimal(total) / NANO


def _float(nanousd: int | None) -> float | None:
    return None if nanousd is None else nanousd / 1e9


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _seconds(ms: float | None) -> float | None:
    return None if ms is None else ms / 1000


def _median(facts: Sequence[Facts], name: str) -> float:
    known = [fact[name] for fact in facts if fact.get(name) is not None]
    return median(known) / 1000 if known else float("nan")
