"""Makes a `MapEstimate`: renders every row, counts and prices a sample of those that would be asked."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from llmnb.asking.estimating import estimated
from llmnb.asking.extraction import Extraction
from llmnb.asking.question import Question
from llmnb.errors import LlmnbError
from llmnb.estimate import Estimate
from llmnb.jobs.asking import Row
from llmnb.jobs.estimate import MapEstimate
from llmnb.jobs.results import Results
from llmnb.ledger.history import history, latencies_ms
from llmnb.ledger.sums import quantile
from llmnb.pricing import cost_of
from llmnb.records import NANO, Usage
from llmnb.tokens import offline_counter
from llmnb.trouble import quietly

if TYPE_CHECKING:
    from llmnb.asking.params import Plan
    from llmnb.jobs.mapping import Job

SAMPLE = 500
"""So many rows are counted and priced; the error of their mean is far below that of a count made offline."""
_ENOUGH = 10
"""So many answers of the run itself say more about the next than the ledger's of other prompts."""
_MOST_ANSWERS = 1_000
_SHORTER, _LONGER = 0.25, 0.75


@dataclass
class _Count:
    """The rows of a run, counted; `sample` are some of those to be asked, any as likely as any other."""

    rows: int = 0
    to_ask: int = 0
    finished: int = 0
    equal: int = 0
    refused: int = 0
    refused_because: str = ""
    sample: list[Row] = field(default_factory=list[Row])

    @classmethod
    def of(cls, prompts: Iterable[Any], results: Results, *, fresh: bool) -> _Count:
        """Reads all rows, and sends none."""
        count = cls()
        chance = random.Random(0)  # noqa: S311 - the same rows each time
        for number, prompt in enumerate(prompts):
            count.rows += 1
            try:
                if isinstance(prompt, Exception):
                    raise prompt
                row = Row.of(prompt, number)
            except Exception as error:
                count.refused += 1
                count.refused_because = count.refused_because or str(error)
                continue
            if results.see(row.key).is_seen:
                count.equal += 1
            elif not fresh and results.has(row.key):
                count.finished += 1
            else:
                count._add(row, chance)
        return count

    def _add(self, row: Row, chance: random.Random) -> None:
        self.to_ask += 1
        if len(self.sample) < SAMPLE:
            self.sample.append(row)
        elif (at := chance.randrange(self.to_ask)) < SAMPLE:
            self.sample[at] = row


@dataclass(frozen=True)
class _Answers:
    """Answers that these will be like: their output tokens, how long they took, and whose they are."""

    output_tokens: Sequence[float] = ()
    latencies_ms: Sequence[float] = ()
    of: str = ""


def estimate(job: Job) -> MapEstimate:
    """What the job would do, cost and take; nothing is sent."""
    results = job.results()
    plan, warms = job.cached_plan()
    count = _Count.of(job.prompts(), results, fresh=plan.ledger["caching"].fresh)
    answers = _answers(job, results)
    sheets = [estimated(_asked(job, row, plan), job.settings, exact=False) for row in count.sample]
    sent = [sheet for sheet in sheets if sheet.kept is None]
    share = len(sent) / len(sheets) if sheets else 0.0
    live = round(count.to_ask * share)
    bill = _Bill(job, plan, sent, live, answers, warms=warms)
    minutes, minutes_by = _minutes(job, live, bill, answers)
    spent = Decimal(_spent(job, results)) / NANO
    results.close()
    return MapEstimate(
        model=plan.model,
        rows=count.rows,
        to_ask=count.to_ask,
        finished=count.finished,
        equal=count.equal,
        refused=count.refused,
        refused_because=count.refused_because,
        cached=count.to_ask - live,
        sampled=len(sheets),
        input_tokens=round(bill.input_tokens),
        error=bill.error,
        max_tokens=int(plan.arguments["max_tokens"]),
        output_tokens=None if bill.typical is None else round(bill.typical * live),
        outputs_of=answers.of,
        outputs=len(answers.output_tokens),
        cost_usd=None if bill.typical is None else bill.usd(bill.typical),
        cost_low_usd=bill.usd(bill.low or 0, -1),
        cost_high_usd=bill.usd(bill.most if bill.high is None else bill.high, 1),
        cost_most_usd=bill.usd(bill.most, 1),
        saved_usd=bill.saved_usd,
        minutes=minutes,
        minutes_by=f"{minutes_by}; {job.why}" if job.why else minutes_by,
        budget_usd=job.budget_usd,
        budget_left_usd=None if job.budget_usd is None else max(Decimal(0), job.budget_usd - spent),
        more=_more(job),
    )


def _spent(job: Job, results: Results) -> int:
    """What of a budget is gone, in nano-dollars."""
    if job.budget_usd is None or job.via == "batch":
        return results.spent_nanousd
    spent, lost = job.spent(results)
    return spent + lost.nanousd


def _asked(job: Job, row: Row, plan: Plan) -> Question:
    """What a row would ask, as it is sent."""
    question = job.question(row, plan)
    return question if job.shape is None else Extraction(question, job.shape, job.retries).question


def _more(job: Job) -> str:
    if job.plan.tools is not None:
        return "for one answer a row: turns with tools come on top"
    told = ["at the price of message batches"] if job.via == "batch" else []
    told += ["without repairs of values that do not fit"] if job.shape is not None else []
    return ", ".join(told)


class _Bill:
    """What rows that were counted would cost, and all others like them. Tokens are of all `live` rows."""

    def __init__(
        self, job: Job, plan: Plan, sent: Sequence[Estimate], live: int, answers: _Answers, *, warms: bool
    ) -> None:
        self._job, self._plan = job, plan
        self._sent, self._live, self._warms = sent, live, warms
        self.most = float(plan.arguments["max_tokens"])
        outputs = sorted(min(tokens, self.most) for tokens in answers.output_tokens)
        self.typical = mean(outputs) if outputs else None
        self.low, self.high = (quantile(outputs, share) if outputs else None for share in (_SHORTER, _LONGER))
        if self.typical is not None and self.low is not None and self.high is not None:
            self.low, self.high = min(self.low, self.typical), max(self.high, self.typical)  # of few and long ones
        self.input_tokens = self._scaled([sheet.input_tokens for sheet in sent])
        self.error = max((sheet.error for sheet in sent), default=0.0)
        full, read = self._nanousd(self.typical or 0, 0, cached=False), self._nanousd(self.typical or 0, 0)
        self.saved_usd = Decimal(0) if full is None or read is None else (full - read) / NANO

    def usd(self, output_tokens: float, errs: int = 0) -> Decimal | None:
        """With answers so long, and a count that errs in that direction; None without a price."""
        nanousd = self._nanousd(output_tokens, errs)
        return None if nanousd is None else nanousd / NANO

    @property
    def cached_tokens(self) -> float:
        """What is read from the prompt cache, and so does not count for the account's limit."""
        return self._scaled([self._prefix(sheet) for sheet in self._sent])

    def _nanousd(self, output_tokens: float, errs: int, *, cached: bool = True) -> Decimal | None:
        costs: list[int] = []
        for sheet in self._sent:
            off = 1 + errs * sheet.error
            read = self._prefix(sheet) * off if cached else 0
            rest = max(0, sheet.input_tokens * off - read)
            cost = self._cost(Usage(round(rest), cache_read_tokens=round(read), output_tokens=round(output_tokens)))
            if cost is None:
                return None
            costs.append(cost)
        total = Decimal(self._scaled(costs)).quantize(Decimal(1))
        return total + (self._written_nanousd() if cached else 0)

    def _written_nanousd(self) -> int:
        """What it costs more that the first row writes what the others read, unless it is there already."""
        if not self._sent or not (prefix := self._prefix(self._sent[0])):
            return 0
        cache = self._sent[0].cache
        if cache is None or cache.held_tokens >= prefix:
            return 0
        hour = prefix if cache.ttl == "1h" else 0
        write = self._cost(Usage(cache_write_5m_tokens=prefix - hour, cache_write_1h_tokens=hour))
        read = self._cost(Usage(cache_read_tokens=prefix))
        return (write or 0) - (read or 0)

    def _prefix(self, sheet: Estimate) -> int:
        """The tokens of what all rows share that all but the first read from the prompt cache."""
        cache = sheet.cache
        return cache.tokens if self._warms and cache is not None and cache.is_marked else 0

    def _cost(self, usage: Usage) -> int | None:
        arguments = self._plan.arguments
        return cost_of(
            usage,
            self._plan.model,
            provider=self._job.access.provider,
            service_tier="batch" if self._job.via == "batch" else arguments.get("service_tier"),
            speed=arguments.get("speed"),
            inference_geo=arguments.get("inference_geo"),
            overrides=self._job.settings.prices,
        ).nanousd

    def _scaled(self, counts: Sequence[float]) -> float:
        return sum(counts) / len(counts) * self._live if counts else 0.0


# What is known already ------------------------------------------------------------------------------------------------


def _answers(job: Job, results: Results) -> _Answers:
    """Those of the run itself where there are enough, else those of the model that are in the ledger."""
    own = [facts for key in islice(results, _MOST_ANSWERS) if (facts := results.facts(key)) and "error" not in facts]
    own = [facts for facts in own if facts.get("source") == "live"]
    if len(own) >= _ENOUGH:
        latencies = [float(facts["latency_ms"]) for facts in own if facts.get("latency_ms")]
        return _Answers([float(facts["output_tokens"]) for facts in own], latencies, "this run")
    model, settings = job.plan.model, job.settings
    try:
        project = job.plan.ledger.get("project") or settings.project
        known = history(model, offline_counter(model)[1], project, settings.ledger_path)
        where = f"project {known.project}" if known.project else "all projects"
        return _Answers(known.outputs, latencies_ms(model, settings.ledger_path), where)
    except LlmnbError as trouble:  # a ledger that cannot be read is no reason to know nothing
        quietly("looking up earlier calls for an estimate", trouble)
        return _Answers()


def _minutes(job: Job, live: int, bill: _Bill, answers: _Answers) -> tuple[float | None, str]:
    """How long it takes, and by what: the account's limits, or how long an answer takes."""
    if job.via == "batch":
        return _batch_minutes(job)
    known: list[tuple[float, str]] = []
    demand = {
        "requests": float(live),
        "input-tokens": bill.input_tokens - bill.cached_tokens,
        "output-tokens": (bill.typical or 0.0) * live,
        "total-tokens": bill.input_tokens + (bill.typical or 0.0) * live,
    }
    limits = job.limits()
    for kind, limit in limits.items():
        known.append((demand[kind] / limit, f"the account's limit of {limit:,.0f} {kind.replace('-', ' ')} a minute"))
    if answers.latencies_ms:
        seconds = median(answers.latencies_ms) / 1000
        at_once = min(job.concurrency, max(live, 1))
        how = f"{at_once:,} at once, {seconds:.1f} s an answer"
        if not limits:
            how += "; the account's limits are not known yet"
        known.append((live * seconds / at_once / 60, how))
    if not known:
        return None, "no answer of this model was seen yet, and no limit"
    return max(known)


def _batch_minutes(job: Job) -> tuple[float | None, str]:
    from llmnb.jobs.batches.choice import durations
    from llmnb.jobs.batches.notes import noted

    took = durations(noted(job.settings))
    if not took:
        return None, "most batches end within an hour, and every one within 24"
    return median(took) / 60, f"the middle one of your last {len(took)} batches; every one ends within 24 hours"
