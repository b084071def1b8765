"""Who is compared: models, `LLM`s or templates, each with its label and the job that asks it all rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llmnb.errors import InvalidRequest, UnknownModel
from llmnb.jobs.comparing.told import Told
from llmnb.jobs.mapping import Job
from llmnb.jobs.sources import VALUE, frame_of
from llmnb.messages import models as models_known
from llmnb.routing import Router
from llmnb.templates import Template, names

if TYPE_CHECKING:
    import pandas as pd

    from llmnb.llm import LLM

PROMPT = "prompt"
"""The column of prompts that are no rows of a frame."""
_ROWS_IN_FILES = (".csv", ".jsonl", ".parquet")
_VALUE_CHARS = 30
_LOOK_UP_S = 10.0
_PLACES = ("project", "tag", "display", "log_content", "template")
"""Settings that no answer depends on."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One column of a comparison. `job` asks it every row."""

    label: str
    job: Job

    def asked_by(self, **told: Any) -> Job:
        """The job, whose questions tell what comes; see `Told`."""
        return replace(self.job, asks=partial(Told, **told))


@dataclass(frozen=True, slots=True)
class Prompts:
    """What is asked: the rows of a frame, one of them if `is_single`; `template` makes the prompt of a row."""

    frame: pd.DataFrame
    template: Any
    is_single: bool

    @classmethod
    def of(cls, prompts: Any, template: str | Template | None, *, templates_compete: bool) -> Prompts:
        """One prompt, or a list, Series, DataFrame, iterator or file of them.

        Raises:
            InvalidRequest: there are none, or a template is wanted to make prompts of the columns.
        """
        import pandas as pd

        wants_values = templates_compete or template is not None
        is_single = _is_one(prompts)
        if is_single:
            said: dict[Any, Any] = cast("Any", prompts) if isinstance(prompts, Mapping) else {}
            if not said or not (wants_values or "type" not in said):
                said = {VALUE: [*cast("Any", prompts)] if isinstance(prompts, tuple) else cast("Any", prompts)}
            frame = pd.DataFrame({str(name): pd.Series([value], dtype=object) for name, value in said.items()})
        else:
            frame = frame_of(prompts)
        if not len(frame):
            raise InvalidRequest("there is no prompt to compare answers to. Nothing was sent.")
        if wants_values:
            return cls(frame, template, is_single)
        if len(frame.columns) != 1 or (is_single and VALUE not in frame.columns):
            columns = ", ".join(f"{{{{ {name} }}}}" for name in map(str, frame.columns))
            raise InvalidRequest(f'rows with columns want a template="…" that makes a prompt of {columns}')
        named = frame if isinstance(prompts, (pd.DataFrame, pd.Series)) else frame.rename(columns={VALUE: PROMPT})
        return cls(named, only_value, is_single)


def only_value(row: pd.Series[Any]) -> Any:
    """The prompt of a row that has nothing else."""
    return row.iloc[0]


def contestants(
    models: Any, prompts: Any, template: str | Template | None, llm: LLM | None, options: Mapping[str, Any], **job: Any
) -> tuple[list[Contestant], Prompts]:
    """The contestants and what they are asked; everything that can be refused is refused here.

    Raises:
        InvalidRequest: there are none, two would give the same answer or have the same label, or a job is refused.
        UnknownModel: one is no name of a model.
    """
    given = _listed(models)
    competing = [isinstance(one, Template) for one in given.values()]
    if any(competing) and template is not None:
        raise InvalidRequest("template= makes the prompts of models, and templates compete here: leave it out")
    asked = Prompts.of(prompts, template, templates_compete=any(competing))
    if any(competing) and not all(competing):
        raise InvalidRequest("models and templates cannot be compared with each other: an LLM is given as llm=")
    found = [Contestant(label, _job(one, asked, llm, options, job)) for label, one in given.items()]
    _check_differ(found)
    return found, asked


def _is_one(prompts: Any) -> bool:
    if isinstance(prompts, PathLike):
        return Path(cast("PathLike[str]", prompts)).suffix.lower() not in _ROWS_IN_FILES
    return isinstance(prompts, (str, bytes, bytearray, tuple, Mapping, Template)) or hasattr(prompts, "model_dump")


def _job(one: Any, asked: Prompts, llm: LLM | None, options: Mapping[str, Any], job: dict[str, Any]) -> Job:
    from llmnb.llm import LLM

    template = asked.template
    told = dict(options)
    if isinstance(one, Template):
        asker, template = llm or LLM(), one
    elif isinstance(one, LLM):
        asker = one
    elif llm is None:
        asker = LLM(one)
    elif isinstance(one, str):
        asker, told = llm, {**told, "model": one}
    else:
        raise InvalidRequest("with llm= the models are names: a Router needs an LLM of its own")
    made: Job = asker._job(  # pyright: ignore[reportPrivateUsage]
        asked.frame, template, {**told, **job, "errors": "keep", "progress": False}
    )
    if made.plan.tools is not None and made.plan.tools.approve is True:
        raise InvalidRequest("approve=True cannot ask you in several columns: give a function that decides")
    return made


# Labels ---------------------------------------------------------------------------------------------------------------


def _listed(models: Any) -> dict[str, Any]:
    """The contestants by their labels."""
    from llmnb.llm import LLM

    if isinstance(models, Mapping):
        given = {str(label): _opened(one) for label, one in cast("Mapping[Any, Any]", models).items()}
    elif isinstance(models, (str, LLM, Template, Router)) or not isinstance(models, Iterable):
        raise InvalidRequest(f"what is compared is a list of models, LLMs or templates, not {models!r}")
    else:
        listed = [_opened(one) for one in cast("Iterable[Any]", models)]
        _check_kinds(listed)
        given = dict(zip(_labels(listed), listed, strict=True))
    if not given:
        raise InvalidRequest("there is nothing to compare: give models=[…], names, LLMs or templates")
    _check_kinds(given.values())
    return given


def _opened(one: Any) -> Any:
    """A text with fields is a template: no model has such a name."""
    return Template(one) if isinstance(one, str) and names(one) else one


def _check_kinds(given: Iterable[Any]) -> None:
    from llmnb.llm import LLM

    for one in given:
        if not isinstance(one, (str, LLM, Template, Router)):
            raise InvalidRequest(
                f"models, LLMs, Routers and templates can be compared, not {one!r} ({type(one).__name__})"
            )


def _labels(listed: list[Any]) -> list[str]:
    """A label each: the name, and what else two of one name differ in.

    Raises:
        InvalidRequest: two have the same.
    """
    plain = [_name(one) for one in listed]
    labels = [
        name if plain.count(name) == 1 else f"{name}{_apart(one, [o for o in listed if _name(o) == name])}"
        for name, one in zip(plain, listed, strict=True)
    ]
    for label in labels:
        if labels.count(label) > 1:
            raise InvalidRequest(
                f"{label!r} is there twice. For independent answers of one model give each a sample of its own, "
                f"[LLM({label!r}), LLM({label!r}, sample=1)]; for labels of your own a dict, {{label: LLM(…)}}. "
                "Nothing was sent."
            )
    return labels


def _name(one: Any) -> str:
    if isinstance(one, Template):
        return one.label
    if isinstance(one, Router):
        return " → ".join(one.models)
    return one if isinstance(one, str) else cast("LLM", one).model


def _apart(one: Any, others: list[Any]) -> str:
    """The settings in which it differs from others of its name."""
    told = [_options(other) for other in others]
    mine = _options(one)
    names = sorted({name for options in told for name in options if any(o.get(name) != mine.get(name) for o in told)})
    said = [f"{name}={_short(mine[name])}" for name in names if name in mine and name not in _PLACES]
    return f" ({', '.join(said)})" if said else ""


def _options(one: Any) -> dict[str, Any]:
    options = getattr(one, "options", {})
    return {} if isinstance(one, Template) else {name: value for name, value in options.items() if name != "model"}


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _VALUE_CHARS else f"{text[: _VALUE_CHARS - 1]}…"


def _check_differ(found: list[Contestant]) -> None:
    known: dict[str, str] = {}
    for one in found:
        other = known.setdefault(one.job.run_id, one.label)
        if other != one.label:
            raise InvalidRequest(
                f"{other!r} and {one.label!r} ask the same model the same with the same settings: give one of them "
                "sample=1 for an independent answer. Nothing was sent."
            )


async def check_known(found: list[Contestant]) -> None:
    """Asks the API, for nothing, about models that this SDK does not know, before the others are paid.

    Raises:
        UnknownModel: the API does not know one of them, either.
    """
    import anthropic

    for one in found:
        job = one.job
        strange = job.access.endpoint is None and job.routing is None and models_known.hint(job.plan.model)
        if not strange:
            continue
        try:
            client = job.access.here().with_options(max_retries=0, timeout=_LOOK_UP_S)
            await client.models.retrieve(job.plan.model)
        except anthropic.NotFoundError:
            raise UnknownModel(job.plan.model, models_known.nearest(job.plan.model)) from None
        except Exception:  # noqa: S112 - it is asked all the same, and its column says what is wrong
            continue
