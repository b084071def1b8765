"""The `llmnb` command as a person and as a script meet it."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer
from typer.testing import CliRunner

import llmnb
from llmnb.commands import console, doctor
from llmnb.commands import main as cli
from llmnb.ledger import open_ledger, settle
from llmnb.records import Call
from llmnb.simulator import Simulator

from .. import processes

README = Path(__file__).parents[2] / "README.md"
COMMANDS = sorted(command.callback.__name__ for command in cli.app.registered_commands if command.callback)

GROUPS = {
    "batches": ["cancel", "forget", "list", "results", "show", "wait"],
    "budget": ["list", "remove", "set"],
    "cache": ["clear", "export", "import", "list", "show", "stats"],
    "ledger": ["copy", "prune", "rebuild", "status"],
    "tokens": ["count", "fetch"],
}
"""Commands that have commands of their own."""

Llmnb = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run() -> Llmnb:
    """Runs the real command in a process of its own, with what is given as its input."""

    def llmnb(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
        return processes.run(["-m", "llmnb", *arguments], text=text)

    return llmnb


def call(number: int, **changes: Any) -> Call:
    """A finished call."""
    usual = {"ts": number, "model_requested": "m", "model": "m", "status": "ok", "output_tokens": 20}
    return Call(uid=f"call-{number}", **{**usual, **changes})


def quick(*arguments: str) -> str:
    """What a command that succeeds prints, run in this process."""
    result = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


# Help -----------------------------------------------------------------------------------------------------------------


def test_these_are_the_commands() -> None:
    """What works now, and nothing that comes later."""
    assert COMMANDS == ["ask", "dashboard", "demo", "doctor", "export", "prices", "usage"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name: str) -> None:
    """Nobody is left to guess what a command or one of its options does."""
    command = vars(typer.main.get_command(cli.app))["commands"][name]
    assert command.help
    assert len(command.help.splitlines()[0]) > 20
    assert [parameter.name for parameter in command.params if not getattr(parameter, "help", None)] == []


def test_these_are_the_commands_with_commands() -> None:
    """The same for those that are a group."""
    groups = {
        str(group.name): sorted(
            str(command.name or command.callback.__name__)
            for command in group.typer_instance.registered_commands
            if command.callback
        )
        for group in cli.app.registered_groups
        if group.typer_instance
    }
    assert groups == GROUPS


@pytest.mark.parametrize(("group", "name"), [(group, name) for group, names in GROUPS.items() for name in names])
def test_every_command_of_a_group_has_help_and_is_in_the_readme(group: str, name: str) -> None:
    """As for the others."""
    command = vars(vars(typer.main.get_command(cli.app))["commands"][group])["commands"][name]
    assert command.help
    assert [parameter.name for parameter in command.params if not getattr(parameter, "help", None)] == []
    assert f"llmnb {group} {name}" in README.read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_in_the_readme(name: str) -> None:
    """A command that the README does not show does not exist for most people."""
    assert f"llmnb {name}" in README.read_text()


def test_no_arguments_show_the_commands() -> None:
    """`llmnb` alone is a question, and the answer is the list of commands."""
    result = CliRunner().invoke(cli.app, [])
    assert all(name in result.output for name in COMMANDS)


def test_version(run: Llmnb) -> None:
    """`--version` prints it, and imports nothing heavy for that."""
    assert run("--version").stdout == f"llmnb {llmnb.__version__}\n"
    code = "import sys, llmnb.commands.main; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"anthropic", "pandas", "ipywidgets", "streamlit"} & {name.split(".")[0] for name in loaded}


def test_unknown_command_is_a_usage_error(run: Llmnb) -> None:
    """A misspelled command ends with 2 and names the near one."""
    done = run("usgae")
    assert done.returncode == 2
    assert "usage" in done.stderr


# ask ------------------------------------------------------------------------------------------------------------------


def test_ask_prints_the_answer_and_books_it(run: Llmnb, llmnb_simulator: Simulator) -> None:
    """The text goes to standard output as it is, nothing else does, and the ledger has the call."""
    llmnb_simulator.script("A log that is written *first*.")
    done = run("ask", "What is WAL?", "--project", "thesis")
    assert (done.stdout, done.stderr, done.returncode) == ("A log that is written *first*.\n", "", 0)
    booked = llmnb.calls()
    assert booked[["project", "status", "stream"]].to_numpy().tolist() == [["thesis", "ok", True]]
    assert booked["cost_nanousd"].sum() == llmnb_simulator.billed().price_nanousd > 0


def test_ask_reads_what_is_piped_in(run: Llmnb, llmnb_simulator: Simulator) -> None:
    """The piped text stands before the question."""
    run("ask", "Summarise this", text="It rained.\n")
    assert llmnb_simulator.requests[-1].body["messages"] == [
        {"role": "user", "content": "It rained.\n\nSummarise this"}
    ]


def test_ask_passes_its_options_on(run: Llmnb, llmnb_simulator: Simulator) -> None:
    """Model, system prompt and length reach the API."""
    run("ask", "Hi", "--model", "claude-haiku-5-5", "--system", "Be brief.", "--max-tokens", "77")
    body = llmnb_simulator.requests[-1].body
    assert (body["model"], body["system"], body["max_tokens"]) == ("claude-haiku-5-5", "Be brief.", 77)


def test_ask_fresh_asks_again(llmnb_simulator: Simulator) -> None:
    """The same question is answered from disk until --fresh replaces the answer."""
    llmnb_simulator.script("one", "two")
    said = [quick("ask", "Hi", *options) for options in ((), (), ("--fresh",), ("--no-stream",))]
    assert said == ["one\n", "one\n", "two\n", "two\n"]
    assert len(llmnb_simulator.requests) == 2


def test_ask_without_stream_prints_the_same(run: Llmnb, llmnb_simulator: Simulator) -> None:
    """`--no-stream` differs in when it prints, not in what."""
    llmnb_simulator.script("Yes.")
    assert run("ask", "Is it?", "--no-stream").stdout == "Yes.\n"


def test_ask_json_is_for_scripts(run: Llmnb, llmnb_simulator: Simulator) -> None:
    """One JSON object with text, usage and cost, the cost exact in nano-dollars."""
    llmnb_simulator.script("Yes.")
    told = json.loads(run("ask", "Is it?", "--json").stdout)
    assert (told["text"], told["stop_reason"], told["source"]) == ("Yes.", "end_turn", "live")
    assert told["usage"]["output_tokens"] == llmnb_simulator.billed().output_tokens
    assert told["cost_nanousd"] == llmnb_simulator.billed().price_nanousd


def test_ask_says_when_the_answer_is_cut(run: Llmnb, llmnb_simulator: Simulator) -> None:
    """An answer that stops at max_tokens says so, where it does not mix with the answer."""
    done = run("ask", "Explain everything about databases", "--max-tokens", "5")
    assert "max_tokens" in done.stderr
    assert "max_tokens" not in done.stdout


def test_ask_nothing_is_a_usage_error(run: Llmnb) -> None:
    """Without a question and without a pipe there is nothing to send."""
    done = run("ask")
    assert done.returncode == 2
    assert "give a question" in done.stderr


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The single line on standard error of a command that failed."""
    assert done.returncode == 1
    assert done.stderr.startswith("llmnb: ")
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_no_key_is_one_line_that_says_what_to_do(run: Llmnb) -> None:
    """The newcomer reads how to set a key, and that the demo needs none."""
    told = one_line(run("ask", "Hi"))
    assert "ANTHROPIC_API_KEY" in told
    assert "llmnb demo" in told


def test_an_error_of_the_api_is_one_line(run: Llmnb, llmnb_simulator: Simulator) -> None:
    """Status, kind, message and request id of the API, and no traceback."""
    told = one_line(run("ask", "Hi", "-m", "no-such-model"))
    assert re.search(r"404 not_found_error: .*no-such-model.*req_", told)
    assert ". No model is called 'no-such-model'." in told
    assert "`llmnb prices` lists" in told


def test_an_error_in_the_middle_of_the_answer_is_one_line(run: Llmnb, llmnb_simulator: Simulator) -> None:
    """The stream began with status 200, which would only puzzle; what had come stays on the screen."""
    llmnb_simulator.fail("error_event", after_events=3)
    told = one_line(run("ask", "Hi"))
    assert "overloaded" in told
    assert "200" not in told


def test_an_error_before_the_answer_is_tried_again(run: Llmnb, llmnb_simulator: Simulator) -> None:
    """As one that comes with a status of its own; a line on standard error says that it is waited for."""
    llmnb_simulator.fail("error_event", after_events=0)
    done = run("ask", "Hi")
    assert (done.returncode, len(llmnb_simulator.requests)) == (0, 2)
    assert re.fullmatch(r"llmnb: overloaded[^\n]*; trying again in [1-9] s\n", done.stderr)


def test_a_wrong_key_is_one_line(run: Llmnb, llmnb_simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused key is named as the thing to check, and never printed."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-invalid-secret")
    told = one_line(run("ask", "Hi"))
    assert "401 authentication_error" in told
    assert "secret" not in told


def test_nobody_there_is_one_line(run: Llmnb, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing listens, the address is in the message."""
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    *waits, told = run("ask", "Hi").stderr.splitlines()
    assert {wait.split(";")[0] for wait in waits} == {"llmnb: no connection"}
    assert told.startswith("llmnb: cannot reach http://127.0.0.1:9")


@pytest.mark.parametrize("fault", ["truncate", "drop"])
def test_a_broken_stream_is_told_after_the_text(run: Llmnb, llmnb_simulator: Simulator, fault: str) -> None:
    """What came stays on the screen; the exit code and one line say that it is not all."""
    llmnb_simulator.fail(fault)
    done = run("ask", "What is WAL?")
    assert done.returncode == 1
    assert re.fullmatch(rf"llmnb: the answer broke off after {len(done.stdout):,} characters.*\n", done.stderr)


def test_a_wrong_setting_is_one_line(run: Llmnb, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command refuses a misspelled setting in the same way."""
    monkeypatch.setenv("LLMNB_MODLE", "x")
    assert "did you mean LLMNB_MODEL?" in one_line(run("usage"))


def test_ctrl_c_ends_ask_quietly(llmnb_simulator: Simulator) -> None:
    """Ctrl-C in the middle of an answer: exit code 130, no traceback, and the call is on the books."""
    llmnb_simulator.fail("stall", seconds=60)
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    asking = processes.Python(["-m", "llmnb", "ask", "What is WAL?"], **pipes)
    assert asking.stdout
    assert asking.stdout.read(1)
    asking.send_signal(signal.SIGINT)
    _, told = asking.communicate()
    assert (asking.returncode, told) == (130, "")
    assert llmnb.calls()["status"].tolist() == ["cancelled"]


# usage ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def spent(llmnb_simulator: Simulator, llmnb_home: Path) -> Simulator:
    """Three calls on the books: two models, two projects."""
    for model, project in [("claude-sonnet-5-5", "a"), ("claude-sonnet-5-5", "b"), ("claude-haiku-5-5", "a")]:
        llmnb.LLM(model, project=project, display="none").ask("Hi")
    settle(llmnb_home / "ledger.db")  # rows are written a moment later, and some tests open the file themselves
    return llmnb_simulator


def test_usage_prints_groups_and_their_total(spent: Simulator) -> None:
    """A line a model, and the total below."""
    lines = [line.split() for line in quick("usage").splitlines() if line.strip()]
    assert [line[0] for line in lines] == ["model", "claude-sonnet-5-5", "claude-haiku-5-5", "total"]
    assert [line[1] for line in lines[1:]] == ["2", "1", "3"]


def test_usage_json_holds_every_column(spent: Simulator) -> None:
    """A script gets exact numbers, and may group by several names at once."""
    rows = json.loads(quick("usage", "--json", "--by", "model,project", "--since", "1h"))
    assert {(row["model"], row["project"]) for row in rows} == {
        ("claude-sonnet-5-5", "a"),
        ("claude-sonnet-5-5", "b"),
        ("claude-haiku-5-5", "a"),
    }
    assert sum(row["cost_nanousd"] for row in rows) == spent.billed().price_nanousd


def test_usage_of_one_project(spent: Simulator) -> None:
    """`--project` leaves the others out."""
    rows = json.loads(quick("usage", "--json", "--project", "b"))
    assert [(row["model"], row["calls"]) for row in rows] == [("claude-sonnet-5-5", 1)]


def test_usage_by_day_names_the_day(spent: Simulator) -> None:
    """Days are written as days, without a time of day."""
    assert re.search(r"^\d{4}-\d\d-\d\d +claude", quick("usage", "--by", "day", "--by", "model"), re.MULTILINE)


def test_usage_without_a_ledger_says_so() -> None:
    """An empty state is a sentence, and an empty list for a script."""
    assert "No calls yet" in quick("usage")
    assert json.loads(quick("usage", "--json")) == []


def test_usage_does_not_call_unpriced_free(llmnb_simulator: Simulator) -> None:
    """A call without a known price reads "unpriced", not $0."""
    llmnb_simulator.rule("Yes.")
    llmnb.LLM("claude-sonnet-5-5", display="none").ask("Hi")
    call = Call(uid="1", ts=1_700_000_000_000_000, model_requested="mine", model="mine", status="ok", input_tokens=5)
    open_ledger().write(call)
    assert re.search(r"^mine .* unpriced", quick("usage"), re.MULTILINE)
    assert re.search(r"^total .* \+ 1 unpriced", quick("usage"), re.MULTILINE)
    costs = {row["model"]: row["cost_usd"] for row in json.loads(quick("usage", "--json"))}
    assert costs["mine"] is None


def test_usage_with_a_wrong_name_is_one_line(run: Llmnb) -> None:
    """A misspelled dimension names the near one."""
    assert "did you mean 'model'" in one_line(run("usage", "--by", "modle"))


def test_output_into_a_closed_pipe_is_no_traceback(spent: Simulator) -> None:
    """`llmnb usage | head -0` ends quietly."""
    command = [sys.executable, "-m", "llmnb", "usage", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        process.stdout.close()
        assert process.stderr
        assert process.stderr.read() == ""


# prices ---------------------------------------------------------------------------------------------------------------


def test_prices_lists_a_model_with_its_source() -> None:
    """Dollars per million tokens, and where they come from."""
    told = quick("prices", "claude-sonnet-5-5")
    assert re.search(r"claude-sonnet-5-5 +\$2 +\$10 .*genai-prices \d", told)


def test_prices_json_has_numbers() -> None:
    """A script can calculate with them."""
    rows = json.loads(quick("prices", "claude-sonnet-5-5", "--json"))
    assert (rows[0]["input"], rows[0]["output"]) == (2, 10)


def test_a_price_of_ones_own_is_set_and_forgotten() -> None:
    """`--input` and `--output` set a price that the next command finds, `--forget` takes it away."""
    assert "my-model costs $0.5 and $2" in quick("prices", "my-model", "--input", "0.5", "--output", "2")
    assert re.search(r"my-model +\$0.5 +\$2 ", quick("prices", "my-model"))
    assert "is forgotten" in quick("prices", "my-model", "--forget")
    assert "No price is known" in quick("prices", "my-model")


def test_own_prices_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """A price from the settings is listed, and says that it is one's own."""
    monkeypatch.setenv("LLMNB_PRICES", '{"my-model": {"input": 0.5, "output": 1.5}}')
    assert re.search(r"my-model +\$0.5 +\$1.5 .*settings", quick("prices", "my-model"))


def test_prices_of_an_unknown_model_says_so() -> None:
    """No table without rows."""
    assert "No price is known" in quick("prices", "no-such-model")


def test_reprice_brings_old_calls_up_to_date(spent: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A dry run says what would change and changes nothing; the real one changes it."""
    monkeypatch.setenv("LLMNB_PRICES", '{"claude-haiku-5-5": {"input": 1000, "output": 1000}}')
    before = int(llmnb.usage(by=[])["cost_nanousd"][0])
    assert "1 would change" in quick("prices", "--reprice", "--dry-run")
    assert int(llmnb.usage(by=[])["cost_nanousd"][0]) == before
    assert "1 changed" in quick("prices", "--reprice")
    assert int(llmnb.usage(by=[])["cost_nanousd"][0]) > before
    assert json.loads(quick("prices", "--reprice", "--json"))["changed"] == 0


def test_dry_run_alone_is_a_usage_error() -> None:
    """An option that would do nothing is refused."""
    assert CliRunner().invoke(cli.app, ["prices", "--dry-run"]).exit_code == 2


# doctor ---------------------------------------------------------------------------------------------------------------


def checks(**options: bool) -> dict[str, doctor.Check]:
    return {check.name: check for check in doctor.examine(**options)}


def test_doctor_is_content_with_a_working_setup(llmnb_simulator: Simulator) -> None:
    """Exit code 0, a line a check, and no key in what it prints."""
    told = quick("doctor")
    assert "ledger" in told
    assert llmnb_simulator.api_key not in told


def test_doctor_fails_without_a_key(run: Llmnb) -> None:
    """Exit code 1, and the way to set one."""
    done = run("doctor")
    assert done.returncode == 1
    assert "export ANTHROPIC_API_KEY" in done.stdout


def test_doctor_knows_who_asks_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has a key of another provider, or a local model as the default, needs none of Anthropic's."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    found = checks()
    assert (found["API key"].state, found["openai: models"].state) == ("note", "ok")
    assert "sk-secret" not in str(found)
    monkeypatch.setenv("OPENAI_BASE_URL", "nowhere")
    assert checks()["openai: models"].state == "fix"
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.setenv("LLMNB_MODEL", "ollama:llama3.2")
    assert checks()["API key"].state == "note"


def test_doctor_json(llmnb_simulator: Simulator) -> None:
    """A script gets name, state, finding and next step of each check."""
    assert {"name", "state", "found", "do"} == set(json.loads(quick("doctor", "--json"))[0])


def test_doctor_stays_offline_unless_asked(llmnb_simulator: Simulator) -> None:
    """Only `--online` sends something: one request for the list of models."""
    doctor.examine()
    assert llmnb_simulator.requests == []
    assert checks(online=True)["API"].state == "ok"
    assert [request.path for request in llmnb_simulator.requests] == ["/v1/models"]


def test_doctor_online_tells_a_refused_key(llmnb_simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that the API does not let in needs doing something about."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-invalid")
    assert checks(online=True)["API"].state == "fix"


def test_doctor_tells_of_a_misspelled_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other checks still run."""
    monkeypatch.setenv("LLMNB_MODLE", "x")
    found = checks()
    assert found["settings"].state == "fix"
    assert "versions" in found


def test_doctor_tells_of_an_impossible_base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address without a scheme is found before the first call fails on it."""
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "api.example.com")
    assert checks()["base URL"].state == "fix"


def test_doctor_hides_a_password_in_the_base_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """An address is printed without the credentials in it."""
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "https://me:hunter2@api.example.com")
    assert "hunter2" not in checks()["base URL"].found


def test_doctor_tells_of_a_corrupt_ledger(llmnb_home: Path) -> None:
    """A file that is no database is named, and left as it is."""
    llmnb_home.mkdir()
    (llmnb_home / "ledger.db").write_bytes(b"not a database" * 100)
    assert checks()["ledger"].state == "fix"
    assert (llmnb_home / "ledger.db").read_bytes().startswith(b"not a database")


def test_doctor_tells_of_a_ledger_of_a_newer_version(spent: Simulator, llmnb_home: Path) -> None:
    """A ledger that can only be read says how to get the version that writes it."""
    with closing(sqlite3.connect(llmnb_home / "ledger.db")) as connection:
        connection.execute("PRAGMA user_version = 999")
    assert "newer llmnb" in checks()["ledger"].found


def test_doctor_counts_the_ledgers_calls(spent: Simulator, llmnb_home: Path) -> None:
    """Path, calls, size and schema are in the line."""
    found = checks()["ledger"]
    assert found.state == "ok"
    assert "3 calls" in found.found
    assert str(llmnb_home) in found.found


def test_doctor_tells_of_a_place_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A home below a file can never be; it is told before the first call warns."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("LLMNB_HOME", str(tmp_path / "file" / "home"))
    assert checks()["ledger"].state == "fix"


def test_doctor_tells_of_a_full_disk(monkeypatch: pytest.MonkeyPatch, spent: Simulator, llmnb_home: Path) -> None:
    """Of one that holds the ledger, and of one that is to hold it."""
    monkeypatch.setattr(doctor, "LEAST_FREE_BYTES", 10**18)
    there = checks()["ledger"]
    monkeypatch.setenv("LLMNB_HOME", str(llmnb_home.parent / "other"))
    for found in (there, checks()["ledger"]):
        assert (found.state, "the disk is full" in found.found) == ("fix", True)


def test_doctor_tells_of_the_response_cache(llmnb_simulator: Simulator, llmnb_home: Path) -> None:
    """Where it is, how many answers it has, how much room they take and may take."""
    assert checks()["cache"].found == f"{llmnb_home / 'cache'} is made with the first answer"
    assert not llmnb_home.exists()
    llmnb.LLM(display="none")("Hi")
    found = checks()["cache"]
    assert found.state == "ok"
    assert re.fullmatch(rf"{llmnb_home}/cache: 1 answer, 0\.\d MiB, of 1,024 MiB", found.found)


def test_doctor_tells_that_the_cache_is_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A choice is no fault, and is told, with the setting that made it."""
    monkeypatch.setenv("LLMNB_CACHE", "off")
    found = checks()["cache"]
    assert (found.state, found.found[:19]) == ("note", "off (LLMNB_CACHE); ")
    assert found.do is not None


def test_doctor_tells_of_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls would go on and be paid; the address is told without its password."""
    monkeypatch.setenv("LLMNB_CACHE_URL", "redis://:hunter2@127.0.0.1:1/0")
    found = checks()["cache"]
    assert found.state == "fix"
    assert "redis://127.0.0.1:1/0 cannot be used" in found.found
    assert "hunter2" not in str(found)
    assert "LLMNB_CACHE_URL" in str(found.do)


def test_doctor_tells_of_a_cache_that_is_not_ones_own(
    llmnb_simulator: Simulator, llmnb_home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One that others can read, one that is damaged, and a place where none can be."""
    llmnb.LLM(display="none")("Hi")
    assert checks()["cache"].state == "ok"
    (llmnb_home / "cache").chmod(0o755)
    found = checks()["cache"]
    assert (found.state, found.do) == ("note", f"chmod 700 {llmnb_home / 'cache'}")
    (llmnb_home / "cache").chmod(0o700)
    (tmp_path / "other" / "cache").mkdir(parents=True)
    (tmp_path / "other" / "cache" / "cache.db").write_bytes(b"no database" * 1_000)
    monkeypatch.setenv("LLMNB_HOME", str(tmp_path / "other"))
    assert checks()["cache"].state == "fix"
    (tmp_path / "file").touch()
    monkeypatch.setenv("LLMNB_HOME", str(tmp_path / "file" / "home"))
    assert checks()["cache"].state == "fix"


# dashboard ------------------------------------------------------------------------------------------------------------


def test_dashboard_refuses_other_machines(run: Llmnb) -> None:
    """Without a password or a login no address but this machine's, and what to set is said."""
    refused = one_line(run("dashboard", "--host", "0.0.0.0", "--no-browser"))
    assert "nothing protects the dashboard" in refused
    assert "LLMNB_DASHBOARD_PASSWORD" in refused


def test_ctrl_c_ends_the_dashboard_quietly() -> None:
    """It prints its address, and Ctrl-C leaves no process behind."""
    command = [sys.executable, "-m", "llmnb", "dashboard", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert (process.returncode, told) == (130, "")
    assert children
    assert not [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE]


# Formats --------------------------------------------------------------------------------------------------------------


def test_a_bug_is_not_explained_away() -> None:
    """Only errors that a user can do something about become one line; a bug stays a traceback."""
    assert console.explained(ZeroDivisionError("oops")) is None


# ledger ---------------------------------------------------------------------------------------------------------------


def test_ledger_status() -> None:
    """Where it is and how many calls it holds; without one, that the first call makes it."""
    assert "There is no ledger" in quick("ledger", "status")
    assert json.loads(quick("ledger", "status", "--json")) is None
    open_ledger().write(call(1))
    told = json.loads(quick("ledger", "status", "--json"))
    assert (told["calls"], told["folded"], told["waiting"]) == (1, 0, 1)
    assert "waiting" in quick("ledger", "status")


def test_ledger_rebuild() -> None:
    """All rows are folded, and again from the beginning when asked again."""
    for number in range(3):
        open_ledger().write(call(number))
    for _ in range(2):
        assert quick("ledger", "rebuild") == "3 rows folded.\n"
    assert json.loads(quick("ledger", "status", "--json"))["folded"] == 3


def test_ledger_prune(run: Llmnb) -> None:
    """Old rows go and their totals stay; nothing happens without a yes, and today's calls are never taken."""
    now_us = time.time_ns() // 1000
    open_ledger().write(call(1, ts=now_us - 500 * 86_400_000_000, cost_nanousd=7))
    open_ledger().write(call(2, ts=now_us, cost_nanousd=5))
    before = llmnb.usage(by=["model"])
    assert run("ledger", "prune", "--older", "400d", text="n\n").returncode == 1
    assert len(llmnb.calls()) == 2
    assert quick("ledger", "prune", "--older", "400d", "--yes", "--vacuum").startswith("1 rows from before")
    assert len(llmnb.calls()) == 1
    columns = ["model", "calls", "output_tokens", "cost_nanousd"]
    assert llmnb.usage(by=["model"])[columns].equals(before[columns])
    refused = run("ledger", "prune", "--older", "1h", "--yes")
    assert (refused.returncode, "at least a day" in refused.stderr) == (1, True)


# tokens ---------------------------------------------------------------------------------------------------------------


def test_tokens_are_counted_without_network(run: Llmnb, tmp_path: Path) -> None:
    """Files and texts make one prompt; nothing is sent, and no key is needed."""
    paper = tmp_path / "notes.md"
    paper.write_text("Write-ahead logging appends changes to a log. " * 40)
    done = run("tokens", "count", str(paper), "-t", "Summarise this", "-m", "claude-sonnet-5-5", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert 300 < told["input_tokens"] < 900
    assert told["counted_by"] == "characters"
    assert told["cost_most_usd"] > told["input_cost_usd"] > 0


def test_tokens_of_what_is_piped_in(run: Llmnb) -> None:
    """Without files the standard input is the prompt; a table is shown."""
    done = run("tokens", "count", text="Explain WAL in SQLite")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("claude-sonnet-5-5\ninput")


def test_tokens_of_nothing(run: Llmnb) -> None:
    """Nothing to count is a wrong command line; an empty text is refused as `ask` does."""
    done = run("tokens", "count", text="")
    assert (done.returncode, done.stdout) == (2, "")
    missing = run("tokens", "count", "nowhere.txt")
    assert missing.returncode == 1
    assert "there is no file nowhere.txt" in missing.stderr


def test_tokens_counted_by_the_api(llmnb_simulator: Simulator) -> None:
    """--exact asks the API, and says so."""
    told = json.loads(quick("tokens", "count", "-t", "Explain WAL", "--exact", "--json"))
    assert told["counted_by"] == "count_tokens"
    assert [request.path for request in llmnb_simulator.requests] == ["/v1/messages/count_tokens"]


# budget ---------------------------------------------------------------------------------------------------------------


def test_budgets_are_set_listed_and_removed() -> None:
    """One line each for people, and the columns of `budgets()` for scripts."""
    assert "No budget is set" in quick("budget", "list")
    said = quick("budget", "set", "--usd", "5", "--per", "day", "--project", "thesis")
    assert said.startswith("Budget 1: $5.00 a day for project 'thesis'. $0.00 spent, $5.00 left. It begins anew on ")
    told = json.loads(quick("budget", "set", "--tokens", "1000", "--per", "rolling 24h", "--action", "warn", "--json"))
    assert [(row["id"], row["limit_tokens"], row["limit_usd"]) for row in told] == [(2, 1000, None)]
    lines = quick("budget", "list").splitlines()
    assert "held" not in lines[0]
    assert ["5.00 a day for project 'thesis'" in lines[1], "(warns only)" in lines[2]] == [True, True]
    assert [row["per"] for row in json.loads(quick("budget", "list", "--json"))] == ["day", "rolling 24h"]
    assert quick("budget", "remove", "1") == "Budget 1 is removed.\n"
    assert [row["id"] for row in json.loads(quick("budget", "list", "--json"))] == [2]


def test_a_budget_that_cannot_be_is_refused_in_one_line(run: Llmnb) -> None:
    """With what to give instead, and an exit code for scripts."""
    for arguments, says in (
        (("set", "--usd", "5", "--per", "dya"), "did you mean 'day'"),
        (("set", "--per", "day"), "either usd= or tokens="),
        (("remove", "7"), "none is set"),
    ):
        done = run("budget", *arguments)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert says in done.stderr


def test_a_budget_stops_the_command_line_too(run: Llmnb, llmnb_simulator: Simulator) -> None:
    """One that a notebook set: the error is one line, and nothing is sent."""
    llmnb.set_budget(usd=0, per="total")
    done = run("ask", "Hi")
    assert done.returncode == 1
    assert done.stderr.startswith("llmnb: the budget of $0.00 in total has $0.00 left")
    assert llmnb_simulator.requests == []
