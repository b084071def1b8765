"""The pytest marker, fixture and option for cassettes, in a test run of a user's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from llmnb.cassette import read
from llmnb.testing import serve_simulator

from . import processes

TEST = """
    import anthropic
    import pytest
    import llmnb

    def ask(text):
        client = llmnb.wrap(anthropic.Anthropic(max_retries=0))
        message = client.messages.create(
            model="claude-sonnet-5-5", max_tokens=50, messages=[{"role": "user", "content": text}]
        )
        return message.content[0].text

    @pytest.mark.llmnb_cassette("given.jsonl")
    def test_given():
        assert ask("one") == "scripted"

    @pytest.mark.llmnb_cassette
    @pytest.mark.parametrize("text", ["a/b", "c"])
    def test_default(text, llmnb_cassette):
        assert ask(text) == "scripted"
        assert llmnb_cassette.unused == ()

    async def ask_later(text):
        client = llmnb.wrap(anthropic.AsyncAnthropic(max_retries=0))
        message = await client.messages.create(
            model="claude-sonnet-5-5", max_tokens=50, messages=[{"role": "user", "content": text}]
        )
        return message.content[0].text

    @pytest.mark.llmnb_cassette("async.jsonl")
    async def test_async():
        assert await ask_later("one") == "scripted"

    def test_unmarked(request):
        assert "llmnb_cassette" not in request.fixturenames
"""


def run(folder: Path, *options: str, environ: dict[str, str] | None = None, body: str = TEST) -> tuple[int, str]:
    """A pytest run in `folder`, by exit code and output."""
    (folder / "test_users.py").write_text(textwrap.dedent(body))
    command = [
        "-m", "pytest", "-q", "-p", "llmnb.pytest_plugin", "-p", "pytest_asyncio.plugin",
        "-p", "no:cacheprovider", "-o", "asyncio_mode=auto", "--strict-markers", *options,
    ]  # fmt: skip
    plain = {name: value for name, value in os.environ.items() if not name.startswith("ANTHROPIC_")}
    done = processes.run(
        [*command, str(folder)], cwd=folder, env=plain | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} | (environ or {})
    )
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the tests above and their cassettes."""
    folder = tmp_path_factory.mktemp("recorded")
    with serve_simulator() as simulator:
        simulator.rule("scripted")
        code, output = run(folder, "--llmnb-cassette=record", environ=simulator.environ())
        assert code == 0, output
        assert len(simulator.requests) == 4
    return folder


def test_a_marked_test_is_recorded_once_and_replayed_without_key_or_server(recorded: Path) -> None:
    """The option records with a server; without option, key and server the same tests pass."""
    assert len(read(recorded / "given.jsonl").interactions) == 1
    names = sorted(path.name for path in (recorded / "cassettes" / "test_users").iterdir())
    assert names == ["test_default[a-b].jsonl", "test_default[c].jsonl"]
    code, output = run(recorded)
    assert code == 0, output
    assert "5 passed" in output


def test_without_a_cassette_it_says_how_to_record_one(tmp_path: Path) -> None:
    """The command that records this very test."""
    code, output = run(tmp_path, "-k", "given")
    assert code == 1
    assert "there is no cassette" in output
    assert "pytest --llmnb-cassette=record 'test_users.py::test_given'" in output


def test_a_test_that_asks_more_often_than_recorded_fails_unless_its_marker_repeats(
    recorded: Path, tmp_path: Path
) -> None:
    """One request too many is a change of what the code costs: a miss, that names the way out."""
    shutil.copy(recorded / "given.jsonl", tmp_path)
    strict = TEST.replace('assert ask("one") == "scripted"', 'ask("one"); ask("one")', 1)
    lenient = """
    @pytest.mark.llmnb_cassette("given.jsonl", repeat=True)
    def test_given_twice():
        assert ask("one") == ask("one")
    """
    code, output = run(tmp_path, "-k", "given", body=strict + lenient)
    assert code == 1
    assert "recorded once, and is asked again" in output
    assert "pytest --llmnb-cassette=new 'test_users.py::test_given'" in output
    assert "1 failed, 1 passed" in output


def test_the_option_new_adds_what_a_marked_test_lacks(recorded: Path, tmp_path: Path) -> None:
    """The option wins over the marker's own mode; a misspelled argument of a marker is an error, not a live run."""
    shutil.copy(recorded / "given.jsonl", tmp_path)
    more = TEST.replace('assert ask("one") == "scripted"', 'ask("one"); ask("two")', 1)
    more = more.replace('"given.jsonl"', '"given.jsonl", mode="replay"')
    more = more.replace('"async.jsonl"', '"a.jsonl", mod="new"')
    with serve_simulator() as simulator:
        simulator.rule("scripted")
        options = ["-k", "given or async", "--llmnb-cassette=new"]
        _, output = run(tmp_path, *options, environ=simulator.environ(), body=more)
        assert ".E" in output
        assert "unexpected keyword argument 'mod'" in output
        assert len(simulator.requests) == 1
    assert len(read(tmp_path / "given.jsonl").interactions) == 2


def test_the_plugin_imports_nothing_of_llmnb() -> None:
    """It is loaded in every pytest run of an environment that has llmnb."""
    probe = (
        "import sys, pytest; before = set(sys.modules); import llmnb.pytest_plugin; print(*set(sys.modules) - before)"
    )
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) - {"llmnb", "llmnb.pytest_plugin"} <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("entry", ["llmnb.simulator.pytest_plugin", "llmnb.pytest_plugin"])
def test_both_plugins_are_declared(entry: str) -> None:
    """The wheel tells pytest of them."""
    assert f'"{entry}"' in (Path(__file__).parent.parent / "pyproject.toml").read_text()
