"""A comparison under way: asks all contestants, then the judge; what is to be shown is handed on to who watches.

The work is one async generator, on llmnb's loop thread or on the user's loop. It yields acts, which the thread that
watches does: so views are drawn, as elsewhere, by the thread that asked.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, Protocol

from llmnb.events import StreamEvent
from llmnb.jobs.asking import Row, asked
from llmnb.jobs.comparing.comparison import Comparison, Facts, answer_of
from llmnb.jobs.comparing.contestants import Contestant, Prompts, check_known
from llmnb.jobs.comparing.judging import Judge, Pair, prompts_for_judge, ruled
from llmnb.jobs.comparing.runs import Act, Runs, purse_of, running, unasked
from llmnb.jobs.comparing.scores import Scored, Scores, by_function, by_pairs, score_of
from llmnb.jobs.comparing.sofar import Follower, SoFar, Watch
from llmnb.jobs.lost import NONE_LOST
from llmnb.jobs.mapping import Job
from llmnb.jobs.purse import Purse
from llmnb.jobs.run import Status
from llmnb.jobs.turn import Caller
from llmnb.reply import Reply, running_cell

_TELLS_EVERY_S = 0.25


@dataclass(frozen=True, slots=True)
class Scoring:
    """An act that calls the user's function: it may take long, and is not done where the requests are waited for."""

    act: Act

    def __call__(self) -> None:
        self.act()


class Shown(Protocol):
    """Shows a comparison while it goes on. No method raises an `Exception`."""

    is_table: bool

    def open(self, labels: Sequence[str], models: Sequence[str], stop: Callable[[], None] | None) -> None:
        """It begins; `stop` ends it, and may be called from any thread."""
        ...

    def show(self, column: int, event: StreamEvent) -> None:
        """The next event of one answer."""
        ...

    def end(self, column: int, error: BaseException | None) -> None:
        """One answer is over."""
        ...

    def far(self, status: Status, judging: bool, so_far: SoFar | None = None) -> None:
        """How far the answering of many prompts is, or the judging; `so_far`, where `is_table`, how they stand."""
        ...

    def close(self, comparison: Comparison | None, error: BaseException | None = None) -> None:
        """Nothing comes any more; without a comparison it ended early, by `error`."""
        ...


class Contest:
    """One call of `compare`. `work` does it, `comparison` is what came of it."""

    def __init__(
        self,
        found: Sequence[Contestant],
        prompts: Prompts,
        judge: Judge | None,
        score: Callable[[Any, Any], Any] | None,
        shown: Shown,
        *,
        is_shown_live: bool,
    ) -> None:
        self._found, self._prompts = found, prompts
        self._judge, self._score = judge, None if score is None else self._until_ended(score)
        self.shown = shown
        self._shown_in = running_cell() if is_shown_live else None
        self.labels = tuple(one.label for one in found)
        self._facts: dict[str, Sequence[Facts]] = {}
        self._replies: dict[str, Reply] = {}
        self._errors: dict[str, Exception] = {}
        self._pairs: list[Pair] = []
        self._judged: list[Facts] = []
        self._unkept, self._lost = 0, NONE_LOST
        self._watch = Watch(self.labels, prompts.frame) if shown.is_table else None
        self._scored: Scored = {}
        self._unscored: deque[tuple[str, int, Facts]] = deque()
        self._ended = threading.Event()
        self.caller, self._blocks = Caller(threading.get_ident()), False
        self._acts: asyncio.Queue[Act | None] = asyncio.Queue()

    @property
    def models(self) -> list[str]:
        """The model of each contestant."""
        return [one.job.plan.full_name for one in self._found]

    async def work(self, *, on_loop_thread: bool) -> AsyncGenerator[Act]:
        """Asks, and judges.

        Raises:
            UnknownModel: the API does not know one of the models.
        """
        self._blocks = on_loop_thread
        self._found = [replace(one, job=one.job.with_one_client(on_loop_thread=on_loop_thread)) for one in self._found]
        await check_known(self._found)
        async with aclosing(self._ask_one() if self._prompts.is_single else self._ask_many()) as acts:
            async for act in acts:
                yield act
        if self._judge is not None:
            async with aclosing(self._have_judged(self._judge, on_loop_thread)) as acts:
                async for act in acts:
                    yield act

    async def on_this_loop(self) -> Comparison:
        """Does all of it on the running loop, which never stands still for a function that scores."""
        async with aclosing(self.work(on_loop_thread=False)) as acts:
            async for act in acts:
                if isinstance(act, Scoring):
                    await self._aside(act)
                else:
                    act()
        return self.comparison() if self._score is None else await self._aside(self.comparison)

    def catch_up(self) -> None:
        """Does what is left to be shown of work that was ended, such as what it had used by then."""
        while not self._acts.empty():
            act = self._acts.get_nowait()
            if act is not None:
                act()

    def comparison(self) -> Comparison:
        """What came of it; the function that scores is called here."""
        answers = {label: [answer_of(fact) for fact in self._facts[label]] for label in self.labels}
        scores: Scores = {}
        if self._score is not None:
            scores, errors = by_function(self._score, answers, self._prompts.frame, self._scored)
            for (label, row), told in errors.items():
                column = list(self._facts[label])
                column[row] = {**column[row], "error": told, "scoring_failed": True}
                self._facts[label] = column
        elif self._judge is not None:
            scores = by_pairs(self._pairs, self.labels, len(self._prompts.frame))
        costs = [fact["cost_nanousd"] for fact in self._judged]
        return Comparison(
            labels=self.labels,
            prompts=self._prompts.frame,
            facts=self._facts,
            scores=scores,
            pairs=self._pairs,
            criteria=None if self._judge is None else self._judge.criteria,
            judge_nanousd=None if None in costs else sum(cost or 0 for cost in costs),
            judge_calls=len(self._judged),
            judge_competes=self._judge is not None and self._judge.llm.model in self.models,
            replies=self._replies,
            errors=self._errors,
            is_single=self._prompts.is_single,
            shown_in=self._shown_in,
        )

    # One prompt, live -------------------------------------------------------------------------------------------------

    async def _ask_one(self) -> AsyncGenerator[Act]:
        acts = self._acts
        purse = purse_of([one.job for one in self._found])
        columns = [self._column(n, one, purse) for n, one in enumerate(self._found)]
        async with running(columns) as tasks:
            for task in tasks:
                task.add_done_callback(lambda _: acts.put_nowait(None))
            over = 0
            while over < len(tasks):
                act = await acts.get()
                if act is None:
                    over += 1
                else:
                    yield act
            for task in tasks:
                task.result()

    async def _column(self, number: int, one: Contestant, purse: Purse | None) -> None:
        def tell(event: StreamEvent) -> None:
            self._acts.put_nowait(lambda: self.shown.show(number, event))

        def ends(reply: Reply) -> None:
            self._replies[one.label] = reply

        facts, error = await _asked_alone(one.asked_by(tell=tell, ends=ends), purse)
        self._facts[one.label] = [facts]
        if error is not None:
            self._errors[one.label] = error
        self._acts.put_nowait(lambda: self.shown.end(number, error))

    # Many prompts -----------------------------------------------------------------------------------------------------

    async def _ask_many(self) -> AsyncGenerator[Act]:
        jobs = [one.asked_by() for one in self._found]
        async with Runs(jobs, caller=self.caller, blocks=self._blocks) as runs:
            async for act in runs.begin():
                yield act
            async with aclosing(runs.work()) as statuses:
                async for status in statuses:
                    for act in self._answers_so_far(runs, status):
                        yield act
            self._unkept, self._lost = runs.unkept, runs.lost
            for one, facts in zip(self._found, runs.facts(), strict=True):
                self._facts[one.label] = facts

    def _answers_so_far(self, runs: Runs, status: Status) -> Iterable[Act]:
        watch = self._watch
        if watch is None:
            return [lambda: self.shown.far(status, False)]
        new = watch.answering(runs.runs, runs.statuses)
        show = lambda: self.shown.far(status, False, watch.so_far())  # noqa: E731
        return [show] if self._score is None else [Scoring(lambda: self._score_now(watch, new)), show]

    def _score_now(self, watch: Watch, new: Sequence[tuple[str, int, Facts]]) -> None:
        """Each answer is scored once: here, as long as the table may wait, or in the end."""
        self._unscored.extend(new)
        until = time.monotonic() + _TELLS_EVERY_S
        while self._unscored and time.monotonic() < until:
            label, row, facts = self._unscored.popleft()
            answer = answer_of(facts)
            if self._score is None or answer is None:
                continue
            score, error = self._scored[label, row] = score_of(self._score, answer, self._prompts.frame.iloc[row])
            if error is None:
                watch.scores(label, row, score)

    async def _aside(self, work: Callable[[], Any]) -> Any:
        try:
            return await asyncio.to_thread(work)
        except asyncio.CancelledError:
            self._ended.set()  # the thread hears of it before the next answer
            raise

    def _until_ended(self, score: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        def scored(answer: Any, row: Any) -> Any:
            if self._ended.is_set():
                raise asyncio.CancelledError
            return score(answer, row)

        return scored

    # The judge --------------------------------------------------------------------------------------------------------

    async def _have_judged(self, judge: Judge, on_loop_thread: bool) -> AsyncGenerator[Act]:
        answers = {label: [_text(answer_of(fact)) for fact in self._facts[label]] for label in self.labels}
        pairs = judge.pairs(answers)
        open_pairs = [pair for pair in pairs if pair.winner is None]
        if not open_pairs:
            self._pairs = pairs
            return
        job = judge.job(open_pairs, answers, prompts_for_judge(self._prompts, self._found))
        spent = self._unkept + sum(fact["cost_nanousd"] or 0 for column in self._facts.values() for fact in column)
        job = job.with_one_client(on_loop_thread=on_loop_thread)
        watch = self._watch
        async with Runs([job], spent, self._lost, caller=self.caller, blocks=self._blocks) as runs:
            async for act in runs.begin():
                yield act
            judging = Follower(runs.runs[0])
            if watch is not None:
                for pair in pairs:
                    watch.won(pair)  # those that are equal
            async with aclosing(runs.work()) as statuses:
                async for status in statuses:
                    so_far = None if watch is None else watch.judging(judging, status, open_pairs, self._facts)
                    yield lambda status=status, so_far=so_far: self.shown.far(status, True, so_far)
            [self._judged] = runs.facts()
        told = iter(ruled(open_pairs, self._judged))
        self._pairs = [pair if pair.winner is not None else next(told) for pair in pairs]


def _text(answer: Any) -> str | None:
    if answer is None or isinstance(answer, str):
        return answer
    import json

    return json.dumps(answer, ensure_ascii=False, indent=1, default=str)


async def _asked_alone(job: Job, purse: Purse | None) -> tuple[Facts, Exception | None]:
    """What became of the one row of a job that is not kept on disk: its answer is in the response cache."""
    [prompt] = job.prompts()
    try:
        if isinstance(prompt, Exception):
            raise prompt
        question = job.question(Row.of(prompt), job.plan)
        held = 0
        if purse is not None:
            taken = await purse.take(question)
            if taken is None:
                return unasked(purse.is_empty), None
            held = taken
    except Exception as error:
        return unasked(f"{type(error).__name__}: {error}"), error
    outcome = await asked(question, job.shape, job.retries)
    if purse is not None:
        purse.settle(held, outcome.facts["cost_nanousd"])
    return outcome.facts, outcome.error
