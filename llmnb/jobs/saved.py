"""`llmnb.runs()` and `llmnb.get_run()`: the runs whose rows are on disk, of this kernel and of others."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llmnb import settings as settings_room
from llmnb.errors import InvalidRequest
from llmnb.estimate import dollars
from llmnb.jobs.description import FOLDER, ROWS, Description, is_at_work, read
from llmnb.jobs.results import Results
from llmnb.ledger import frames, zones
from llmnb.records import NANO

if TYPE_CHECKING:
    import pandas as pd

    from llmnb.jobs.mapping import Job
    from llmnb.settings import Settings

_PROMPT_CHARS = 80
_KINDS: dict[str, frames.Kind] = {
    "run_id": "text",
    "began": "time",
    "changed": "time",
    "state": "text",
    "prompt": "text",
    "template": "text",
    "model": "text",
    "project": "text",
    "rows": "int",
    "done": "int",
    "failed": "int",
    "cost_usd": "usd",
    "path": "text",
}
_FIGURES = ("source", "error", "model", "input_tokens", "output_tokens", "stop_reason")

_jobs: weakref.WeakValueDictionary[tuple[Path, str], Job] = weakref.WeakValueDictionary()
_newest: list[Job] = []


def remember(job: Job) -> None:
    """Lets a run of this kernel go on by its id: the newest, which may have been stopped, and those whose frame is
    there.
    """
    _jobs[job.settings.home, job.run_id] = job
    _newest[:] = [job]


def runs() -> pd.DataFrame:
    """The runs of `llm.map` that are kept here, the newest first; prompts and answers never leave this machine.

    Returns:
        A row for each: `run_id`, `began` and `changed` (in the timezone of the settings), `state` ("running",
        "finished", "stopped": some rows were not seen to, or the kernel died), `prompt` (the template's beginning, or
        the function's name), `template` (name@version), `model`, `project`, `rows` (of the newest call; missing when a
        killed one did not get so far), `done` (rows with an answer), `failed`, `cost_usd` (of all times) and `path` of
        the folder. Delete the folder to forget a run: its rows are asked again then.
    """
    settings = settings_room.load()
    found = sorted(_described(settings), key=lambda one: one[0].changed, reverse=True)
    rows = [[*_row(one), str(path)] for one, path in found]
    return frames.frame(_KINDS, rows, zones.reporting_zone(settings))


def get_run(run_id: str) -> SavedRun:
    """A run by its id, which is in `llmnb.runs()`, `frame.run_id`, and the ledger (`where={"run_id": …}`).

    Args:
        run_id: the id, or a beginning of it that no other run has.

    Raises:
        InvalidRequest: there is none, or there are several.
    """
    settings = settings_room.load()
    found = [one for one in _described(settings) if run_id and one[0].run_id.startswith(run_id)]
    if len(found) != 1:
        many = ", ".join(one.run_id for one, _ in found)
        raise InvalidRequest(
            f"several runs begin with {run_id!r}: {many}" if found else f"there is no run {run_id!r}: see llmnb.runs()"
        )
    description, folder = found[0]
    return SavedRun(description, folder, _jobs.get((settings.home, description.run_id)))


@dataclass(frozen=True, repr=False)
class SavedRun:
    """A run on disk. `path` is its folder; `state`, `rows`, `done` and `failed` are as in `llmnb.runs()`."""

    description: Description
    path: Path
    _job: Job | None = None

    def __getattr__(self, name: str) -> Any:
        if name in ("run_id", "prompt", "model", "template", "project", "state", "rows", "done", "failed"):
            return getattr(self.description, name)
        raise AttributeError(f"a run has no {name!r}")

    @property
    def cost_usd(self) -> Decimal:
        """What all its rows have cost, those that were asked again each time."""
        return self.description.cost_nanousd / NANO

    def frame(self) -> pd.DataFrame:
        """What became of its rows, in their order, indexed by their place (from 0) when they were asked.

        The columns: `prompt` (how the row's text begins), `text` or the schema's fields, `cost_usd`, `source`, `error`,
        `model`, `input_tokens`, `output_tokens` and `stop_reason`. Rows that ask the same are one here. Columns of your
        own are not kept: for them, make the same call of `llm.map` again, which asks nothing that is finished.
        """
        import pandas as pd

        results = Results(self.path / ROWS)
        rows = [facts for key in results if (facts := results.facts(key)) is not None]
        results.close()
        rows.sort(key=lambda facts: facts.get("at", 0))
        columns: dict[str, Any] = {"prompt": [facts.get("prompt") for facts in rows], **_said(rows)}
        costs = [facts.get("cost_nanousd") for facts in rows]
        columns["cost_usd"] = pd.array([None if cost is None else cost / 1e9 for cost in costs], dtype="Float64")
        for name in _FIGURES:
            told = [facts.get(name) for facts in rows]
            columns[name] = pd.array(told, dtype="Int64") if name.endswith("_tokens") else told
        return pd.DataFrame(columns, index=pd.Index([facts.get("at", 0) for facts in rows], name="row"))

    def retry_failed(self) -> Any:
        """Asks the rows that failed again, and goes on with those that were not asked; gives what `llm.map` gave.

        Raises:
            InvalidRequest: this kernel does not know the rows.
        """
        return self._known().ask(failed_again=True)

    def resume(self) -> Any:
        """Goes on with the rows that are not finished; gives what `llm.map` gave.

        Raises:
            InvalidRequest: this kernel does not know the rows.
        """
        return self._known().ask()

    def _known(self) -> Job:
        if self._job is None:
            raise InvalidRequest(
                f"this kernel does not have the rows of run {self.run_id}: make the same call of llm.map again, with "
                "the same template, model and settings; what is finished is not asked again"
            )
        return self._job

    def __repr__(self) -> str:
        one = self.description
        rows = f"{one.done:,} of {one.rows:,} rows" if one.rows else f"{one.done:,} rows"
        failed = f", {one.failed:,} failed" if one.failed else ""
        money = dollars(self.cost_usd)
        return f"<run {one.run_id}, {one.state}: {rows}{failed}, {money}, {one.model}, {_shortened(one.prompt)!r}>"


def _described(settings: Settings) -> Iterator[tuple[Description, Path]]:
    folder = settings.home / FOLDER
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if not (path / ROWS).is_file():
            if (described := read(path)) is not None:
                yield _as_it_is(described, path), path
            continue
        yield _as_it_is(read(path) or _undescribed(path), path), path


def _row(one: Description) -> list[Any]:
    times = int(one.began * 1e6), int(one.changed * 1e6)
    said = one.state, _shortened(one.prompt), one.template, one.model, one.project
    return [one.run_id, *times, *said, one.rows or None, one.done, one.failed, one.cost_nanousd]


def _undescribed(path: Path) -> Description:
    """Of rows without a description, such as those of an earlier version."""
    began = (path / ROWS).stat().st_ctime
    return Description(path.name, "", "", began=began, changed=(path / ROWS).stat().st_mtime)


def _as_it_is(described: Description, path: Path) -> Description:
    """The counts of a run that did not come to its end are those of its rows."""
    if described.state != "running":
        return described
    results = Results(path / ROWS)
    done, failed = results.counts()
    state = "running" if is_at_work(path) else "stopped"
    return replace(described, state=state, done=done, failed=failed, cost_nanousd=results.spent_nanousd)


def _said(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    values = [facts.get("value") for facts in rows]
    if all(value is None for value in values):
        return {"text": [facts.get("text") for facts in rows]}
    if not all(isinstance(value, dict) for value in values if value is not None):
        return {"value": values}
    dicts = [cast("dict[str, Any]", value or {}) for value in values]
    names = dict.fromkeys(name for value in dicts for name in value)
    return {name: [value.get(name) for value in dicts] for name in names}


def _shortened(prompt: str) -> str:
    text = " ".join(prompt.split())
    return text if len(text) <= _PROMPT_CHARS else f"{text[: _PROMPT_CHARS - 1]}…"
