"""`MapEstimate`: what a run over many rows would cost and how long it would take, said before anything is sent."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from llmnb.estimate import Sheet, dollars


@dataclass(frozen=True, slots=True, repr=False)
class MapEstimate(Sheet):
    """What the same call without `dry_run` would do.

    Of all `rows`, `finished` are so from before, `equal` ask the same as another one, and `refused` cannot be asked
    (`refused_because` is why the first cannot). `to_ask` are the others. `cached` of them are in the response cache and
    cost nothing; like all that follows, that is counted over `sampled` rows where there are more, and scaled up.

    `input_tokens` and `output_tokens` are of all rows that would be sent. Nine of ten prompts lie within the relative
    `error` of what was counted. Answers are taken to be as long as those of `outputs_of` ("this run", or "project …",
    "all projects" in the ledger) on average; None where nothing is known. `cost_usd` lies between `cost_low_usd` and
    `cost_high_usd` when answers are like the shorter or the longer half of them and the count errs as far as that, and
    `cost_most_usd` is with answers as long as max_tokens. The prompt cache, where the run uses it, saves `saved_usd`,
    which is in all of them. Costs are None where there is no price. Repairs of values that do not fit, and turns of
    tools, come on top.

    `minutes` it takes by what bounds it, `minutes_by`; None where nothing is known.
    """

    model: str
    rows: int
    to_ask: int
    finished: int = 0
    equal: int = 0
    refused: int = 0
    refused_because: str = ""
    cached: int = 0
    sampled: int = 0
    input_tokens: int = 0
    error: float = 0.0
    max_tokens: int = 0
    output_tokens: int | None = None
    outputs_of: str = ""
    outputs: int = 0
    cost_usd: Decimal | None = None
    cost_low_usd: Decimal | None = None
    cost_high_usd: Decimal | None = None
    cost_most_usd: Decimal | None = None
    saved_usd: Decimal = Decimal(0)
    minutes: float | None = None
    minutes_by: str = ""
    budget_usd: Decimal | None = None
    budget_left_usd: Decimal | None = None
    more: str = ""

    @property
    def title(self) -> str:
        """What it is of."""
        return f"{self.model}, {self.rows:,} rows"

    def lines(self) -> list[tuple[str, str, str]]:
        """What it says: what, how much, and how that is known."""
        return [*self._rows(), *self._tokens(), *self._cost(), *self._budget(), *self._time()]

    @property
    def _sent(self) -> int:
        return self.to_ask - self.cached

    def _rows(self) -> list[tuple[str, str, str]]:
        others = [
            f"{count:,} {what}"
            for count, what in (
                (self.finished, "finished before"),
                (self.equal, "equal to another row"),
                (self.refused, "cannot be asked"),
            )
            if count
        ]
        lines = [("to ask", f"{self.to_ask:,} rows", ", ".join(others) or "none was finished before")]
        if self.cached:
            lines.append(("in the cache", f"{self._about}{self.cached:,} rows", f"cost nothing{self._scaled}"))
        if self.refused:
            lines.append(("cannot be asked", f"{self.refused:,} rows", f"the first: {self.refused_because}"))
        return lines

    def _tokens(self) -> list[tuple[str, str, str]]:
        if not self._sent:
            return []
        lines = [("input", f"≈ {self.input_tokens:,} tokens", f"±{self.error:.0%}{self._scaled}")]
        if self.output_tokens is None:
            how = f"no answers of {self.model} on the books yet"
            return [*lines, ("output", f"at most {self.max_tokens * self._sent:,} tokens", how)]
        how = f"as long as {self.outputs:,} answers in {self.outputs_of}"
        return [*lines, ("output", f"≈ {self.output_tokens:,} tokens", how)]

    def _cost(self) -> list[tuple[str, str, str]]:
        if not self._sent:
            return [("cost", dollars(Decimal(0)), "nothing would be sent")]
        if self.cost_most_usd is None:
            return [("cost", "unpriced", f"no price is known for {self.model}")]
        most = f"at most {dollars(self.cost_most_usd)}, if every answer took max_tokens={self.max_tokens:,}"
        saved = f"; the prompt cache saves {dollars(self.saved_usd)} of it" if self.saved_usd > 0 else ""
        if self.cost_usd is None:
            line = ("cost", f"at most {dollars(self.cost_most_usd)}", f"if every answer took all of max_tokens{saved}")
        else:
            span = f"{dollars(self.cost_low_usd)}-{dollars(self.cost_high_usd)}; {most}"
            line = ("cost", f"≈ {dollars(self.cost_usd)}", f"{span}{saved}")
        return [line, *([("", "", self.more)] if self.more else [])]

    def _budget(self) -> list[tuple[str, str, str]]:
        if self.budget_usd is None or self.budget_left_usd is None:
            return []
        left = f"{dollars(self.budget_left_usd)} left of {dollars(self.budget_usd)}"
        likely, most = self.cost_high_usd, self.cost_most_usd
        if most is not None and most <= self.budget_left_usd:
            return [("budget_usd", "is enough", left)]
        if self.cost_usd is not None and likely is not None and likely <= self.budget_left_usd:
            return [("budget_usd", "is likely enough", f"{left}; what could take it over is not asked")]
        if self.cost_usd is None or not self.cost_usd or self.cost_usd <= self.budget_left_usd:
            return [("budget_usd", "may be too little", f"{left}; what could take it over is not asked")]
        share = max(Decimal(0), self.budget_left_usd / self.cost_usd)
        rows = int(self._sent * share)
        return [("budget_usd", "is too little", f"{left}: for about {rows:,} of {self._sent:,} rows, and no more")]

    def _time(self) -> list[tuple[str, str, str]]:
        if not self._sent:
            return []
        if self.minutes is None:
            return [("time", "unknown", self.minutes_by)]
        return [("time", f"≈ {duration(self.minutes * 60)}", self.minutes_by)]

    @property
    def _is_scaled(self) -> bool:
        return self.sampled < self.to_ask

    @property
    def _about(self) -> str:
        return "≈ " if self._is_scaled else ""

    @property
    def _scaled(self) -> str:
        return f", by {self.sampled:,} of them" if self._is_scaled else ""


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{seconds / 60:,.0f} min" if seconds < 5400 else f"{seconds / 3600:,.1f} h"
