"""`llm.map` and `llm.amap`: from rows and a prompt to a run, and from the run to a frame."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llmnb.asking.question import Question
from llmnb.asking.shape import Shape
from llmnb.errors import InvalidRequest
from llmnb.jobs.asking import Row, key_of
from llmnb.jobs.batches.elsewhere import OneByOne
from llmnb.jobs.batches.notes import check_none_open
from llmnb.jobs.description import FOLDER, ROWS, Description, State, at_work
from llmnb.jobs.lost import Lost, without_rows
from llmnb.jobs.one_client import OneClient
from llmnb.jobs.options import Errors, Via, parted
from llmnb.jobs.purse import Purse
from llmnb.jobs.quick_bound import quick_bound
from llmnb.jobs.results import Results
from llmnb.jobs.rows import Prompts
from llmnb.jobs.run import Run
from llmnb.jobs.saved import remember
from llmnb.jobs.shared_prompt import cached
from llmnb.jobs.sources import Source, source_of
from llmnb.settings import Settings
from llmnb.templates import Template

if TYPE_CHECKING:
    import pandas as pd

    from llmnb.asking.access import Access
    from llmnb.asking.params import Plan
    from llmnb.asking.routed import Routing
    from llmnb.jobs.cluster.crew import Crew
    from llmnb.jobs.estimate import MapEstimate
    from llmnb.jobs.mapped import Mapped
    from llmnb.jobs.written import MappedFile
    from llmnb.pacing import Account

RUN_ID_CHARS = 12


@dataclass(frozen=True)
class Job:
    """All that a run is made of, ready to be worked at, once or again for the rows that failed."""

    source: Source
    prompt: Template | Callable[..., Any]
    plan: Plan
    access: Access
    concurrency: int
    shape: Shape | None
    retries: int
    errors: Errors
    progress: bool
    server: str
    settings: Settings
    budget_usd: Decimal | None = None
    routing: Routing | None = None
    confirms: bool = False
    via: Via = "live"
    why: str = ""
    """Why it is asked that way, where llmnb chose."""
    executor: Any = None
    """The client of the Dask cluster that asks; None: this process does."""
    out: Path | None = None
    asks: Callable[..., Question] = Question
    """What a row is asked by; `compare` listens to it."""

    @property
    def run_id(self) -> str:
        """The same for every run of the same template, model, settings, schema and server, whatever the rows."""
        prompt = self.prompt
        said = prompt.text if isinstance(prompt, Template) else getattr(prompt, "__qualname__", "function")
        sample = self.plan.ledger["caching"].sample
        schema = None if self.shape is None else self.shape.schema
        models = [] if self.routing is None else [way.plan.model for way in self.routing.ways]
        return key_of([said, self.plan.arguments, schema, sample, self.server, *models]).hex()[:RUN_ID_CHARS]

    @property
    def frame(self) -> pd.DataFrame:
        """Its rows, whole."""
        return self.source.frame()

    @property
    def folder(self) -> Path:
        """Where what is finished is kept."""
        return self.settings.home / FOLDER / self.run_id

    def run(self, *, failed_again: bool = False, purse: Purse | None = None) -> tuple[Run, Results]:
        """A run, and where its rows are; `purse` is one that it shares with other runs."""
        results = self.results()
        plan, warms = self.cached_plan()
        plan = self._labelled(plan, failed_again=failed_again)
        if self.via == "batch":
            return self._batch_run(plan, results, failed_again=failed_again), results
        check_none_open(self.folder)
        crew = self._crew(plan)
        prompts = OneByOne(self)
        run = Run(
            prompts,
            self.source.count,
            results,
            lambda row: self.question(prompts.seen(row), plan),
            concurrency=self.concurrency,
            shape=self.shape,
            retries=self.retries,
            fresh=self.plan.ledger["caching"].fresh,
            failed_again=failed_again,
            raises=self.errors == "raise",
            purse=purse or (None if self.budget_usd is None else self.purse(*self.spent(results))),
            warms=warms,
            held=self.held if crew is None else crew.held,
            crew=crew,
        )
        return run, results

    def results(self) -> Results:
        """What became of its rows so far."""
        return Results(self.folder / ROWS)

    def prompts(self) -> Prompts:
        """The prompts of its rows."""
        return Prompts(self.source, self.prompt)

    def cached_plan(self) -> tuple[Plan, bool]:
        """The plan with what all rows share marked for the prompt cache, and whether the first row has to write it."""
        if self.via == "batch":
            from llmnb.jobs.batches.fitness import batched

            return batched(self.plan, self.access, 2 if self.source.count is None else self.source.count), False
        return cached(self.plan, self.access, self.source.count, self.prompt)

    def limits(self) -> dict[str, float]:
        """What the account may do in a minute, by kind (see `llmnb.pacing`), as far as that is known."""
        account = self._account()
        return {} if account is None else account.limits()

    def held(self) -> tuple[int, str]:
        """How many calls are held back now, and for what limit of the account."""
        account = self._account()
        return (0, "") if account is None else account.held()

    def _account(self) -> Account | None:
        from llmnb.pacing.pacer import pacer, scope_of

        client = self.access.known()
        if client is None or self.settings.pacing == "off":
            return None
        return pacer(self.settings).account(scope_of(client), self.plan.model)

    def estimate(self) -> MapEstimate:
        """What it would do, cost and take; nothing is sent."""
        from llmnb.jobs.estimating import estimate

        return estimate(self)

    def _batch_run(self, plan: Plan, results: Results, *, failed_again: bool) -> Run:
        from llmnb.jobs.batches.run import BatchRun

        return BatchRun(
            self,
            plan,
            results,
            shape=self.shape,
            retries=self.retries,
            fresh=self.plan.ledger["caching"].fresh,
            failed_again=failed_again,
            raises=self.errors == "raise",
        )

    def _labelled(self, plan: Plan, *, failed_again: bool) -> Plan:
        ledger = {**plan.ledger, "run_id": self.run_id}
        if failed_again:  # an answer that does not fit is in the response cache
            ledger["caching"] = replace(plan.ledger["caching"], fresh=True)
        return replace(plan, ledger=ledger)

    def _crew(self, plan: Plan) -> Crew | None:
        if self.executor is None:
            return None
        from llmnb.jobs.cluster.crew import Crew

        return Crew(self, plan)

    def question(self, row: Row, plan: Plan) -> Question:
        """What a row asks."""
        messages = [{"role": "user", "content": row.content}]
        planned = row.plan(plan, self.plan.arguments.get("system"))
        return self.asks(planned, messages, self.access, self.concurrency, routing=self.routing)

    def purse(self, spent_nanousd: int, lost: Lost) -> Purse | None:
        """What it may cost, less what is spent, or lost, already."""
        if self.budget_usd is None:
            return None
        from llmnb.asking.estimating import estimated

        def most(question: Question) -> Decimal | None:
            told = estimated(question, self.settings, exact=False)
            if told.cost_most_usd is None or told.input_cost_usd is None:
                return None
            # the count may be off by its error, and writing all of it to the prompt cache costs twice as much at most
            worst_input = told.input_cost_usd * (1 + Decimal(told.error)) * 2
            return told.cost_most_usd - told.input_cost_usd + worst_input

        attempts = 1 if self.shape is None else 1 + self.retries
        return Purse(self.budget_usd, spent_nanousd, most, attempts, quick_bound(self.settings), lost)

    def spent(self, results: Results) -> tuple[int, Lost]:
        """What the run has cost: its rows so far, what is on the books besides, and calls that a kill left without a
        row.
        """
        more, lost = without_rows(self, results.spent_nanousd)
        return results.spent_nanousd + more, lost

    def ask(self, *, failed_again: bool = False) -> Mapped | MappedFile:
        """Works at it on llmnb's loop thread, while this one shows how far it is and can be interrupted."""
        from llmnb.jobs.sitting import ask

        return ask(self, failed_again=failed_again)

    async def aask(self, *, failed_again: bool = False) -> Mapped | MappedFile:
        """The async twin of `ask`, on the running loop."""
        from llmnb.jobs.sitting import aask

        return await aask(self, failed_again=failed_again)

    @contextmanager
    def described(self, run: Run, results: Results) -> Generator[None]:
        """Keeps beside the rows what they are about, and how far they have come."""
        remember(self)

        def now(state: State) -> Description:
            status = run.status
            done, failed = status.kept + status.done - status.failed, status.failed
            spent = results.spent_nanousd
            return self.description.at(state, rows=status.rows, done=done, failed=failed, cost_nanousd=spent)

        with at_work(self.folder):
            now("running").write(self.folder)
            try:
                yield
            finally:
                now("stopped" if run.status.left or not run.status.is_counted else "finished").write(self.folder)

    @property
    def description(self) -> Description:
        """What the run is about."""
        prompt, ledger = self.prompt, self.plan.ledger
        return Description(
            self.run_id,
            prompt.text if isinstance(prompt, Template) else f"{getattr(prompt, '__qualname__', 'function')}(row)",
            self.plan.model,
            template=prompt.label if isinstance(prompt, Template) else None,
            schema=None if self.shape is None else self.shape.name,
            project=ledger.get("project") or self.settings.project,
            server=self.server,
        )

    def with_one_client(self, *, on_loop_thread: bool) -> Job:
        """The same, with a client that is looked up once."""
        job = replace(self, access=OneClient(self.access, on_loop_thread=on_loop_thread))
        if self.routing is None:
            return job
        ways = [replace(way, access=OneClient(way.access, on_loop_thread=on_loop_thread)) for way in self.routing.ways]
        return replace(job, routing=replace(self.routing, ways=tuple(ways)))


def job(
    rows: Any,
    prompt: object,
    asked: Callable[[dict[str, Any]], Question],
    settings: Settings,
    options: dict[str, Any],
) -> Job:
    """The job that `LLM.map` describes; everything that can be refused is refused here.

    Raises:
        InvalidRequest: see `LLM.map`; nothing was sent.
    """
    given, options = parted(options)
    asks, schema, options = _prompted(prompt, given.schema, options)
    out = None if given.out is None else _file(given.out)
    source = source_of(rows, in_pieces=out is not None)
    Prompts(source, asks)  # names its missing columns
    question = asked({**options, "display": "none"})
    if given.via == "batch":
        _check_batch(question)
    made = Job(
        source=source,
        prompt=asks,
        plan=question.plan,
        access=question.access,
        concurrency=given.concurrency or settings.concurrency,
        shape=None if schema is None else Shape.of(schema),
        retries=given.retries,
        errors=cast("Errors", given.errors),
        progress=given.progress,
        server=server_of(question.access),
        settings=settings,
        budget_usd=_budget(given.budget_usd, question),
        routing=question.routing,
        confirms=given.confirm,
        via=cast("Via", given.via),
        executor=given.executor,
        out=out,
    )
    return made if given.within_s is None else _in_time(made, given.within_s)


def _prompted(prompt: object, schema: Any, options: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    """A template, or a function of a row; the schema and the settings, with what the template says of them."""
    if isinstance(prompt, str):
        prompt = Template(prompt)
    if not isinstance(prompt, Template):
        if callable(prompt):
            return prompt, schema, options
        kind = type(prompt).__name__
        raise InvalidRequest(f"the prompt of the rows is a template or a function of a row, not {kind}")
    schema = prompt.schema if schema is None else schema
    if isinstance(schema, str):
        raise InvalidRequest(f"the template wants {schema!r}: give the type, schema={schema}. Nothing was sent.")
    return prompt, schema, {**prompt.options, "template": prompt.label, **options}


def _file(out: str | PathLike[str]) -> Path:
    from llmnb.jobs.written import checked

    return checked(out)


def _check_batch(question: Question) -> None:
    from llmnb.jobs.batches.fitness import check

    check(question)


def _in_time(job: Job, within_s: float) -> Job:
    """The same, asked by the way on which it is ready by then."""
    from llmnb.jobs.batches.choice import chosen

    via, why = chosen(job, within_s)
    return replace(job, via=via, why=why)


def _budget(usd: object, question: Question) -> Decimal | None:
    if usd is None:
        return None
    try:
        dollars = Decimal(str(usd))
    except ArithmeticError:
        dollars = Decimal(-1)
    if not dollars.is_finite() or dollars <= 0:
        raise InvalidRequest(f"budget_usd must be dollars above 0, not {usd!r}")
    if question.plan.tools is not None or question.routing is not None:
        raise InvalidRequest(
            "budget_usd cannot tell what rows with tools=, or with several models, will cost: set_budget() keeps them "
            "in bounds. Nothing was sent."
        )
    return dollars


def server_of(access: Access) -> str:
    """The address that is asked, without a password: what one server said is not what another would say."""
    if access.endpoint is not None:
        return shown_address(access.endpoint.base_url)
    import_module("anthropic")  # without it no client is known
    client = access.known()
    if client is None:
        from llmnb.errors import MissingKey

        raise MissingKey
    return shown_address(client.base_url)


def shown_address(url: object) -> str:
    """A base URL as it may be written down: without user and password."""
    import httpx2

    return str(httpx2.URL(str(url)).copy_with(username=None, password=None))
