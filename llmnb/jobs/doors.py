"""`AsksOfRows`: the part of `LLM` that asks the same of many rows, `map`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Unpack, overload

from llmnb.asking.asker import Asker
from llmnb.asking.params import Options
from llmnb.jobs.options import RETRIES

if TYPE_CHECKING:
    import pandas as pd

    from llmnb.durations import Duration
    from llmnb.jobs.estimate import MapEstimate
    from llmnb.jobs.mapped import Mapped
    from llmnb.jobs.mapping import Job
    from llmnb.jobs.options import Errors, MapOptions, Via
    from llmnb.jobs.written import MappedFile
    from llmnb.templates import Template

    RowPrompt: TypeAlias = str | Template | Callable[[pd.Series[Any]], Any]


class AsksOfRows(Asker):
    """An `LLM`'s `map` and `amap`."""

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
        setting is another run. Rows that ask the same are asked once. While another kernel works at the same run, this
        call waits, and then goes on with what is not finished.

        Args:
            rows: a DataFrame, a Series, a list, an iterator, or a Path to a CSV, JSON Lines or Parquet file. With
                `out`, an iterator is read in a thread of its own, and its rows are asked as they come; `amap` takes
                async iterators.
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
        """The async twin of `map`, which takes async iterators, too: their rows are asked as they come.

        Such an iterator is read on this loop, a little ahead, and closed (`aclose`) when the run ends, however it does.
        What it raises ends the run, when the rows that came before are answered and kept.
        """
        from llmnb.jobs.readers import reading
        from llmnb.jobs.sitting import in_thread

        async with reading(rows) as given:
            asked = given, prompt, {**options, "out": out}
            # the rows of an iterator may take their time, and those of an async one need this loop
            if given is rows and not isinstance(rows, Iterator):
                job = self._job(*asked)
                return job.estimate() if dry_run else await job.aask()
            job = await in_thread(self._job, *asked)
            return await in_thread(job.estimate) if dry_run else await job.aask()

    def _job(self, rows: Any, prompt: object, options: Mapping[str, Any]) -> Job:
        from llmnb.jobs.mapping import job

        return job(rows, prompt, lambda told: self._question([], told), self._settings, dict(options))
