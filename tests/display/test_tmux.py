"""The live view in a real terminal: IPython under tmux, typed into, interrupted, its scrollback read."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from llmnb.interrupts import STOPPED
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer
from llmnb.simulator.fault import Fault
from llmnb.testing import serve_simulator

ROWS = 20
LIST = [f"item {number} of the list" for number in range(ROWS + 5)]
CODE = [f"value_{number} = {number}" for number in range(ROWS + 5)]
LONG = "\n".join(
    [
        "# Title",
        "",
        "First **paragraph**.",
        "",
        *(f"- {item}" for item in LIST),
        "",
        "```python",
        *CODE,
        "```",
        "",
        "End.",
    ]
)
SLOW = Answer(text="# Title\n\n" + "slow words " * 2000, deltas=2000, delta_delay_s=0.05)


@dataclass(frozen=True)
class Terminal:
    """A terminal 120 wide and `ROWS` high with a shell in it."""

    socket: Path
    begun: list[str]  # what was printed before each test

    def tmux(self, *command: str) -> str:
        """What a tmux command says."""
        line = ["tmux", "-S", str(self.socket), "-f", "/dev/null", *command]
        return subprocess.run(line, check=True, capture_output=True, text=True, timeout=20).stdout

    def type(self, text: str) -> None:
        """Type a text, and Enter."""
        self.tmux("send-keys", "-t", "t", "-l", text)
        self.press("Enter")

    def press(self, key: str) -> None:
        """Press a key by tmux's name of it."""
        self.tmux("send-keys", "-t", "t", key)

    def screen(self) -> str:
        """What was shown since the test began, also what has scrolled away."""
        shown = self.tmux("capture-pane", "-p", "-J", "-S", "-", "-t", "t")
        return shown.rpartition(f"\n{self.begun[-1]}\n")[2]

    def lines(self) -> list[str]:
        """The same, without white space around lines and without empty ones."""
        return [line.strip() for line in self.screen().splitlines() if line.strip()]

    def begin(self) -> None:
        """Forget what was shown."""
        name = f"begin{len(self.begun)}"
        self.type(f"print('begin' + '{len(self.begun)}')")
        self.wait(lambda screen: f"\n{name}\n" in screen, "beginning")
        self.begun.append(name)
        self.prompt()

    def wait(self, is_there: Callable[[str], bool], what: str) -> str:
        """The screen, once something is there."""
        deadline = time.monotonic() + 40
        while not is_there(screen := self.screen()):
            assert time.monotonic() < deadline, f"no {what} in\n{screen}"
            time.sleep(0.05)
        return screen

    def prompt(self) -> None:
        """Wait until the shell waits for the next cell, of which nothing is typed yet."""
        empty = re.compile(r"In \[\d+\]:")
        self.wait(lambda screen: empty.fullmatch((screen.rstrip().splitlines() or [""])[-1]) is not None, "prompt")


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    """A simulated API."""
    with serve_simulator() as simulator:
        yield simulator
        assert simulator.crashes == []


@pytest.fixture(scope="module")
def shell(sim: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """IPython in a terminal, with llmnb imported and its magics loaded."""
    if shutil.which("tmux") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("no tmux")
    home = tmp_path_factory.mktemp("terminal")
    terminal = Terminal(home / "tmux", ["nothing"])
    folders = {"IPYTHONDIR": str(home / "ipython"), "LLMNB_HOME": str(home / "llmnb")}
    settings = {**sim.environ(), **folders, "LINES": "50", "COLUMNS": "60"}  # left over from another terminal
    wanted = [word for name, value in settings.items() for word in ("-e", f"{name}={value}")]
    command = f"{sys.executable} -m IPython --no-banner --no-confirm-exit"
    terminal.tmux("new-session", "-d", "-s", "t", "-x", "120", "-y", str(ROWS), *wanted, command)
    terminal.prompt()
    terminal.type("%load_ext llmnb")
    terminal.type(
        "import llmnb; llm = llmnb.LLM(); from concurrent.futures import ThreadPoolExecutor; print('rea' + 'dy')"
    )
    terminal.wait(lambda screen: "\nready\n" in screen, "import")
    yield terminal
    terminal.tmux("kill-server")


@pytest.fixture
def terminal(shell: Terminal, sim: Simulator) -> Terminal:
    """The shell at a fresh prompt, and nothing scripted."""
    sim.reset()
    shell.begin()
    return shell


def test_the_scrollback_is_the_answer(terminal: Terminal, sim: Simulator) -> None:
    """Blocks taller than the screen grow live, and in the end every line stands once, in order, the footer last."""
    pause = Fault("stall", after_events=330, seconds=3)
    sim.script(Answer(text=LONG, deltas=400, delta_delay_s=0.004, fault=pause))
    terminal.type("reply = llm('Long')")
    growing = terminal.wait(lambda screen: "value_3 =" in screen, "growing block")
    assert "End." not in growing
    terminal.wait(lambda screen: "End." in screen, "end")
    terminal.prompt()
    _, *shown, footer, prompt = terminal.lines()
    assert shown == ["Title", "First paragraph.", *(f"• {item}" for item in LIST), *CODE, "End."]
    assert footer.startswith("claude-sonnet-5-5 · ")
    assert prompt.startswith("In [")


@pytest.mark.parametrize("cell", ["llm('One')", "await llm.aask('Two')"])
def test_ctrl_c(terminal: Terminal, sim: Simulator, cell: str) -> None:
    """Ctrl-C ends the answer, keeps what came, says so in one line, and leaves the terminal as it was."""
    sim.script(SLOW)
    terminal.type(cell)
    terminal.wait(lambda screen: screen.count("slow words") > 3, "words")
    terminal.press("C-c")
    terminal.wait(lambda screen: STOPPED in screen, "end")
    terminal.prompt()
    _, title, *words, footer, told, _ = terminal.lines()
    assert title == "Title"
    assert words
    assert set(" ".join(words).split()) <= {"slow", "words", "slo", "sl", "s", "wo", "w", "wor", "word"}
    assert footer.startswith("stopped · claude-sonnet-5-5 · ")
    assert told == STOPPED
    assert terminal.tmux("display", "-p", "-t", "t", "#{cursor_flag}").strip() == "1"
    sim.settle()
    assert sim.requests[0].disconnected_at is not None
    terminal.type("print(llmnb.calls()['status'].iloc[0], llm('Again', display='none', fresh=True).text[:20])")
    terminal.wait(lambda screen: "\ncancelled *Simulated answer" in screen, "next answer")


def test_several_at_once(terminal: Terminal, sim: Simulator) -> None:
    """Answers of a pool are drawn one after the other, each whole."""
    sim.rule(
        lambda request: Answer(text=f"# About {request.prompt}\n\nall of it\n\nEnd.", deltas=20, delta_delay_s=0.01)
    )
    terminal.type("with ThreadPoolExecutor(3) as pool: replies = list(pool.map(llm, 'abc'))\n")
    terminal.wait(lambda screen: screen.count("End.") == 3, "answers")
    terminal.prompt()
    lines = [line for line in terminal.lines() if not line.startswith(("claude", "In [", "with", "⋮"))]
    shown = [lines[start : start + 3] for start in range(0, 9, 3)]
    assert sorted(shown) == [[f"About {name}", "all of it", "End."] for name in "abc"]


def test_the_magic(terminal: Terminal, sim: Simulator) -> None:
    """`%%llm` is completed, fills its fields, shows the answer once and keeps it; a missing name sends nothing."""
    sim.rule(lambda request: f"echo **{request.prompt}**")
    terminal.type("name = 'World'; x = 1")
    terminal.prompt()
    terminal.tmux("send-keys", "-t", "t", "-l", "%%llm --outp")
    terminal.press("Tab")
    terminal.wait(lambda screen: "%%llm --output" in screen, "completion")
    terminal.type(" r")
    terminal.type("Hi {{ name }} {x}\n\n")
    terminal.wait(lambda screen: "Out[" in screen, "value")
    shown = terminal.screen()
    assert "echo Hi World {x}" in terminal.lines()
    assert "<Reply 'echo **Hi World {x}**' claude-sonnet-5-5" in shown
    terminal.type("%%llm")
    terminal.type("Hi {{ nmae }}\n\n")
    terminal.wait(lambda screen: "UsageError: {{ nmae }}: there is no variable 'nmae'" in screen, "refusal")
    assert len(sim.requests) == 1


def test_a_run_that_is_stopped(terminal: Terminal, sim: Simulator) -> None:
    """A run's bar goes with Ctrl-C also where the cell awaits; one sentence and one line are left, and the rows."""
    sim.rule(lambda request: Answer(text="Hi", first_token_s=0.0 if "row 1" in request.prompt else 60))
    terminal.type("await llm.amap(['row 1', 'row 2'], lambda row: print('asking', row.value) or row.value)")
    terminal.wait(lambda screen: " 50%|█" in screen and "about $" in screen, "bar")
    terminal.press("C-c")
    terminal.wait(lambda screen: "the same call goes on from there" in screen, "end")
    terminal.prompt()
    *asking, sentence, told, _ = terminal.lines()[-5:]
    assert asking == ["asking row 1", "asking row 2"]
    assert re.fullmatch(r"1 of 2 rows · \$[\d.]+ · [\d.]+ rows/s · \d+ s · stopped · run \w+", sentence)
    assert told == "Stopped. 1 of 2 rows are answered and kept; the same call goes on from there."
    terminal.type("print('an' + 'other line')")
    terminal.wait(lambda screen: "\nanother line\n" in screen, "plain output")
