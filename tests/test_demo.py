"""`llmnb demo`, run for real: what it shows is true, it touches nothing of the user's, and it leaves nothing behind."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

import psutil
import pytest

import llmnb
from llmnb import settings
from llmnb.commands.dashboard_launcher import launch
from llmnb.demo import _stay, history, page
from llmnb.demo.child import Child, ChildError
from llmnb.demo.proof import ProofError, books_agree_with_bill, page_agrees_with_books
from llmnb.demo.signals import Ended, ending
from llmnb.pricing import cost_of
from llmnb.simulator import Simulator

COMMAND = [sys.executable, "-m", "llmnb", "demo"]
NOW = datetime(2026, 11, 20, 15, 30, tzinfo=timezone(timedelta(hours=1)))

# each starts a browserless JupyterLab and a dashboard
pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files of the demo, so that what it leaves can be seen; users' things are decoys."""
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-the-users-own")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("LLMNB_STORE_URL", f"sqlite:///{tmp_path}/users.db")
    monkeypatch.setenv("LLMNB_MODEL", "the-users-model")
    return folder


def leftovers(place: Path) -> list[str]:
    """The demo's folders that are still there, and the processes that work in them."""
    found = [str(folder) for folder in place.glob("llmnb-demo-*")]
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if str(place) in process.environ().get("LLMNB_HOME", ""):
                found.append(" ".join(process.cmdline()))
    return found


def soon(nothing: object) -> bool:
    """Whether `nothing()` comes back empty within ten seconds."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if not nothing():  # pyright: ignore[reportCallIssue]
            return True
        time.sleep(0.05)
    return False


class InTerminal:
    """The demo in a terminal of its own, as the leader of the process group that Ctrl-C reaches."""

    def __init__(self) -> None:
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.execv(sys.executable, COMMAND)
        self.text = ""

    def read_until(self, words: str) -> None:
        """Reads what it prints until it said `words`."""
        while words not in self.text:
            piece = os.read(self.terminal, 4096).decode(errors="replace")
            assert piece, self.text
            self.text += piece

    def press_ctrl_c(self) -> None:
        os.write(self.terminal, b"\x03")

    def exit_code(self) -> int:
        """Reads to the end; the exit code, negative when a signal killed it."""
        with suppress(OSError):  # Linux says EIO when the other end of a terminal is gone
            while piece := os.read(self.terminal, 4096):
                self.text += piece.decode(errors="replace")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def close(self) -> None:
        with suppress(ChildProcessError, ProcessLookupError):
            if os.waitpid(self.pid, os.WNOHANG)[0] == 0:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        os.close(self.terminal)


@pytest.fixture
def in_terminal(place: Path) -> Iterator[InTerminal]:
    """The demo, started in a terminal."""
    demo = InTerminal()
    yield demo
    demo.close()


# The whole ------------------------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_check_proves_the_demo_and_leaves_nothing(place: Path, tmp_path: Path) -> None:
    """The notebook ran, the books agree with the bill, the page with the books; the user's things are as they were."""
    done = subprocess.run([*COMMAND, "--check"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Everything works." in done.stdout
    assert re.search(r"its 5 calls are on the books, to the token", done.stdout)
    assert re.search(r"the dashboard shows what the ledger holds: \$\d+\.\d\d, [\d,]+ calls", done.stdout)
    assert done.stderr == ""
    assert leftovers(place) == []
    assert not (tmp_path / "users.db").exists()
    assert not (tmp_path / "llmnb-home").exists()


@pytest.mark.soak
def test_without_a_terminal_it_ends_by_itself(place: Path) -> None:
    """Where nobody can press Ctrl-C it shows the addresses, says why it ends, and does."""
    done = subprocess.run(COMMAND, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^  (?:notebook|dashboard) +http://127\.0\.0\.1:\d+", done.stdout, re.MULTILINE)) == 2
    assert "no terminal" in done.stdout
    assert leftovers(place) == []


def test_both_addresses_answer_until_ctrl_c(place: Path, in_terminal: InTerminal) -> None:
    """In a terminal it goes on: notebook and dashboard can be looked at; Ctrl-C ends all of it, with exit code 0."""
    from llmnb.demo.lab import answers

    in_terminal.read_until("Ctrl-C ends it")
    addresses = re.findall(r"http://127\.0\.0\.1:\S+", in_terminal.text)
    assert [answers(address) for address in addresses] == [True, True]
    without_token = addresses[0].split("?")[0].replace("/lab/tree/", "/api/contents/")
    assert not answers(without_token)
    assert leftovers(place)
    in_terminal.press_ctrl_c()
    assert in_terminal.exit_code() == 0
    assert "Traceback" not in in_terminal.text
    assert leftovers(place) == []


def test_a_signal_while_it_starts_leaves_nothing(place: Path, in_terminal: InTerminal) -> None:
    """`kill` in the middle of the notebook: the kernel, JupyterLab and the folder go, and the exit code says why."""
    in_terminal.read_until("plays the API")
    os.kill(in_terminal.pid, signal.SIGTERM)
    assert in_terminal.exit_code() == 128 + signal.SIGTERM
    assert "Traceback" not in in_terminal.text
    assert soon(lambda: leftovers(place))


def test_impatient_ctrl_c_leaves_nothing(place: Path, in_terminal: InTerminal) -> None:
    """Ctrl-C pressed again and again does not disturb the clearing up."""
    in_terminal.read_until("plays the API")
    for _ in range(5):
        in_terminal.press_ctrl_c()
        time.sleep(0.02)
    assert in_terminal.exit_code() == 130
    assert soon(lambda: leftovers(place))


def test_even_killed_it_leaves_no_process(place: Path, in_terminal: InTerminal) -> None:
    """kill -9 gives the demo no chance to clear up; its children notice and end by themselves."""
    in_terminal.read_until("Ctrl-C ends it")
    os.kill(in_terminal.pid, signal.SIGKILL)
    assert in_terminal.exit_code() == -signal.SIGKILL
    assert soon(lambda: [what for what in leftovers(place) if not what.startswith(str(place))])


# Its parts ------------------------------------------------------------------------------------------------------------


def test_it_stays_only_where_there_is_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody can press Ctrl-C it says so, and comes back at once."""
    said: list[str] = []
    with open(os.devnull) as nobody:
        monkeypatch.setattr(sys, "stdin", nobody)
        _stay(said.append, check=False)
    assert ["no terminal" in line for line in said] == [True]


def test_proof_fails_when_a_call_is_missing_from_the_books(llmnb_simulator: Simulator) -> None:
    """A call that was billed and not booked is found: here, one of a client that is not wrapped."""
    with llmnb_simulator.client() as client:
        client.messages.create(model="claude-sonnet-5-5", max_tokens=9, messages=[{"role": "user", "content": "Hi"}])
    with pytest.raises(ProofError, match="calls: the simulator's bill says 1, the ledger says 0"):
        books_agree_with_bill(llmnb_simulator)


def test_proof_holds_when_every_call_is_booked(llmnb_simulator: Simulator) -> None:
    """The same with a call through llmnb: it agrees, and says how much it was."""
    reply = llmnb.LLM(display="none").ask("Hi")
    assert books_agree_with_bill(llmnb_simulator) == (1, reply.cost.nanousd)


def test_page_is_held_against_the_books(tmp_path: Path) -> None:
    """The page agrees with the ledger it shows; with another ledger in force it is found to be wrong."""
    history.write(settings.load(), NOW)
    with launch() as dashboard:
        spend, calls = page_agrees_with_books(dashboard.url)
        assert (spend[0], int(calls.replace(",", ""))) == ("$", llmnb.usage(by=[])["calls"][0])
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LLMNB_HOME", str(tmp_path / "other"))
            history.write(settings.load(), NOW - timedelta(days=300))
            with pytest.raises(ProofError, match="Calls: the ledger says"):
                page_agrees_with_books(dashboard.url)


def test_page_that_shows_nothing_has_no_figures() -> None:
    """An empty ledger has an empty page, and asking it does not hang."""
    with launch() as dashboard:
        assert page.metrics(dashboard.url) == {}


def test_history_repeats_itself() -> None:
    """The same day gives the same rows, oldest first, all before that day."""
    rows = list(history.thirty_days(NOW))
    assert rows == list(history.thirty_days(NOW))
    assert [row.ts for row in rows] == sorted(row.ts for row in rows)
    assert len({row.uid for row in rows}) == len(rows) > 500
    midnight = NOW.replace(hour=0, minute=0)
    assert rows[-1].ts < midnight.timestamp() * 1e6
    assert rows[0].ts >= (midnight - timedelta(days=history.DAYS - 1)).timestamp() * 1e6


def test_history_is_priced_like_real_calls_and_says_that_it_is_invented() -> None:
    """Each row carries the price of its own tokens, and a tag."""
    for row in history.thirty_days(NOW):
        assert row.cost == cost_of(row.usage, row.model or row.model_requested, ts=row.ts)
        assert row.cost_nanousd is not None
        assert row.tag == row.user == "demo"


def test_history_shows_what_can_happen() -> None:
    """Errors, retries, stopped answers, cache reads and writes are all in it."""
    rows = list(history.thirty_days(NOW))
    assert {row.status for row in rows} == {"ok", "error", "cancelled"}
    assert {row.attempts for row in rows} >= {1, 2, 3}
    assert all(row.output_tokens == 0 and row.error_type for row in rows if row.status == "error")
    assert all(row.model == row.model_requested for row in rows)  # as real rows have it, those of errors, too
    assert any(row.cache_read_tokens for row in rows)
    assert any(row.cache_write_1h_tokens for row in rows)


def test_a_child_that_fails_is_quoted(tmp_path: Path) -> None:
    """The error holds what the process said last, which is where the reason is."""
    child = Child("the thing", ["no_such_module"], log=tmp_path / "log", cwd=tmp_path, env=os.environ)
    with pytest.raises(ChildError, match=r"(?s)the thing ended with exit code 1.*no_such_module"):
        child.finish(30)
    child.stop()


def test_a_silent_child_is_given_up(tmp_path: Path) -> None:
    """A process that never gets ready is an error in the end, and can still be stopped."""
    (tmp_path / "sleeper.py").write_text("import time\ntime.sleep(600)\n")
    child = Child("the sleeper", ["sleeper"], log=tmp_path / "log", cwd=tmp_path, env=os.environ)
    with pytest.raises(ChildError, match="did not answer"):
        child.until(lambda: False, 0.2)
    child.stop()
    assert child.process.returncode == -signal.SIGTERM


def test_a_child_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    """SIGTERM is asking; after that it is not asked any more."""
    (tmp_path / "deaf.py").write_text(
        "import signal, time, pathlib\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "pathlib.Path('ready').touch()\ntime.sleep(600)\n"
    )
    child = Child("the deaf", ["deaf"], log=tmp_path / "log", cwd=tmp_path, env=os.environ)
    child.until((tmp_path / "ready").exists, 30)
    child.stop(patience_s=0.2)
    assert child.process.returncode == -signal.SIGKILL


def test_first_signal_ends_and_further_ones_are_ignored() -> None:
    """The handlers come back afterwards."""
    before = signal.getsignal(signal.SIGTERM)
    with ending() as end_undisturbed:
        with pytest.raises(Ended) as caught:
            signal.raise_signal(signal.SIGTERM)
        assert caught.value.number == signal.SIGTERM
        end_undisturbed()
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
