"""`llmnb.compare`: the same prompts to several models, LLMs or templates, side by side, and who answers better."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from importlib import import_module
from typing import TYPE_CHECKING, Any

from llmnb import interrupts
from llmnb import settings as settings_room
from llmnb.asking.params import KNOWN, check_names
from llmnb.errors import InvalidRequest
from llmnb.interrupts import Stopped
from llmnb.jobs.comparing.comparison import Comparison as Comparison
from llmnb.jobs.comparing.contest import Contest
from llmnb.jobs.comparing.contestants import contestants
from llmnb.jobs.comparing.judging import judge_of
from llmnb.jobs.comparing.scores import checked

if TYPE_CHECKING:
    from llmnb.llm import LLM
    from llmnb.routing import Router
    from llmnb.templates import Template

RETRIES = 2
_OWN = ("concurrency", "criteria", "judge", "llm", "progress", "retries", "schema", "score")
_STOPPED = "Stopped. What was answered by then is kept; the same call asks what is left."


def compare(
    prompts: Any,
    models: Iterable[str | LLM | Router | Template] | Mapping[str, str | LLM | Router | Template],
    *,
    template: str | Template | None = None,
    llm: LLM | None = None,
    judge: LLM | str | None = None,
    criteria: str | None = None,
    score: Callable[..., Any] | None = None,
    schema: Any = None,
    concurrency: int | None = None,
    retries: int = RETRIES,
    budget_usd: Any = None,
    progress: bool = True,
    **options: Any,
) -> Comparison:
    """Asks several models, LLMs or templates the same, and shows their answers side by side.

    One prompt: the answers stream into columns next to each other, each with its cost, time and tokens. Many prompts: a
    table in which scores, costs and times of the contestants grow, and the rows that were finished last. Stop ends all
    of it. A contestant that fails shows its error, and the others go on. What was asked before comes from the response
    cache and costs nothing; of many prompts every finished answer is on disk as with `llm.map`, and after a stop or a
    kill the same call asks what is left.

    Args:
        prompts: one prompt as for `llm(…)` (a tuple of parts, such as a Path and a text, is one); or many: a list, a
            Series, a DataFrame, an iterator, or a Path to a CSV, JSON Lines or Parquet file. A dict holds the values of
            a template.
        models: names of models, `LLM`s, Routers or Templates; or a dict of them by labels of your own. Templates (a
            text with {{ fields }} is one) are compared on one LLM, `llm`, and are filled from the columns of `prompts`
            (without columns: {{ value }}).
        template: makes the prompt of the columns of `prompts`, for models and LLMs.
        llm: what names of models, and templates, take all other settings from; default: `LLM()`.
        judge: an LLM, or the name of a model, that says of every two answers to a prompt which is better. It is asked
            in both orders, and two verdicts that do not agree are a tie. Its calls are rows with the tag "judge".
        criteria: what makes an answer better; the judge goes by it.
        score: in the place of a judge a function that gives an answer a number, the higher the better: `score(answer)`
            or `score(answer, row)`, with the row of the frame. Where it raises, that row has the error.
        schema: a type as for `llm.extract`; then the answers are values.
        concurrency: how many requests are under way at once; default: the setting.
        retries: with a schema, how often a model is told what was wrong.
        budget_usd: what all of it may cost, the judge included, with what earlier runs over the same rows have cost: an
            answer that could take it over, by the most it can cost, is not asked for, and says so.
        progress: shows it while it goes on.
        **options: any setting of `LLM`, for all contestants; `display` as for `LLM`.

    Returns:
        A `Comparison`: `.frame()`, `.answers()`, `.summary()`, `.verdicts()`, `.pareto()`.

    Raises:
        InvalidRequest: it cannot be compared so; nothing was sent.
        UnknownModel: a model does not exist; nothing was paid.
        MissingKey: there is no API key; nothing was sent.
        KeyboardInterrupt: it was stopped; what was answered is kept.
    """
    from llmnb.asking.runner import from_loop_thread

    contest = _contest(prompts, models, template, llm, judge, criteria, score, schema, concurrency, retries, budget_usd,
                       progress, options)  # fmt: skip
    shown = contest.shown
    try:
        work = from_loop_thread(
            lambda: contest.work(on_loop_thread=True), lambda stop: shown.open(contest.labels, contest.models, stop)
        )
        with closing(work) as acts:
            for act in acts:
                act()
        comparison = contest.comparison()
    except KeyboardInterrupt as error:
        stopped = Stopped(_STOPPED)
        stopped.by_view = getattr(error, "by_view", False)
        contest.catch_up()
        shown.close(None, stopped)
        raise stopped from None
    except BaseException as error:
        shown.close(None, error)
        raise
    finally:
        contest.caller.thread = None  # what was stopped may still be ending, and the same call waits for that
    shown.close(comparison)
    return comparison


async def acompare(
    prompts: Any,
    models: Iterable[str | LLM | Router | Template] | Mapping[str, str | LLM | Router | Template],
    *,
    template: str | Template | None = None,
    llm: LLM | None = None,
    judge: LLM | str | None = None,
    criteria: str | None = None,
    score: Callable[..., Any] | None = None,
    schema: Any = None,
    concurrency: int | None = None,
    retries: int = RETRIES,
    budget_usd: Any = None,
    progress: bool = True,
    **options: Any,
) -> Comparison:
    """The async twin of `compare`, on the running loop; `score` runs in a thread, and the loop goes on."""
    contest = _contest(prompts, models, template, llm, judge, criteria, score, schema, concurrency, retries, budget_usd,
                       progress, options)  # fmt: skip
    shown = contest.shown
    loop = asyncio.get_running_loop()
    task = loop.create_task(contest.on_this_loop())
    pressed = False

    def stop() -> None:
        nonlocal pressed
        pressed = True
        loop.call_soon_threadsafe(task.cancel)

    with interrupts.heard(stop) as interrupt:
        try:
            shown.open(contest.labels, contest.models, stop)
            comparison = await task
        except BaseException as error:
            task.cancel()
            is_stop = isinstance(error, asyncio.CancelledError) and (pressed or interrupt.struck)
            told = interrupts.Cancelled(_STOPPED) if is_stop else error
            contest.catch_up()
            shown.close(None, told)
            raise told from None if told is not error else error.__cause__
    shown.close(comparison)
    return comparison


def _contest(
    prompts: Any,
    models: Any,
    template: Any,
    llm: Any,
    judge: Any,
    criteria: str | None,
    score: Any,
    schema: Any,
    concurrency: int | None,
    retries: int,
    budget_usd: Any,
    progress: bool,
    options: Mapping[str, Any],
) -> Contest:
    """Everything that can be refused is refused here."""
    settings = settings_room.load()
    if judge is not None and score is not None:
        raise InvalidRequest("judge= and score= both say how good an answer is: give one of them. Nothing was sent.")
    check_names(options, (*KNOWN, *_OWN), "compare()")
    told = {name: value for name, value in options.items() if name != "display"}
    width = settings.concurrency if concurrency is None else concurrency
    job: dict[str, Any] = {"schema": schema, "concurrency": width, "retries": retries}
    if budget_usd is not None:
        told["budget_usd"] = budget_usd
    found, asked = contestants(models, prompts, template, llm, told, **job)
    room: Any = import_module("llmnb.display.side_by_side")  # the display room stands above this one
    name = options.get("display", settings.display)
    shown = room.shown(name if progress else "none", is_single=asked.is_single)
    return Contest(
        found,
        asked,
        judge_of(judge, criteria, found, concurrency=width, budget_usd=budget_usd),
        None if score is None else checked(score),
        shown,
        is_shown_live=room.stays(shown),
    )
