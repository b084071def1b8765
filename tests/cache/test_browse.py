"""Looking into the response cache and clearing it, from Python and from a shell."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import anthropic
import pytest
from typer.testing import CliRunner

import llmnb
from llmnb.cache import browse
from llmnb.cache.responses import responses
from llmnb.commands import cache as cli_cache
from llmnb.commands.main import app
from llmnb.errors import InvalidRequest
from llmnb.testing import serve_simulator


@pytest.fixture(autouse=True)
def _three_answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two of sonnet, one of them 40 days old, and one of opus with a long question."""
    with serve_simulator(environ=True) as simulator:
        llm = llmnb.LLM("claude-sonnet-5-5", display="none")
        with monkeypatch.context() as patch:
            patch.setattr(responses(), "_clock", lambda: time.time() - 40 * 86_400)
            llm("Old")
        llm("New")
        llmnb.LLM("claude-opus-5-5", display="none")("Long " * 3_000)
        yield
        assert simulator.crashes == []


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["cache", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


def test_stats() -> None:
    """How many answers, how much room, where."""
    found = browse.stats()
    assert (found.answers, found.limit_bytes) == (3, 2**30)
    assert found.bytes > 1_000
    assert run("stats").startswith("3 answers, ")
    assert json.loads(run("stats", "--json"))["answers"] == 3


def test_entries() -> None:
    """As a data frame with the same columns whether there are answers or not, in the reporting timezone."""
    found = llmnb.cache.entries()
    assert list(found.columns) == [
        "key", "created", "expires", "model", "stop_reason", "input_tokens", "output_tokens", "streamed", "question",
        "sample",
    ]  # fmt: skip
    assert list(found["model"]) == ["claude-opus-5-5", "claude-sonnet-5-5", "claude-sonnet-5-5"]
    assert found["created"].is_monotonic_decreasing
    assert found["input_tokens"].max() > 1_000 > found["input_tokens"].min() > 0
    assert found["expires"].isna().all()
    billed = llmnb.calls()
    assert sorted(found["output_tokens"]) == sorted(billed["output_tokens"])
    assert len(llmnb.cache.entries(model="claude-opus-5-5", older="30d")) == 0
    llmnb.LLM("claude-sonnet-5-5", display="none")("Kept for a week", ttl="7d")
    newest = llmnb.cache.entries().iloc[0]
    assert (newest["expires"] - newest["created"]).days == 7
    types = found.dtypes
    llmnb.cache.clear()
    assert list(llmnb.cache.entries().dtypes) == list(types)


def test_list() -> None:
    """Newest first, by model and by age."""
    assert [entry.model for entry in browse.entries()][-1] == "claude-sonnet-5-5"
    assert len(browse.entries(model="claude-opus-5-5")) == 1
    assert len(browse.entries(older="30d")) == 1
    lines = run("list").splitlines()
    assert [line.rpartition("out  ")[2] for line in lines] == ["Long " * 15 + "Long…", "New", "Old"]
    assert len(json.loads(run("list", "--model", "claude-sonnet-5-5", "--json"))) == 2


def test_what_was_asked_can_be_seen() -> None:
    """On one line: the last text, not what stands beside it; and which sample it is, as the questions are alike."""
    llm = llmnb.LLM("claude-sonnet-5-5", display="none")
    llm([{"type": "text", "text": "A report."}, "What\n\tis  this?"], sample=2)
    newest = browse.entries()[0]
    assert (newest.question, newest.sample) == ("What is this?", 2)
    assert browse.show(newest.key).entry == newest
    assert run("list").splitlines()[0].endswith("  sample 2  What is this?")
    assert llmnb.cache.entries()["question"][0] == "What is this?"


def test_show() -> None:
    """The answer with its question, wherever that is kept; a beginning of the key is enough."""
    for entry in browse.entries():
        shown = browse.show(entry.key[:12])
        assert shown.message["model"] == entry.model
        assert shown.request is not None
        assert shown.request["body"]["messages"][0]["content"][:3] in ("Old", "New", "Lon")
        assert json.loads(run("show", entry.key[:12]))["message"] == shown.message
    with pytest.raises(InvalidRequest, match="3 keys in the response cache begin with ''"):
        browse.show("")
    with pytest.raises(InvalidRequest, match="no keys"):
        browse.show("xyz")


def test_clear() -> None:
    """By age, by model, all; what is forgotten is asked again."""
    assert run("clear", "--older", "30d") == "1 answer forgotten\n"
    assert browse.clear(model="claude-opus-5-5") == 1
    assert llmnb.LLM("claude-sonnet-5-5", display="none")("New").source == "cache"
    key = browse.entries()[0].key
    with pytest.raises(InvalidRequest, match="no keys"):
        browse.clear("xyz")
    assert browse.clear(key, model="claude-opus-5-5") == 0
    assert run("clear", key[:10]) == "1 answer forgotten\n"
    llmnb.LLM("claude-sonnet-5-5", display="none")("New")
    assert browse.clear() == 1
    assert browse.stats().answers == 0
    assert llmnb.LLM("claude-sonnet-5-5", display="none")("New").source == "live"


def test_what_is_forgotten_leaves_nothing_behind() -> None:
    """Neither a request that was kept apart nor the conversation of a thread."""
    thread = llmnb.wrap(anthropic.Anthropic(), cache=True).beta.messages.thread(
        model="claude-haiku-5-5", max_tokens=50, messages=[{"role": "user", "content": "Long " * 3_000}]
    )
    thread.send()
    browse.stats()
    assert any(name.endswith("/thread") for name in responses().backend.names())
    for model in ("claude-haiku-5-5", "claude-opus-5-5", "claude-sonnet-5-5"):
        browse.clear(model=model)
    assert list(responses().backend.names()) == []


def test_clearing_everything_asks_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was paid is not thrown away by a slip; a script, a filter and --yes are not asked."""
    runner = CliRunner()
    monkeypatch.setattr(cli_cache, "is_terminal", lambda: True)
    done = runner.invoke(app, ["cache", "clear"], input="n\n")
    assert "Forget all 3 answers?" in done.output
    assert (done.exit_code, browse.stats().answers) == (1, 3)
    assert runner.invoke(app, ["cache", "clear", "--older", "30d"]).output == "1 answer forgotten\n"
    assert runner.invoke(app, ["cache", "clear", "--yes"]).output == "2 answers forgotten\n"
