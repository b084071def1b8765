"""The response cache as a cassette: exported, read, replayed without a key."""

from __future__ import annotations

from pathlib import Path

import anthropic
from typer.testing import CliRunner

import llmnb
from llmnb.cassette import export, read
from llmnb.commands.main import app
from llmnb.testing import serve_simulator


def test_what_is_exported_is_replayed(tmp_path: Path) -> None:
    """Plain and streamed answers, of long prompts too, through the shell's command; each once, the oldest first."""
    path = tmp_path / "a.cassette.jsonl"
    long = "word " * 5_000
    with serve_simulator(environ=True):
        llm = llmnb.LLM(display="none")
        first = llm("Name a river.").message
        list(llm.stream("Name a lake."))
        llm(long)
        llm("Name a river.")
    done = CliRunner().invoke(app, ["cache", "export", str(path)])
    assert done.exit_code == 0, done.output
    assert "3 answers" in done.output
    prompts = [one.request.body["messages"][0]["content"] for one in read(path).interactions]
    assert prompts == ["Name a river.", "Name a lake.", long]
    assert all(one.key for one in read(path).interactions)
    with llmnb.replay(path, repeat=False) as cassette:
        llm = llmnb.LLM(display="none")
        assert llm("Name a river.").message == first
        assert llm("Name a lake.").source == "replay"
        assert "".join(event.text for event in llm.stream(long) if isinstance(event, llmnb.Text))
    assert cassette.unused == ()


def test_an_export_holds_no_secret(tmp_path: Path) -> None:
    """A key in a prompt, a field that the user names; and only the model that was asked for."""
    with serve_simulator(environ=True), anthropic.Anthropic() as plain:
        client = llmnb.wrap(plain, cache=True)
        for model in ("claude-sonnet-5-5", "claude-haiku-5-5"):
            client.messages.create(
                model=model, max_tokens=50, messages=[{"role": "user", "content": "I am sk-ant-api03-abcdefgh"}]
            )
    path = tmp_path / "a.jsonl"
    assert export(path, model="claude-haiku-5-5", redact=["max_tokens"]) == 1
    assert "sk-ant-api03-" not in path.read_text()
    assert '"max_tokens": "[redacted]"' in path.read_text()


def test_an_empty_cache_is_an_empty_cassette(tmp_path: Path) -> None:
    """Nothing was asked yet."""
    assert export(tmp_path / "a.jsonl") == 0
    assert read(tmp_path / "a.jsonl").interactions == ()
