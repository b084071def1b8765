"""`llmnb.compare`: who answers better, at what price; and nothing is paid where it cannot be compared."""

from __future__ import annotations

import _thread
import asyncio
import json
import threading
import time
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pandas as pd
import pytest
from pydantic import BaseModel

import llmnb
from llmnb.errors import InvalidRequest, MissingKey, UnknownModel
from llmnb.jobs.comparing.scores import wilson
from llmnb.ledger import open_ledger
from llmnb.records import Call
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer
from llmnb.simulator.fault import Fault

SONNET, OPUS, HAIKU = "claude-sonnet-5-5", "claude-opus-5-5", "claude-haiku-5-5"
MODELS = [SONNET, OPUS, HAIKU]


class Size(BaseModel):
    """How large a thing is."""

    metres: float


def says(request: Any) -> str:
    """What the simulated models say: the judge likes opus best, and else whatever it reads first."""
    prompt = request.prompt
    if "You judge" not in prompt:
        return f"{request.body['model']} on {prompt}"
    one, two = (prompt.split(f"<answer_{name}>")[1] for name in "ab")
    one = one.split("</answer_a>")[0]
    winner = "A" if OPUS in one else "B" if OPUS in two else "A"
    return json.dumps({"reasoning": "because", "winner": winner})


@pytest.fixture(autouse=True)
def _answers(sim: Simulator) -> None:
    sim.rule(says)


def asked(sim: Simulator) -> int:
    """How many answers were asked for."""
    return sum(request.path == "/v1/messages" for request in sim.requests)


def spent(**where: Any) -> Decimal:
    """Dollars, by the ledger."""
    return Decimal(int(llmnb.usage(by=[], where=where or None)["cost_nanousd"].sum())) / 10**9


# One prompt -----------------------------------------------------------------------------------------------------------


def test_one_prompt(sim: Simulator) -> None:
    """Each contestant has its answer, cost and times, as the books have them; asked again it costs nothing."""
    got = llmnb.compare("x", MODELS)
    frame = got.frame()
    assert frame["contestant"].tolist() == frame["model"].tolist() == MODELS
    assert frame["answer"].tolist() == [f"{model} on x" for model in MODELS]
    assert frame["prompt"].tolist() == ["x"] * 3
    assert got.cost_usd == spent() > 0
    assert float(frame["cost_usd"].sum()) == pytest.approx(float(got.cost_usd))
    assert (frame["seconds"] >= frame["ttft_seconds"]).all()
    assert frame["score"].isna().all()
    assert got.replies[OPUS].text == f"{OPUS} on x"
    again = llmnb.compare("x", MODELS)
    assert (asked(sim), again.cost_usd) == (3, 0)
    assert set(again.frame()["source"]) == {"cache"}
    assert again.frame()["full_cost_usd"].tolist() == frame["cost_usd"].tolist()
    assert repr(got).splitlines()[0].split() == ["answered", "$", "an", "answer", "median", "first", "token"]


async def test_one_column_fails(sim: Simulator) -> None:
    """Its error stands where its answer would, and the others go on; it is judged by nobody."""
    sim.reset()
    sim.rule(Fault("status", status=400, message="no luck"), match=lambda request: request.body["model"] == HAIKU)
    sim.rule(says)
    got = await llmnb.acompare("x", MODELS, judge=SONNET, criteria="the best")
    frame = got.frame().set_index("contestant")
    assert "no luck" in frame.loc[HAIKU, "error"]
    assert frame["answer"].isna().tolist() == frame["score"].isna().tolist() == [False, False, True]
    assert frame.loc[OPUS, "score"] == 1
    assert got.summary()["failed"].to_dict() == {OPUS: 0, SONNET: 0, HAIKU: 1}
    page = got._repr_mimebundle_()["text/html"]
    assert "no luck" in page
    assert "grid-template-columns" in page  # it brings its own style


# Many prompts ---------------------------------------------------------------------------------------------------------


def test_many_prompts_with_a_judge(sim: Simulator) -> None:
    """Every pair is judged in both orders; two verdicts that do not agree are a tie, which is said; the judge's bill is
    apart; and a second time nothing is asked, though the response cache is off."""
    llm = llmnb.LLM(cache=False)
    got = llmnb.compare(
        pd.Series(["x", "y"], index=[5, 7]), MODELS, llm=llm, judge=llmnb.LLM(SONNET), criteria="better"
    )
    assert asked(sim) == 2 * 3 + 2 * 3 * 2
    summary = got.summary()
    assert summary.index.tolist() == [OPUS, SONNET, HAIKU]
    assert summary["score"].tolist() == [1, 0.25, 0.25]
    assert summary[["wins", "losses", "ties", "disagreed"]].to_dict("list") == {
        "wins": [4, 0, 0], "losses": [0, 2, 2], "ties": [0, 2, 2], "disagreed": [0, 2, 2],
    }  # fmt: skip
    assert (summary["score_low"] < summary["score"]).all()
    verdicts = got.verdicts()
    assert verdicts.index.tolist() == [5, 5, 5, 7, 7, 7]
    assert verdicts["winner"].tolist() == [OPUS, "tie", OPUS] * 2
    assert verdicts["agreed"].tolist() == [True, False, True] * 2
    assert got.judge_cost_usd == spent(tag="judge") > 0
    assert got.cost_usd == spent() - spent(tag="judge")
    assert "2 of them as the judge said otherwise with the answers swapped" in repr(got)
    assert "the judge is of a contestant's model" in repr(got)
    assert got.frame().index.tolist() == [5, 5, 5, 7, 7, 7]
    again = llmnb.compare(pd.Series(["x", "y"], index=[5, 7]), MODELS, llm=llm, judge=SONNET, criteria="better")
    assert asked(sim) == 18
    pd.testing.assert_frame_equal(again.frame(), got.frame())


def test_templates_scored_by_a_function(sim: Simulator) -> None:
    """Templates compete on one LLM over the columns of a frame; a score that raises is its row's error, and its answer
    stays; equal rows are paid once."""
    frame = pd.DataFrame({"word": ["a", "bb", "a"], "want": [10, 11, 10]})
    templates = {"short": llmnb.Template("Say {{ word }}"), "long": llmnb.Template("Do please say {{ word }}")}

    def score(answer: str, row: Any) -> float:
        if row["word"] == "bb" and "please" in answer:
            raise ValueError("too polite")
        return len(answer) - row["want"]

    got = llmnb.compare(frame, templates, llm=llmnb.LLM(HAIKU), score=score)
    told = got.frame()
    assert told["word"].tolist() == ["a", "a", "bb", "bb", "a", "a"]
    assert told["error"].dropna().tolist() == ["score: ValueError: too polite"]
    assert told["answer"][1].tolist() == [f"{HAIKU} on Say bb", f"{HAIKU} on Do please say bb"]
    assert told["score"].isna().tolist() == [False, False, False, True, False, False]
    assert got.summary()["scored"].to_dict() == {"long": 2, "short": 3}
    assert got.answers().columns.tolist() == ["word", "want", "short", "long"]
    assert asked(sim) == 4
    assert float(told["cost_usd"].sum()) == pytest.approx(float(llmnb.usage(by=[])["cost_usd"].sum()))
    chart = got.pareto().to_dict()
    assert len(chart["layer"]) == 5
    assert [line.split(":")[0] for line in chart["usermeta"]["text"].splitlines()[1:]] == ["short", "long"]
    assert "| word | want | short | long |" in got._repr_mimebundle_()["text/markdown"]


@pytest.mark.parametrize("is_table", [True, False], ids=["table", "untold"])
async def test_a_score_that_takes_its_time(monkeypatch: pytest.MonkeyPatch, is_table: bool) -> None:
    """The loop, on which the requests are waited for, goes on while a function scores; each answer is scored once."""
    loop, asked_of = asyncio.get_running_loop(), list[str]()
    monkeypatch.setattr("llmnb.display.side_by_side.where", lambda: "colab" if is_table else "script")

    def score(answer: str) -> float:
        asked_of.append(answer)
        goes_on = threading.Event()
        loop.call_soon_threadsafe(goes_on.set)
        if answer.endswith("b"):
            raise ValueError("no")
        return float(goes_on.wait(2))

    display = "html" if is_table else "none"
    got = await llmnb.acompare(list("abc"), [SONNET, OPUS], score=score, concurrency=1, display=display)
    assert got.frame()["score"].dropna().tolist() == [1.0] * 4
    assert set(got.frame()["error"].dropna()) == {"score: ValueError: no"}
    assert sorted(asked_of) == sorted(f"{model} on {word}" for model in (SONNET, OPUS) for word in "abc")


async def test_a_score_is_left_off_with_its_task() -> None:
    """A comparison that is cancelled while its answers are scored asks the function of no other answer."""
    asked_of, begun, goes_on = list[str](), asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def score(answer: str) -> float:
        asked_of.append(answer)
        loop.call_soon_threadsafe(begun.set)
        return float(goes_on.wait(10))

    task = loop.create_task(llmnb.acompare(list("abc"), [SONNET, OPUS], score=score, display="none"))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    goes_on.set()
    await loop.shutdown_default_executor()
    assert len(asked_of) == 1


def test_values_of_a_schema(sim: Simulator) -> None:
    """With a schema the answers are values, and those are scored."""
    sim.reset()
    sim.rule(lambda request: '{"metres": 3}' if request.body["model"] == OPUS else '{"metres": 4}')
    got = llmnb.compare("How long?", [SONNET, OPUS], schema=Size, score=lambda size: size["metres"])
    assert got.frame()["answer"].tolist() == [{"metres": 4.0}, {"metres": 3.0}]
    assert got.summary().index.tolist() == [SONNET, OPUS]


def test_a_budget_holds_for_all_of_it(sim: Simulator) -> None:
    """Answers that could take it over are not asked for, by any contestant, nor is the judge; and say so."""
    got = llmnb.compare(list("abcdef"), [SONNET, OPUS], judge=SONNET, criteria="good", budget_usd="0.1", concurrency=1)
    errors = got.frame()["error"].dropna()
    assert errors.str.contains("left of budget_usd=0.1").all()
    assert len(errors) > 0
    assert got.cost_usd + got.judge_cost_usd == spent() <= Decimal("0.1")


@pytest.mark.parametrize("by_judge", [False, True], ids=["contestant", "judge"])
def test_a_budget_counts_what_was_killed(sim: Simulator, by_judge: bool) -> None:
    """Calls that were under way at a kill, of a contestant and of the judge, are gone for both; and that is said."""
    judge = llmnb.LLM(SONNET, max_tokens=100)
    models = {"one": llmnb.LLM(SONNET, max_tokens=100), "two": llmnb.LLM(OPUS, max_tokens=100)}
    llmnb.compare(list("ab"), models, judge=judge, criteria="good", budget_usd=5)
    calls = llmnb.calls()
    is_judged = calls["tag"].notna()
    run_id = calls[is_judged == by_judge]["run_id"].iloc[0]
    killed = Call(
        "killed", time.time_ns() // 1000, SONNET, run_id=run_id, status="interrupted", input_tokens=20, estimated=True
    )
    open_ledger().write_all([(replace(killed, uid=f"killed-{n}"), ()) for n in range(100)])
    budget_usd = spent() + Decimal("0.09")  # a cent less than they can have cost
    sent = asked(sim)
    got = llmnb.compare(
        list("ab" if by_judge else "abc"), models, judge=judge, criteria="better", budget_usd=budget_usd
    )
    assert asked(sim) == sent
    told = got.verdicts()["error"] if by_judge else got.frame()["error"].dropna()
    assert told.str.contains("is counted for 100 calls that were under way when a process was killed").all()
    assert len(told) == 2
    assert got.verdicts()["error"].notna().all()  # nor is there anything left for the judge


@pytest.mark.parametrize("prompts", ["a", list("abcdef")], ids=["one", "many"])
def test_interrupted(sim: Simulator, prompts: Any) -> None:
    """Ctrl-C stops all of it in one line; what was answered is kept, and the same call asks what is left."""
    # what draws it is imported by now: Python may lose an interrupt that comes in the middle of an import
    llmnb.compare("w" if prompts == "a" else ["v", "w"], [SONNET, OPUS])
    sim.reset()
    presses = iter([_thread.interrupt_main])  # once: another would strike whatever runs by then

    def interrupts(request: Any) -> Any:
        if request.body["model"] != OPUS or request.prompt != prompts[-1]:
            return says(request)
        for press in presses:
            press()
        return Answer(text="slow " * 500, delta_delay_s=0.5)

    sim.rule(interrupts)
    with pytest.raises(KeyboardInterrupt, match="What was answered by then is kept"):
        llmnb.compare(prompts, [SONNET, OPUS])
    sim.reset()
    sim.rule(says)
    got = llmnb.compare(prompts, [SONNET, OPUS])
    assert got.frame()["answer"].notna().all()
    assert asked(sim) <= len(got) * 2
    assert {request.body["model"] for request in sim.requests} >= {OPUS}


# What is refused ------------------------------------------------------------------------------------------------------

LLM = llmnb.LLM


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: llmnb.compare("x", []), "nothing to compare"),
        (lambda: llmnb.compare("x", SONNET), "a list of models"),
        (lambda: llmnb.compare("x", [SONNET, 3]), "can be compared, not 3"),
        (lambda: llmnb.compare("x", [SONNET, SONNET]), "sample=1"),
        (lambda: llmnb.compare("x", {"a": SONNET, "b": LLM(SONNET)}), "'a' and 'b' ask the same model"),
        (lambda: llmnb.compare("x", [LLM(SONNET, tag="a"), LLM(SONNET, tag="b")]), "is there twice"),
        (lambda: llmnb.compare([], MODELS), "no prompt"),
        (lambda: llmnb.compare(pd.DataFrame({"a": [1], "b": [2]}), MODELS), "want a template="),
        (lambda: llmnb.compare(["x"], MODELS, template="{{ valeu }}"), "Did you mean 'value'"),
        (lambda: llmnb.compare("x", MODELS, judge=SONNET), 'criteria="…"'),
        (lambda: llmnb.compare("x", MODELS, criteria="good"), "judge=LLM"),
        (lambda: llmnb.compare("x", [SONNET], judge=OPUS, criteria="good"), "one contestant"),
        (lambda: llmnb.compare("x", MODELS, judge=OPUS, criteria="good", score=len), "one of them"),
        (lambda: llmnb.compare("x", MODELS, score=lambda: 1), "takes an answer"),
        (lambda: llmnb.compare("x", MODELS, budget_usd=-1), "above 0"),
        (lambda: llmnb.compare("x", [SONNET, llmnb.Template("x")]), "cannot be compared with each other"),
        (lambda: llmnb.compare("x", MODELS).pareto(), "no quality to plot"),
    ],
    ids=range(17),
)  # fmt: skip
def test_what_cannot_be_compared(sim: Simulator, make: Any, told: str) -> None:
    """It is refused with what to do, before anything is paid."""
    with pytest.raises(InvalidRequest, match=told.replace("(", "\\(")):
        make()
    assert asked(sim) == 0 or "quality" in told


def test_a_misspelled_argument_of_a_comparison(sim: Simulator) -> None:
    """The nearest is named, among the comparison's own, too."""
    with pytest.raises(TypeError, match=r"'scores'. Did you mean 'score'"):
        llmnb.compare("x", MODELS, scores=len)
    assert asked(sim) == 0


def test_a_text_with_fields_is_a_template(sim: Simulator) -> None:
    """As for `llm.map`; no model has such a name."""
    templates = {"short": "Say {{ value }}", "long": "Do please say {{ value }}"}
    got = llmnb.compare(["a"], templates, llm=llmnb.LLM(HAIKU))
    assert got.frame()["answer"].tolist() == [f"{HAIKU} on Say a", f"{HAIKU} on Do please say a"]


@pytest.mark.parametrize("prompts", ["x", ["x", "y"]], ids=["one", "many"])
def test_an_unknown_model(sim: Simulator, prompts: Any) -> None:
    """The API is asked for nothing whether there is such a model, before the others are paid."""
    with pytest.raises(UnknownModel, match="Did you mean 'claude-opus-5-5'"):
        llmnb.compare(prompts, [SONNET, "claude-opas-5-5"])
    assert asked(sim) == 0


def test_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error is raised, and not told in each column."""
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(MissingKey):
        llmnb.compare("x", MODELS)


def test_independent_answers_of_one_model() -> None:
    """LLMs of one name are told apart by what they differ in."""
    got = llmnb.compare("x", [LLM(SONNET), LLM(SONNET, sample=1), LLM(SONNET, max_tokens=99)])
    assert got.labels == (SONNET, f"{SONNET} (sample=1)", f"{SONNET} (max_tokens=99)")


# How it is shown ------------------------------------------------------------------------------------------------------


def test_printed(sim: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal the answers are printed one after another, hostile control characters taken out."""
    sim.reset()
    sim.rule(Answer(text="a\x1b[31mb"))
    llmnb.compare("x", [SONNET, OPUS], display="print", score=len)
    out = capsys.readouterr().out
    assert out.index(f"── {SONNET} ──") < out.index(f"── {OPUS} ──")
    assert "a[31mb" in out
    assert "\x1b" not in out
    assert out.count("score 7") == 2


def test_a_display_that_fails_harms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said once, and the comparison is whole."""
    monkeypatch.setattr("llmnb.display.publishing.print_plain", lambda bundle: 1 / 0)
    with pytest.warns(RuntimeWarning, match="ZeroDivisionError"):
        got = llmnb.compare("x", [SONNET, OPUS], display="print")
    assert got.frame()["answer"].notna().all()


def test_the_interval() -> None:
    """Wilson's, as in the example of Newcombe 1998 (Statistics in Medicine 17:857-872, table I): 81 of 263."""
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
