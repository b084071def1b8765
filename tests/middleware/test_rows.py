"""What a row says beside its tokens: who asked and from where, what was billed beside the answer, and what was said."""

from __future__ import annotations

import json
import threading
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import pandas as pd
import pytest

import llmnb
from llmnb import origin, settings, trouble
from llmnb.ledger import books
from llmnb.records import Call, Ended, calling
from llmnb.simulator import Answer, Simulator

from .conftest import QUESTION, row, rows


def test_a_row_says_who_asked_and_from_where(
    simulator: Simulator, client: anthropic.Anthropic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels come from the context, then the client, then the settings, then the machine."""
    monkeypatch.setenv("LLMNB_USER", "ann")
    monkeypatch.setenv("LLMNB_PROJECT", "of the settings")
    with simulator.client() as plain, calling(chat="review", run_id="r1", template="t@2", tag="x"):
        llmnb.wrap(plain).messages.create(**QUESTION)
    written = row()
    assert {name: written[name] for name in ("user", "project", "chat", "run_id", "template", "tag")} == {
        "user": "ann",
        "project": "of the settings",
        "chat": "review",
        "run_id": "r1",
        "template": "t@2",
        "tag": "x",
    }
    assert written["session"] == origin.session()


def test_the_user_is_the_setting_else_jupyterhub_else_the_login(monkeypatch: pytest.MonkeyPatch) -> None:
    """In this order."""
    login = origin.user(settings.load())
    assert login
    monkeypatch.setenv("JUPYTERHUB_USER", "hub")
    assert origin.user(settings.load()) == "hub"
    monkeypatch.setenv("LLMNB_USER", "ann")
    assert origin.user(settings.load()) == "ann"


def test_the_notebook_is_the_setting_else_what_jupyter_tells(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jupyter names the file in JPY_SESSION_NAME."""
    monkeypatch.setenv("JPY_SESSION_NAME", "/home/ann/work/paper.ipynb")
    assert origin.notebook(settings.load()) == "paper.ipynb"
    monkeypatch.setenv("LLMNB_NOTEBOOK", "mine")
    assert origin.notebook(settings.load()) == "mine"


def test_iterations_of_other_models_are_child_rows(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """An advisor's tokens are priced on the advisor's model, and are no call of their own."""
    iterations = [
        {"type": "message", "input_tokens": 40, "output_tokens": 10},
        {"type": "advisor_message", "model": "claude-opus-5-5", "input_tokens": 823, "output_tokens": 1612},
    ]
    simulator.script(Answer(text="hi", usage={"input_tokens": 40, "output_tokens": 10, "iterations": iterations}))
    client.beta.messages.create(**QUESTION)
    table = llmnb.calls(children=True)
    parent, child = table[table["is_call"]].iloc[0], table[~table["is_call"]].iloc[0]
    assert (parent["model"], parent["cost_nanousd"]) == ("claude-sonnet-5-5", 40 * 2_000 + 10 * 10_000)
    assert (child["model"], child["cost_nanousd"]) == ("claude-opus-5-5", 823 * 4_000 + 1612 * 20_000)
    assert (child["parent_uid"], child["tag"], child["project"]) == (parent["uid"], "advisor_message", "thesis")
    total = llmnb.usage(by=[])
    assert (total["calls"][0], total["cost_nanousd"][0]) == (1, parent["cost_nanousd"] + child["cost_nanousd"])
    assert total["cost_nanousd"][0] == simulator.billed().price_nanousd


def test_each_prompt_of_a_tool_loop_has_a_price_tier_of_its_own(
    simulator: Simulator, client: anthropic.Anthropic
) -> None:
    """Two prompts of 60,000 tokens stay below the 100,000 where haiku's dearer tier begins; repricing keeps that."""
    from llmnb.ledger import open_ledger
    from llmnb.pricing import reprice

    iterations = [{"type": "message", "input_tokens": 60_000, "output_tokens": 100}] * 2
    usage = {"input_tokens": 60_000, "output_tokens": 200, "iterations": iterations}
    simulator.script(Answer(text="hi", model="claude-haiku-5-5", usage=usage))
    client.beta.messages.create(**{**QUESTION, "model": "claude-haiku-5-5"})
    written = row()
    assert (written["input_tokens"], written["output_tokens"]) == (120_000, 200)
    assert written["cost_nanousd"] == 120_000 * 100 + 200 * 500
    assert reprice(open_ledger()).changed == 0


def test_the_model_that_served_is_the_one_that_is_billed(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """Asked for sonnet, served by opus."""
    simulator.script(Answer(text="hi", model="claude-opus-5-5", usage={"input_tokens": 10, "output_tokens": 1}))
    client.messages.create(**QUESTION)
    written = row()
    assert (written["model_requested"], written["model"]) == ("claude-sonnet-5-5", "claude-opus-5-5")
    assert written["cost_nanousd"] == 10 * 4_000 + 20_000


def test_a_model_without_a_price_is_unpriced_and_not_free(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """Missing, never 0."""
    simulator.script(Answer(text="hi", model="claude-nonsense-9"))
    client.messages.create(**QUESTION)
    assert pd.isna(row()["cost_nanousd"])
    assert pd.isna(row()["cost_usd"])
    assert llmnb.usage(by=[])["unpriced_calls"][0] == 1


@pytest.mark.parametrize("on", [False, True])
def test_content_is_logged_only_when_asked_for(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, llmnb_home: Path, on: bool
) -> None:
    """By default no word of prompt or answer is anywhere in llmnb's folder."""
    if on:
        monkeypatch.setenv("LLMNB_LOG_CONTENT", "1")
    simulator.script("the secret answer")
    question = {**QUESTION, "messages": [{"role": "user", "content": "the secret question"}]}
    with simulator.client() as plain:
        llmnb.wrap(plain).messages.create(**question)
    stored = b"".join(path.read_bytes() for path in llmnb_home.rglob("*") if path.is_file())
    assert (b"the secret question" in stored) is on
    assert (b"the secret answer" in stored) is on
    assert b"sk-ant" not in stored


def test_logged_content_is_the_request_and_the_response(simulator: Simulator) -> None:
    """As JSON, also of streams."""
    kept: list[Ended] = []
    with simulator.client() as plain, calling(log_content=True, on_end=kept.append):
        list(llmnb.wrap(plain).messages.create(**QUESTION, stream=True))
    content = json.loads(kept[0].rows[0].content or "")
    assert content["request"]["messages"] == QUESTION["messages"]
    assert "event: message_stop" in content["response"]


def test_on_end_is_told_each_finished_call(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """The row it gives is the one that is written; a listener that fails does not break the call."""
    kept: list[Ended] = []
    with calling(on_end=kept.append):
        client.messages.create(**QUESTION)
    [call] = kept[0].rows
    assert (call.uid, call.cost_nanousd) == (row()["uid"], row()["cost_nanousd"])

    def fails(call: Ended) -> None:
        raise RuntimeError("listener")

    trouble.forget_warnings()
    with calling(on_end=fails), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert client.messages.create(**QUESTION).content
    assert [warning.category for warning in said] == [trouble.LlmnbWarning]


class BrokenBooks:
    """Books that break their promise."""

    def begin(self, call: Any, origin: Any = None) -> None:
        raise RuntimeError("books")

    def record(self, call: Call, children: Any = ()) -> None:
        raise RuntimeError("books")


def test_books_that_break_never_break_a_call(simulator: Simulator) -> None:
    """Whatever happens inside llmnb, answers and errors of the SDK come out."""
    trouble.forget_warnings()
    with simulator.client(max_retries=0) as plain, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        client = llmnb.wrap(plain, books=BrokenBooks())
        assert client.messages.create(**QUESTION).content
        assert list(client.messages.create(**QUESTION, stream=True))
        simulator.fail("overloaded")
        with pytest.raises(anthropic.APIStatusError):
            client.messages.create(**QUESTION)
    assert said
    assert all(warning.category is trouble.LlmnbWarning for warning in said)


def test_a_store_that_cannot_be_opened_never_breaks_a_call(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A ledger path under a file: one warning, the answer comes, the row waits in the spool."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLMNB_STORE_URL", f"sqlite:///{tmp_path}/file/ledger.db")
    trouble.forget_warnings()
    with simulator.client() as plain, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        client = llmnb.wrap(plain)
        assert all(client.messages.create(**QUESTION).content for _ in range(3))
        assert not books().settle()
    assert len([warning for warning in said if warning.category is trouble.LlmnbWarning]) == 1


def test_a_home_that_cannot_be_written_is_said_in_one_warning(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Neither ledger nor spool nor notes can be written: three sides of one trouble."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLMNB_HOME", f"{tmp_path}/file/home")
    trouble.forget_warnings()
    with simulator.client() as plain, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        client = llmnb.wrap(plain)
        assert all(client.messages.create(**QUESTION).content for _ in range(3))
        assert not books().settle()
    assert [warning.category for warning in said] == [trouble.LlmnbWarning]
    assert "LLMNB_HOME" in str(said[0].message)


def test_without_a_key_the_sdks_error_says_what_to_do(simulator: Simulator) -> None:
    """The SDK's TypeError, unchanged, with a note."""
    client = llmnb.wrap(anthropic.Anthropic(base_url=simulator.url))
    with pytest.raises(TypeError, match="authentication") as caught:
        client.messages.create(**QUESTION)
    assert "llmnb demo" in caught.value.__notes__[0]
    assert (row()["status"], row()["cost_nanousd"]) == ("error", 0)


def test_threads_share_a_client(simulator: Simulator, client: anthropic.Anthropic) -> None:
    """Eight threads, ten calls each: eighty rows, and the provider's total."""

    def ask() -> None:
        for _ in range(10):
            client.messages.create(**QUESTION)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    simulator.settle()
    assert len(rows()) == 80
    assert sum(written["cost_nanousd"] for written in rows()) == simulator.billed().price_nanousd


def test_a_long_label_does_not_break_the_note_of_a_call_under_way(
    simulator: Simulator, client: anthropic.Anthropic
) -> None:
    """Labels of any length and in any script reach the row."""
    label = "ü" * 5_000
    with calling(chat=label, tag="a\nb"):
        client.messages.create(**QUESTION)
    assert (row()["chat"], row()["tag"]) == (label, "a\nb")


def test_a_call_record_can_be_changed_by_replace_only() -> None:
    """Rows are frozen."""
    call = Call(uid="u", ts=1, model_requested="m")
    assert replace(call, status="ok").status == "ok"
    with pytest.raises(AttributeError):
        call.status = "ok"  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_for_the_http_response_itself_is_on_the_books(simulator: Simulator, stream: bool) -> None:
    """`client.post(…, cast_to=httpx2.Response)`, for those who want the bytes: the same row as for a message."""
    with simulator.client() as plain:
        response = llmnb.wrap(plain).post(
            "/v1/messages", body={**QUESTION, "stream": stream}, cast_to=httpx2.Response, stream=stream
        )
        response.read()
    simulator.settle()
    billed = simulator.billed()
    assert (row()["status"], row()["output_tokens"]) == ("ok", billed.output_tokens)
    assert row()["cost_nanousd"] == billed.price_nanousd
