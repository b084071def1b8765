"""`llm.map`: one row in, one row out, and nothing that is finished is asked again."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import anthropic
import pandas as pd
import pytest
from pydantic import BaseModel

import llmnb
from llmnb import slots
from llmnb.errors import InvalidRequest, MissingKey
from llmnb.jobs.asking import billed
from llmnb.ledger import open_ledger
from llmnb.records import Call
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer
from llmnb.simulator.fault import Fault
from llmnb.trouble import LlmnbWarning, forget_warnings

PNG = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de")


class Person(BaseModel):
    """What a row says."""

    name: str
    age: int


@pytest.fixture(autouse=True)
def _echo(sim: Simulator) -> None:
    sim.rule(lambda request: f"echo {request.prompt}" if request.prompt else None)


@pytest.fixture
def llm() -> llmnb.LLM:
    """Without the response cache, so that what is not asked again was on disk."""
    return llmnb.LLM(cache=False, project="thesis")


@pytest.fixture
def frame() -> pd.DataFrame:
    """Rows with an index that repeats, a column that no field can name, and one that is called as a result is."""
    return pd.DataFrame({"word": ["a", "b", "c"], "my column": [1, 2, 3], "text": ["x", "y", "z"]}, index=[7, 7, 2])


@pytest.mark.parametrize("display", ["none", "static"])
def test_a_prompt_may_be_asked_for(llm: llmnb.LLM, display: str) -> None:
    """By a function that calls an LLM itself, with or without a view, on the thread that would show it."""
    inner = llmnb.LLM(cache=False, display=display)  # type: ignore[arg-type]
    got = llm.map(["a"], lambda row: f"Say {inner(row['value']).text}")
    assert got["text"].tolist() == ["echo Say echo a"]


# What comes back ------------------------------------------------------------------------------------------------------


def test_the_rows_come_back_in_order(llm: llmnb.LLM, frame: pd.DataFrame) -> None:
    """With their index and columns, and with answer, cost and tokens of each, as the ledger has them."""
    got = llm.map(frame, "Say {{ word }}")
    pd.testing.assert_frame_equal(pd.DataFrame(got[list(frame.columns)]), frame)
    assert got["text_llm"].tolist() == ["echo Say a", "echo Say b", "echo Say c"]
    calls = llmnb.calls(where={"run_id": got.run_id})
    assert (calls["project"] == "thesis").all()
    assert 0 < float(got["cost_usd"].sum()) == pytest.approx(float(calls["cost_usd"].sum()))
    assert got["output_tokens"].sum() == calls["output_tokens"].sum()
    assert (set(got["source"]), set(got["stop_reason"]), got["error"].isna().all()) == ({"live"}, {"end_turn"}, True)
    assert (got.status.done, got.status.failed, got.status.is_over) == (3, 0, True)


@pytest.mark.parametrize(
    ("rows", "prompt"),
    [
        (pd.Series(["a", "b"], name="word"), "Say {{ word }}"),
        (["a", "b"], "Say {{ value }}"),
        (iter(["a", "b"]), lambda row: f"Say {row['value']}"),
        ([{"word": "a"}, {"word": "b"}], "Say {{ word }}"),
        ([{"my word": "a"}, {"my word": "b"}], 'Say {{ row["my word"] }}'),
        ("words.csv", "Say {{ word }}"),
        ("words.jsonl", "Say {{ word }}"),
    ],
    ids=["series", "list", "function", "dicts", "odd name", "csv", "jsonl"],
)
def test_rows_of_every_kind(llm: llmnb.LLM, tmp_path: Path, rows: Any, prompt: Any) -> None:
    """Whatever they are in, and whatever makes the prompt."""
    (tmp_path / "words.csv").write_text("word\na\nb\n")
    (tmp_path / "words.jsonl").write_text('{"word":"a"}\n{"word":"b"}\n')
    got = llm.map(tmp_path / rows if isinstance(rows, str) else rows, prompt)
    assert got["text"].tolist() == ["echo Say a", "echo Say b"]


def test_a_schema_makes_columns(sim: Simulator, llm: llmnb.LLM) -> None:
    """Its fields, put right where they do not fit; a row whose answer never fits has the error, and its cost."""
    sim.reset()
    sim.rule(
        lambda request: (
            json.dumps({"name": request.prompt, "age": -1 if "bad" in str(request.body) else 30})
            if "old" not in str(request.body)
            else '{"name": 1}'
        )
    )
    template = llmnb.Template("{{ word }}", schema=Person, name="who", version=1)
    rows = [{"word": "Ann"}, {"word": "old"}]
    got = llm.map(rows, template, retries=1)
    assert (got["name"][0], got["age"][0]) == ("Ann", 30)
    assert pd.isna(got["name"][1])
    assert "age: Field required" in got["error"][1]
    assert got["cost_usd"][1] > 0
    assert set(llmnb.calls()["template"]) == {"who@1"}
    asked = len(sim.requests)
    again = llm.map(rows, template, retries=1)  # a row that failed at some cost is finished
    assert len(sim.requests) == asked == 3
    pd.testing.assert_frame_equal(pd.DataFrame(again), pd.DataFrame(got))
    sim.reset()
    sim.rule(lambda request: '{"name": "Old", "age": 80}')
    assert again.retry_failed()["name"].tolist() == ["Ann", "Old"]
    assert len(sim.requests) == 1


async def test_the_async_twin_and_pictures(sim: Simulator, llm: llmnb.LLM, tmp_path: Path) -> None:
    """On the running loop; a function may give whatever a prompt may be."""
    (tmp_path / "a.png").write_bytes(PNG)
    got = await llm.amap([{"file": tmp_path / "a.png"}], lambda row: [row["file"], "What?"])
    assert got["text"].tolist() == ["echo What?"]
    assert sim.requests[0].body["messages"][0]["content"][0]["type"] == "image"


def test_what_held_a_call_back_is_no_time_of_its_answer() -> None:
    """Else a model would look slow in a comparison because the account's limit was met while it was asked."""
    call = Call("u", 1, "m", latency_ms=9_400.0, wait_ms=9_000.0, ttft_ms=9_100.0)
    for calls in ({"u": call}, {"u": call, "v": Call("v", 1, "m", parent_uid="u", is_call=False)}):
        assert (billed(calls)["latency_ms"], billed(calls)["ttft_ms"]) == (400.0, 100.0)


def test_equal_rows_are_asked_once(sim: Simulator, llm: llmnb.LLM) -> None:
    """Each has the answer; what it cost stands at the first, so that the sum is the bill."""
    got = llm.map(["a", "b", "a", "a"], "Say {{ value }}", concurrency=3)
    assert got["text"].tolist() == ["echo Say a", "echo Say b", "echo Say a", "echo Say a"]
    assert len(sim.requests) == 2
    assert got["output_tokens"].sum() == llmnb.calls()["output_tokens"].sum()
    assert got.status.done == 4


def test_a_system_prompt_of_each_row(sim: Simulator, llm: llmnb.LLM) -> None:
    """Its fields are columns, too, and rows that differ in it alone are not equal."""
    template = llmnb.Template("Hi", system="For {{ who }}.", model="claude-haiku-5-5")
    llm.map([{"who": "Ann"}, {"who": "Bob"}], template)
    assert sorted(request.body["system"] for request in sim.requests) == ["For Ann.", "For Bob."]
    assert {request.body["model"] for request in sim.requests} == {"claude-haiku-5-5"}


@pytest.mark.parametrize("mode", ["auto", "1h", None])
def test_a_long_system_prompt_is_written_once_and_read(sim: Simulator, mode: Any) -> None:
    """The first row goes alone and writes it to the API's prompt cache, the others read it; what that saved is told."""
    guide = "You are an editor. " * 600
    llm = llmnb.LLM(cache=False, system=guide, prompt_cache=mode)
    template = llmnb.Template("Say {{ value }}", system=guide)
    got = llm.map([str(n) for n in range(12)], template, concurrency=6)
    calls = llmnb.calls()
    written = calls["cache_write_5m_tokens"] + calls["cache_write_1h_tokens"]
    assert ((written > 0).sum(), (calls["cache_read_tokens"] > 0).sum()) == ((1, 11) if mode else (0, 0))
    assert got.status.saved_nanousd / 1e9 == pytest.approx(float(calls["saved_usd"].fillna(0).sum()))
    assert (got.status.saved_nanousd > 0) == bool(mode)


@pytest.mark.parametrize("mode", ["auto", "1h", None])
def test_a_long_beginning_of_the_template_is_written_once_and_read(sim: Simulator, mode: Any) -> None:
    """All rows share it: it is cached apart from what is each row's own, whose name in the response cache it leaves."""
    llm = llmnb.LLM(prompt_cache=mode)
    template = llmnb.Template("Rules. " * 2_000 + "\nSay {{ value }}")
    rows = [str(n) for n in range(6)]
    estimate = llm.map(rows, template, dry_run=True)
    got = llm.map(rows, template, concurrency=3)
    calls = llmnb.calls()
    written = calls["cache_write_5m_tokens"] + calls["cache_write_1h_tokens"]
    assert ((written > 0).sum(), (calls["cache_read_tokens"] > 0).sum()) == ((1, 5) if mode else (0, 0))
    asked = sim.requests[1].body["messages"][0]["content"]
    assert (asked if isinstance(asked, str) else "".join(block["text"] for block in asked)) in {
        template.render(value=row) for row in rows
    }
    assert (got.status.saved_nanousd > 0) == (estimate.saved_usd > 0) == bool(mode)
    assert llm(template.render(value="1"), display="none").source == "cache"


def test_the_next_model_answers_a_row(sim: Simulator) -> None:
    """With several models, a row is asked of the next where one is down; they make the run what it is."""
    sim.reset()
    down = Answer(fault=Fault("status", status=503, error_type="overloaded_error", should_retry=False))
    sim.rule(lambda request: down if "opus" in request.body["model"] else f"{request.body['model']} {request.prompt}")
    models = ["claude-opus-5-5", "claude-haiku-5-5"]
    got = llmnb.LLM(models, cache=False).map(["a", "b"], "Say {{ value }}")
    assert got["text"].tolist() == ["claude-haiku-5-5 Say a", "claude-haiku-5-5 Say b"]
    assert got.run_id != llmnb.LLM(models[0])._job(["a"], "Say {{ value }}", {}).run_id


def test_no_more_are_asked_at_once(sim: Simulator, llm: llmnb.LLM) -> None:
    """`concurrency` holds, also above the setting."""
    under_way: list[int] = []

    def answer(request: Any) -> Answer:
        under_way.append(slots.slots.under_way)
        return Answer(text="Hi", first_token_s=0.02)

    sim.reset()
    sim.rule(answer)
    llm.map([str(n) for n in range(60)], "Say {{ value }}", concurrency=20)
    assert 16 < max(under_way) <= 20


# What goes wrong ------------------------------------------------------------------------------------------------------


def test_a_failed_row_is_a_row(sim: Simulator, llm: llmnb.LLM) -> None:
    """An empty value, an empty prompt, a refusal and a fault lose nothing else; what was free is asked again."""
    sim.reset()

    def answer(request: Any) -> Any:
        if "down" in request.prompt and len(sim.requests) < 20:
            return Answer(fault=Fault("status", status=400, error_type="invalid_request_error"))
        return Answer(text="No.", refusal=True) if "evil" in request.prompt else f"echo {request.prompt}"

    sim.rule(answer)
    rows = pd.DataFrame({"word": ["a", None, "evil", "down", "b"]})
    got = llm.map(rows, "{{ word }}")
    assert got["error"].notna().tolist() == [False, True, True, True, False]
    assert "the column 'word' has no value in this row" in got["error"][1]
    assert "refused" in got["error"][2]
    assert got["error"][3].startswith("BadRequestError: Simulated 400 (status 400, req_")
    assert got.status.failed == 3
    before = len(sim.requests)
    llm.map(rows, "{{ word }}")
    assert [request.prompt for request in sim.requests[before:]] == ["down"]
    got.retry_failed()
    assert sorted(request.prompt for request in sim.requests[before + 1 :]) == ["down", "evil"]


def test_the_first_error_can_be_raised(sim: Simulator, llm: llmnb.LLM) -> None:
    """What was finished before stays."""
    with pytest.raises(InvalidRequest, match="no value in this row") as caught:
        llm.map(["a", "b", None, "c"], "{{ value }}", errors="raise", concurrency=1)
    assert "2 of 4 rows are answered and kept" in str(caught.value.__notes__)
    assert llm.map(["a", "b"], "{{ value }}").status.kept == 2


@pytest.mark.parametrize(
    ("rows", "prompt", "options", "said"),
    [
        ([{"title": "a"}], "{{ titel }}", {}, "there is no column 'titel'. Did you mean 'title'?"),
        (
            [{"title": "a"}],
            '{{ row["titel"] }} {{ row.title }}',
            {},
            "there is no column 'titel'. Did you mean 'title'?",
        ),
        ([{"title": "a", "year": 1}], "{{ price }}", {}, "there is no column 'price'. There is title, year."),
        (["a", "b"], "Hi", {}, "no field"),
        ("a text", "{{ value }}", {}, "rows must be a DataFrame"),
        ("rows.csv", "{{ value }}", {}, r"Path\('rows.csv'\) reads that file"),
        (Path("nope.csv"), "{{ value }}", {}, "cannot be read"),
        (Path("nope.docx"), "{{ value }}", {}, "read it into a DataFrame"),
        (["a"], 7, {}, "a template or a function"),
        (["a"], "{{ value }}", {"concurrency": 0}, "whole number"),
        (["a"], "{{ value }}", {"errors": "ignore"}, "must be"),
        (["a"], "{{ value }}", {"schema": print}, "no type to extract"),
        (["a"], "{{ value }}", {"max_tokens": 0}, "max_tokens"),
        (["a"], "{{ value }}", {"budget_usd": 0}, "dollars above 0"),
        (["a"], "{{ value }}", {"budget_usd": 1, "model": "claude-nova-9"}, "there is none for claude-nova-9"),
    ],
)
def test_what_cannot_work(sim: Simulator, llm: llmnb.LLM, rows: Any, prompt: Any, options: Any, said: str) -> None:
    """It is said before anything is sent."""
    with pytest.raises(InvalidRequest, match=said):
        llm.map(rows, prompt, **options)
    assert sim.requests == []


def test_a_misspelled_argument(sim: Simulator, llm: llmnb.LLM) -> None:
    """The nearest is named, also where it is one of the map's own."""
    options: Any = {"concurency": 3}
    with pytest.raises(TypeError, match=r"'concurency'. Did you mean 'concurrency'"):
        llm.map(["a"], "{{ value }}", **options)
    assert sim.requests == []


def test_columns_without_names(sim: Simulator, llm: llmnb.LLM) -> None:
    """A frame without a header has numbers for names."""
    got = llm.map(pd.DataFrame([["a", "b"], ["c", "d"]]), "{{ row[0] }} {{ row['1'] }}")
    assert got["text"].tolist() == ["echo a b", "echo c d"]


def test_what_all_rows_would_fail_with_ends_it(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A schema or key that the API refuses is not tried ten thousand times; nor is a missing key."""
    sim.reset()
    sim.rule(lambda request: Answer(fault=Fault("status", status=400, error_type="invalid_request_error")))
    with pytest.raises(anthropic.BadRequestError) as caught:
        llmnb.LLM().map([str(n) for n in range(500)], "{{ value }}", concurrency=4)
    assert "8 of them" in str(caught.value.__notes__)
    assert len(sim.requests) < 20
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(MissingKey):
        llmnb.LLM().map(["a"], "{{ value }}")


def test_a_budget_holds(sim: Simulator, llm: llmnb.LLM) -> None:
    """No answer, however long, takes it over, with what the run cost before; what is not asked is asked with more."""
    sim.reset()
    sim.rule(Answer(text="word " * 200))
    rows = [f"{n} and some more" for n in range(30)]
    got = llm.map(rows, "{{ value }}", budget_usd="0.02", max_tokens=150)
    assert 0.02 - 2 * 0.0016 < sim.billed().price_nanousd / 1e9 <= 0.02  # a row costs some $0.0015
    assert got["error"].dropna().unique().tolist() == ["not asked: it could cost more than is left of budget_usd=0.02"]
    assert 0 < got.status.failed == got["text"].isna().sum() < 30
    asked = len(sim.requests)
    assert llm.map(rows, "{{ value }}", budget_usd="0.02", max_tokens=150).status.done == got.status.failed
    assert len(sim.requests) == asked
    assert llm.map(rows, "{{ value }}", max_tokens=150)["error"].isna().all()
    assert len(sim.requests) == 30


def test_a_budget_counts_what_was_killed(sim: Simulator, llm: llmnb.LLM) -> None:
    """A call that was under way at a kill may be billed, though no row tells of it: as much as it can cost is gone."""
    sim.reset()
    sim.rule(Answer(text="word " * 200))
    rows = [f"{n} and some more" for n in range(30)]
    begun = llm.map(rows[:1], "{{ value }}", budget_usd="0.02", max_tokens=150)
    killed = Call(
        "killed", time.time_ns() // 1000, "claude-sonnet-5-5", run_id=begun.run_id, status="interrupted",
        input_tokens=20, cost_nanousd=40_000, estimated=True,
    )  # fmt: skip
    open_ledger().write_all([(replace(killed, uid=f"killed-{n}"), ()) for n in range(5)])
    killed_usd = 5 * 150 * 10e-6
    sheet = llm.map(rows, "{{ value }}", budget_usd="0.02", max_tokens=150, dry_run=True)
    assert sheet.budget_left_usd < 0.02 - killed_usd
    got = llm.map(rows, "{{ value }}", budget_usd="0.02", max_tokens=150)
    [why] = got["error"].dropna().unique()
    assert re.search(r"0\.02; \$0\.007\d+ is counted for 5 calls that were under way .* killed.* raise budget_usd", why)
    assert got.status.first_error == why
    assert 0.02 - 3 * 0.0016 < sim.billed().price_nanousd / 1e9 + killed_usd <= 0.02


def test_a_disk_that_is_full(llm: llmnb.LLM, llmnb_home: Path) -> None:
    """The frame is whole all the same, and one warning says that it is not kept."""
    forget_warnings()
    llmnb_home.mkdir()
    (llmnb_home / "runs").write_text("in the way")
    with pytest.warns(LlmnbWarning, match="saving a finished row"), pytest.warns(LlmnbWarning, match="describing"):
        assert llm.map(["a", "b"], "{{ value }}")["text"].tolist() == ["echo a", "echo b"]


# Going on -------------------------------------------------------------------------------------------------------------


def test_the_same_call_goes_on(sim: Simulator, llm: llmnb.LLM, llmnb_home: Path) -> None:
    """Rows that were added, sorted and changed: only what is new is asked; fresh=True asks all."""
    llm.map(["a", "b"], "Say {{ value }}")
    got = llm.map(["c", "b", "a"], "Say {{ value }}")
    assert got["text"].tolist() == ["echo Say c", "echo Say b", "echo Say a"]
    assert (got.status.kept, got.status.done, len(sim.requests)) == (2, 1, 3)
    assert llm.map(["a"], "Say {{ value }}", fresh=True).run_id == got.run_id
    assert len(sim.requests) == 4
    (path,) = (llmnb_home / "runs").glob("*/rows.jsonl")
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def test_another_question_is_another_run(llm: llmnb.LLM) -> None:
    """Template, model, settings, schema, sample and server make the run; project, tag and concurrency do not."""

    def run_id(template: str = "Say {{ value }}", **options: Any) -> str:
        return llm._job(["a"], template, options).run_id

    base = run_id()
    assert base == run_id(tag="x", project="y", concurrency=5, fresh=True)
    others = [run_id("Say {{ value }}!"), run_id(model="claude-haiku-5-5"), run_id(max_tokens=7), run_id(sample=2)]
    others += [run_id(schema={"type": "string"}), run_id(schema={"type": "number"}), run_id(system="Be brief.")]
    assert len({base, *others}) == 8


def test_a_torn_line_is_passed_over(sim: Simulator, llm: llmnb.LLM, llmnb_home: Path) -> None:
    """What a kill in the middle of a write leaves costs that row and no other."""
    llm.map(["a", "b"], "Say {{ value }}")
    (path,) = (llmnb_home / "runs").glob("*/rows.jsonl")
    whole = path.read_bytes()
    for cut in (whole[:-1], whole[:-20], whole[: whole.index(b"\n") + 9]):
        path.write_bytes(cut)
        before = len(sim.requests)
        assert llm.map(["a", "b"], "Say {{ value }}")["text"].tolist() == ["echo Say a", "echo Say b"]
        assert len(sim.requests) == before + 1
        assert llm.map(["a", "b"], "Say {{ value }}").status.kept == 2


def test_stopped_it_keeps_what_is_finished(sim: Simulator, llm: llmnb.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends it at once, says how far it came, and the same call goes on."""
    sim.reset()
    sim.rule(
        lambda request: Answer(text=f"echo {request.prompt}", first_token_s=None if "fast" in request.prompt else 60)
    )
    rows = ["fast 1", "fast 2", "slow 1", "slow 2"]

    def interrupt(**_: Any) -> Any:
        return Interrupting()

    with monkeypatch.context() as patched:
        patched.setattr("llmnb.display.run_progress.progress", interrupt)
        with pytest.raises(KeyboardInterrupt, match=r"Stopped\. 2 of 4 rows are answered and kept"):
            llm.map(rows, "{{ value }}")
    sim.reset()
    sim.rule(lambda request: f"echo {request.prompt}")
    assert llm.map(rows, "{{ value }}").status.kept == 2


class Interrupting:
    """A progress display that is there when a person presses Ctrl-C, after two rows."""

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, status: Any) -> None:
        if status.done == 2 and not status.is_over:
            raise KeyboardInterrupt


def test_rows_that_are_passed_over_keep_their_order(
    sim: Simulator, llm: llmnb.LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are taken before others have a turn."""
    sim.reset()
    sim.rule(lambda request: f"echo {request.prompt}")
    monkeypatch.setattr("llmnb.jobs.run._PASSED_OVER", 3)
    rows = [str(n) for n in range(40)]
    for _ in range(2):
        got = llm.map(rows, "Say {{ value }}", concurrency=4)
        assert got["text"].tolist() == [f"echo Say {row}" for row in rows]
    assert (got.status.kept, len(sim.requests)) == (40, 40)
