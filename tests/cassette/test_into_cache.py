"""A cassette's answers in the response cache: taken there and back, checked, counted, and never over newer ones."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pandas
import pytest
from typer.testing import CliRunner

import llmnb
from llmnb.cache.responses import responses
from llmnb.commands.main import app
from llmnb.errors import CassetteError, InvalidRequest, StoreError
from llmnb.records import Caching, calling
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer
from llmnb.testing import serve_simulator

PIXELS = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==" * 3
PICTURE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXELS}}
BETAS = ["message-threads-2026-08-12"]


@pytest.fixture
def client(sim: Simulator) -> Iterator[anthropic.Anthropic]:
    """A wrapped client with the cache."""
    with sim.client(max_retries=0) as plain:
        yield llmnb.wrap(plain, cache=True)


def ask(content: Any, **more: Any) -> dict[str, Any]:
    """The arguments of a call."""
    messages = [{"role": "user", "content": content}]
    return {"model": "claude-sonnet-5-5", "max_tokens": 300, "messages": messages} | more


def run(*arguments: str | Path) -> str:
    done = CliRunner().invoke(app, ["cache", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    return done.stdout


def everything(client: anthropic.Anthropic) -> list[Any]:
    """Questions of every kind, and what came of them."""
    found: list[Any] = [
        client.messages.create(**ask("Plain")).to_dict(),
        client.messages.create(**ask("Long " * 3_000)).to_dict(),
        client.messages.create(**ask("I am sk-ant-api03-abcdefgh")).to_dict(),
        client.messages.create(**ask([PICTURE, {"type": "text", "text": "What is this?"}])).to_dict(),
        client.messages.create(**ask("A header"), extra_headers={"x-gateway-model": "large"}).to_dict(),
        "".join(event.to_json() for event in client.messages.create(**ask("Streamed"), stream=True)),
    ]
    with calling(caching=Caching(sample=2)):
        found.append(client.messages.create(**ask("Plain")).to_dict())
    thread = client.beta.messages.thread(model="claude-sonnet-5-5", max_tokens=100)
    found += [thread.send({"role": "user", "content": text}).to_dict() for text in ("One?", "Two?")]
    return found


def test_there_and_back(sim: Simulator, client: anthropic.Anthropic, tmp_path: Path) -> None:
    """An export holds all that another cache needs: pictures, samples, headers, threads, and prompts with secrets."""
    sim.rule("Fine.")  # and does not repeat the secret in a prompt
    first = everything(client)
    count = len(sim.requests)
    assert llmnb.cache.export(tmp_path / "a.jsonl") == 9
    assert llmnb.cache.clear() == 9
    told = run("import", tmp_path / "a.jsonl")
    assert told == "9 put into the response cache\n"
    again = everything(client)
    assert len(sim.requests) == count
    assert again[0] == first[0]
    assert [one["id"] for one in again if isinstance(one, dict)] == [o["id"] for o in first if isinstance(o, dict)]
    # exported once more, it is the same file to the byte
    llmnb.cache.export(tmp_path / "b.jsonl")
    assert (tmp_path / "b.jsonl").read_text().count("\n") == (tmp_path / "a.jsonl").read_text().count("\n")
    assert run("import", tmp_path / "a.jsonl", tmp_path / "b.jsonl").startswith(
        "0 put into the response cache, 9 there already, 9 asked again later"
    )


def test_what_expires_does_so_in_another_cache_too(sim: Simulator, client: anthropic.Anthropic, tmp_path: Path) -> None:
    """An answer with a ttl takes its end along, and is left out once that is over."""
    with calling(caching=Caching(ttl_s=3600)):
        client.messages.create(**ask("For an hour"))
    client.messages.create(**ask("For ever"))
    responses().settle()
    before = llmnb.cache.entries().set_index("key")["expires"]
    assert before.notna().sum() == 1
    path = tmp_path / "a.jsonl"
    assert llmnb.cache.export(path) == 2
    llmnb.cache.clear()
    assert llmnb.cache.import_(path).added == 2
    after = llmnb.cache.entries().set_index("key")["expires"]
    assert (after.dropna() - before.dropna()).abs().max() < pandas.Timedelta(milliseconds=1)
    assert llmnb.cache.import_(path).already_there == 2

    [expires] = re.findall(r'"expires": "([^"]+)"', path.read_text())
    path.write_text(path.read_text().replace(expires, "2026-01-01T00:00:00+00:00"))
    llmnb.cache.clear()
    over = llmnb.cache.import_(path)
    assert over.added == 1
    assert list(over.refused.values()) == ["it has expired (2026-01-01T00:00:00+00:00)"]


def test_what_was_recorded_is_not_paid_again(sim: Simulator, tmp_path: Path) -> None:
    """A recording without the cache, put into it: `LLM` answers from there, also a thread's turns."""
    path = tmp_path / "a.jsonl"
    with llmnb.record(path), sim.client() as plain:
        first = llmnb.LLM(cache=False, display="none")("Name a river.")
        list(llmnb.LLM(cache=False, display="none").stream("Name a lake."))
        thread = llmnb.wrap(plain).beta.messages.thread(model="claude-sonnet-5-5", max_tokens=100)
        said = [thread.send({"role": "user", "content": text}).id for text in ("One?", "Two?")]
    done = llmnb.cache.import_(path)
    assert (done.added, done.refused, done.damaged) == (4, {}, {})
    count = len(sim.requests)
    llm = llmnb.LLM(display="none")
    assert llm("Name a river.").message == first.message
    assert llm("Name a lake.").source == "cache"
    with sim.client() as plain:
        thread = llmnb.wrap(plain, cache=True).beta.messages.thread(model="claude-sonnet-5-5", max_tokens=100)
        assert [thread.send({"role": "user", "content": text}).id for text in ("One?", "Two?")] == said
    assert len(sim.requests) == count


def test_what_cannot_be_keyed_is_refused(sim: Simulator, tmp_path: Path) -> None:
    """Each with its line and the reason; the rest is taken."""
    path = tmp_path / "a.jsonl"
    with sim.client(max_retries=0) as plain:
        lost = plain.beta.messages.create(**ask("Hi"), thread={"type": "create"}, betas=BETAS)
        with llmnb.record(path):
            client = llmnb.wrap(plain)
            client.messages.create(**ask("Good"))
            client.messages.create(**ask([PICTURE, {"type": "text", "text": "What?"}]))
            sim.script("Hello.")
            client.messages.create(**ask("I am sk-ant-api03-abcdefgh"))
            client.messages.create(**ask("Warm", max_tokens=0))
            client.messages.count_tokens(model="claude-sonnet-5-5", messages=ask("Hi")["messages"])
            client.beta.messages.create(
                **ask("On"), thread={"type": "continue", "previous_message_id": lost.id}, betas=BETAS
            )
            for broken in (Answer(refusal="cyber"), "Your key is sk-ant-api03-abcdefgh."):
                sim.script(broken)
                client.messages.create(**ask(str(broken)))
            sim.fail("status", status=400)
            with pytest.raises(anthropic.BadRequestError):
                client.messages.create(**ask("Bad"))
            with client.messages.create(**ask("Cut"), stream=True) as stream:
                next(iter(stream))
    done = llmnb.cache.import_(path)
    assert done.added == 1
    assert all(where.startswith(f"{path}, line ") for where in done.refused)
    reasons = " ".join(done.refused.values())
    for part in (
        "told by their digests only",
        "a part of its question was redacted",
        "only filled the prompt cache",
        "asks no model to write (POST /v1/messages/count_tokens)",
        "continues a thread that was begun elsewhere",
        "not whole, an error, or a refusal",
        "a part of its answer was redacted",
        "has no whole answer",
    ):
        assert part in reasons, part
    assert len(done.refused) == 9
    assert llmnb.cache.stats().answers == 1
    told = json.loads(run("import", path, "--json"))
    assert (told["already_there"], len(told["refused"])) == (1, 9)


def test_a_newer_answer_stays(sim: Simulator, tmp_path: Path, client: anthropic.Anthropic) -> None:
    """One that came later than the cassette's stays, an older one goes, and --replace takes the cassette's anyway."""
    old, new = tmp_path / "old.jsonl", tmp_path / "new.jsonl"

    def text() -> str:
        return client.messages.create(**ask("Hi")).content[0].to_dict()["text"]

    sim.script("old", "new")
    assert text() == "old"
    llmnb.cache.export(old)
    with calling(caching=Caching(fresh=True)):
        assert text() == "new"
    llmnb.cache.export(new)
    assert llmnb.cache.import_(old).kept == 1
    assert text() == "new"
    assert llmnb.cache.import_(old, replace=True, dry_run=True).replaced == 1
    assert text() == "new"
    assert run("import", old, "--replace").startswith("0 put into the response cache, 1 put in place of another")
    assert text() == "old"
    assert llmnb.cache.import_(new).replaced == 1
    assert text() == "new"
    done = llmnb.cache.import_(new, old, replace=True)  # of two cassettes the answer that came later counts
    assert (done.already_there, done.repeated) == (1, 1)
    assert len(sim.requests) == 2


def test_a_recording_does_not_say_when(sim: Simulator, tmp_path: Path, client: anthropic.Anthropic) -> None:
    """So it never takes the place of what is there, unless it is told to."""
    sim.script("recorded", "asked")
    with llmnb.record(tmp_path / "a.jsonl"), sim.client() as plain:
        llmnb.wrap(plain).messages.create(**ask("Hi"))
    client.messages.create(**ask("Hi"))
    os.utime(tmp_path / "a.jsonl", (2e9, 2e9))
    assert llmnb.cache.import_(tmp_path / "a.jsonl").kept == 1
    assert llmnb.cache.import_(tmp_path / "a.jsonl", replace=True).replaced == 1
    assert client.messages.create(**ask("Hi")).content[0].to_dict()["text"] == "recorded"


def test_of_several_answers_the_last_is_taken(sim: Simulator, tmp_path: Path, client: anthropic.Anthropic) -> None:
    """A recording may hold the same question twice."""
    sim.script("one", "two")
    with llmnb.record(tmp_path / "a.jsonl"), sim.client() as plain:
        for _ in range(2):
            llmnb.wrap(plain).messages.create(**ask("Hi"))
    done = llmnb.cache.import_(tmp_path / "a.jsonl")
    assert (done.added, done.repeated) == (1, 1)
    assert client.messages.create(**ask("Hi")).content[0].to_dict()["text"] == "two"


def test_what_is_no_cassette(tmp_path: Path) -> None:
    """Nothing is imported, not even of the good one beside it; damaged lines of a good one are told."""
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.jsonl"
    with serve_simulator(environ=True):
        llmnb.LLM(display="none")("Hi")
    llmnb.cache.export(good)
    llmnb.cache.clear()
    bad.write_text("no cassette\n")
    with pytest.raises(CassetteError, match="is no cassette"):
        llmnb.cache.import_(good, bad)
    with pytest.raises(CassetteError, match="there is no cassette"):
        llmnb.cache.import_(tmp_path / "none.jsonl")
    with pytest.raises(InvalidRequest, match="at least one"):
        llmnb.cache.import_()
    assert llmnb.cache.stats().answers == 0
    good.write_text(good.read_text().replace('"key": "', '"key": "../'))
    assert "its key is none" in run("import", good)
    good.write_text(good.read_text() + "{broken\n\n")
    done = llmnb.cache.import_(good)
    assert (done.added, len(done.damaged)) == (0, 1)


def test_a_cache_that_cannot_be_used_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, and not what SQLite or the file system raise; other than a call, which goes on without."""
    (tmp_path / "file").touch()
    with serve_simulator(environ=True):
        llmnb.LLM(display="none")("Hi")
    llmnb.cache.export(tmp_path / "a.jsonl")
    monkeypatch.setenv("LLMNB_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(StoreError, match=r"cannot be used: .*`llmnb doctor`"):
        llmnb.cache.import_(tmp_path / "a.jsonl")
    done = CliRunner().invoke(app, ["cache", "import", str(tmp_path / "a.jsonl")])
    assert isinstance(done.exception, StoreError)
