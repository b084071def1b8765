"""The notebook form: a cassette next to a notebook, and whoever has both runs it again without a key."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

import llmnb
from llmnb.cassette import Interaction, Request, Response, read, write
from llmnb.errors import CassetteError, InvalidRequest
from llmnb.simulator import Simulator
from llmnb.testing import serve_simulator

# what a kernel does on its way out is not llmnb's to judge
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")

CELLS = [
    'import llmnb\nllmnb.replay(mode="auto")',
    'llm = llmnb.LLM()\nreply = llm("Name a river.")',
    "print(reply.text)",
    'print((await llm.aask("Name a lake.")).text)',
]


def execute(folder: Path, cells: list[str] = CELLS) -> list[str]:
    """What the cells of a notebook print, run headless in `folder`."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(folder)}}).execute()
    return [output.text for cell in notebook.cells for output in cell.outputs if output.output_type == "stream"]


def test_a_notebook_records_itself_and_is_run_again_without_a_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The author's run writes the cassette next to the notebook; the reviewer's has no key, no server and no name."""
    with serve_simulator(environ=True):
        monkeypatch.setenv("JPY_SESSION_NAME", str(tmp_path / "analysis.ipynb"))
        first = execute(tmp_path)
        monkeypatch.delenv("JPY_SESSION_NAME")
    assert len(read(tmp_path / "analysis.cassette.jsonl").interactions) == 2
    assert execute(tmp_path) == first
    assert len(first) == 2


def test_a_changed_prompt_is_told_in_the_cell(tmp_path: Path) -> None:
    """The reviewer sees in which words the request differs from the recorded one."""
    with serve_simulator(environ=True), llmnb.record(tmp_path / "analysis.cassette.jsonl"):
        llmnb.LLM(display="none")("Name a river.")
    cells = ["import llmnb\nllmnb.replay()", 'llmnb.LLM()("Name a mountain.")']
    with pytest.raises(CellExecutionError, match=r"recorded 'Name a river\.', asked 'Name a mountain\.'"):
        execute(tmp_path, cells)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[BlockingKernelClient]:
    """A client of a kernel that has a simulated API and no cache, so that a cell that is run again asks again."""
    monkeypatch.setenv("LLMNB_CACHE", "off")
    with serve_simulator(environ=True) as simulator:
        simulator.script("stopped", "kept", "of the other cell")
        manager, client = start_new_kernel(startup_timeout=60)
        yield client
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def run_cell(client: BlockingKernelClient, cell_id: str, code: str) -> str:
    """Runs code as the cell of that id, as JupyterLab does; gives what it printed."""
    message: Any = client.session.msg("execute_request", {"code": code, "silent": False, "store_history": True})
    message["metadata"]["cellId"] = cell_id
    client.shell_channel.send(message)
    printed = ""
    while True:
        answer: Any = client.get_iopub_msg(timeout=60)
        if answer["parent_header"].get("msg_id") != message["header"]["msg_id"]:
            continue
        if answer["msg_type"] == "stream":
            printed += answer["content"]["text"]
        if answer["msg_type"] == "error":
            raise AssertionError("\n".join(answer["content"]["traceback"]))
        if answer["msg_type"] == "status" and answer["content"]["execution_state"] == "idle":
            return printed.strip()


def test_cells_that_are_run_again_and_out_of_order(tmp_path: Path, kernel: BlockingKernelClient) -> None:
    """While recording a cell was run twice: its second answer is the one that counts, and each cell has its own."""
    path = tmp_path / "a.cassette.jsonl"
    run_cell(kernel, "top", f"import llmnb\ncassette = llmnb.record({str(path)!r})\nllm = llmnb.LLM(display='none')")
    ask = "print(llm('Name a river.').text)"
    assert [run_cell(kernel, cell, ask) for cell in ("one", "one", "two")] == ["stopped", "kept", "of the other cell"]
    assert [one.cell for one in read(path).interactions] == ["one", "one", "two"]
    assert len({one.run for one in read(path).interactions}) == 3
    run_cell(kernel, "top", f"cassette = llmnb.replay({str(path)!r})")
    again = [run_cell(kernel, cell, ask) for cell in ("two", "one", "two", "one")]
    assert again == ["of the other cell", "kept", "of the other cell", "kept"]
    assert run_cell(kernel, "top", "print(repr(cassette))") == (
        "<llmnb cassette replaying a.cassette.jsonl: 3 recorded, 4 replayed, nothing is sent>"
    )


# Which file -----------------------------------------------------------------------------------------------------------


def tape(path: Path) -> Path:
    """A cassette with one interaction."""
    return write(path, [Interaction(1, Request("GET", "/v1/models"), Response(200, {}, 0, b"{}"))])


def test_the_setting_names_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """LLMNB_NOTEBOOK, for runs that are told no name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMNB_NOTEBOOK", "thesis.ipynb")
    tape(tmp_path / "thesis.cassette.jsonl")
    with llmnb.replay() as cassette:
        assert cassette.path == tmp_path / "thesis.cassette.jsonl"
    with llmnb.record() as cassette:
        assert cassette.path == tmp_path / "thesis.cassette.jsonl"


def test_a_script_has_its_cassette_next_to_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is started from."""
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "work.py"), raising=False)
    with llmnb.record() as cassette:
        assert cassette.path == tmp_path / "work.cassette.jsonl"


def test_without_a_name_the_only_cassette_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One is taken; of several none, and recording always wants a name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    with pytest.raises(InvalidRequest, match=r"which cassette\? .* Give one"):
        llmnb.replay()
    tape(tmp_path / "a.cassette.jsonl")
    with llmnb.replay() as cassette:
        assert cassette.path.name == "a.cassette.jsonl"
    with pytest.raises(InvalidRequest, match=r"llmnb\.record"):
        llmnb.record()
    tape(tmp_path / "b.cassette.jsonl")
    with pytest.raises(InvalidRequest, match=r"several here: a\.cassette\.jsonl, b\.cassette\.jsonl"):
        llmnb.replay()


# What is refused ------------------------------------------------------------------------------------------------------


def test_no_cassette_to_replay(tmp_path: Path) -> None:
    """It says how to record one, and nothing is in force."""
    with pytest.raises(CassetteError, match=r"there is no cassette .*llmnb\.record\(\)"):
        llmnb.replay(tmp_path / "none.jsonl")


def test_a_file_that_is_something_else_is_not_written_over(tmp_path: Path) -> None:
    """Somebody's data, by a slip of the path."""
    data = tmp_path / "results.jsonl"
    data.write_text('{"id": 1}\n')
    for use in (llmnb.record, lambda path: llmnb.replay(path, mode="new")):
        with pytest.raises(CassetteError, match="is no cassette"):
            use(data)
    assert data.read_text() == '{"id": 1}\n'


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    """It is told before anything is asked and paid."""
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "a.jsonl", tmp_path):
        with pytest.raises(CassetteError, match="cannot be written"):
            llmnb.record(path)


@pytest.mark.parametrize("wrong", [{"mode": "replays"}, {"pace": "slow"}])
def test_a_misspelled_option(tmp_path: Path, wrong: dict[str, Any]) -> None:
    """The choices are named."""
    with pytest.raises(InvalidRequest, match="is none of"):
        llmnb.replay(tmp_path / "a.jsonl", **wrong)


def test_damage_is_told_once_and_the_rest_replayed(tmp_path: Path) -> None:
    """A line that somebody broke is named."""
    path = tape(tmp_path / "a.jsonl")
    path.write_text(path.read_text() + "{broken\n{}\n")
    with pytest.warns(llmnb.trouble.LlmnbWarning, match="line 4 of the cassette"), llmnb.replay(path) as cassette:
        assert len(cassette.interactions) == 1
    with llmnb.replay(path):
        pass


def test_a_disk_that_fills_up_does_not_break_the_call(tmp_path: Path, llmnb_simulator: Simulator) -> None:
    """The folder goes away while recording: calls go on, and one warning says so."""
    folder = tmp_path / "gone"
    with llmnb.record(folder / "a.jsonl"):
        os.rmdir(folder)
        llm = llmnb.LLM(display="none")
        with pytest.warns(llmnb.trouble.LlmnbWarning, match=r"cannot be written .*your calls go on"):
            assert llm("Hi").text
        assert llm("Ho").text
    assert len(llmnb_simulator.requests) == 2
