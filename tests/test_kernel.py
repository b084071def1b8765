"""Asking in a real Jupyter kernel: shown once, and stopped by the kernel's interrupt, in plain and in await cells."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import nbformat
import pytest
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager, start_new_kernel
from nbclient import NotebookClient

import llmnb
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer
from llmnb.testing import serve_simulator


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """A simulated API in the environment, which kernels inherit."""
    with serve_simulator(environ=True) as simulator:
        yield simulator
        assert simulator.crashes == []


def test_an_answer_is_shown_once(sim: Simulator) -> None:
    """The last value of a cell that showed it live is not shown again; a variable shows it in a later cell."""
    cells = [
        "import llmnb\nllm = llmnb.LLM()",
        "llm('Hi')",
        "reply = await llm.aask('Hi')\nreply",
        "reply",
        "llm('Hi', display='none')",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook).execute()
    kinds = [[output.output_type for output in cell.outputs] for cell in notebook.cells]
    assert kinds == [[], ["display_data"], ["display_data"], ["execute_result"], ["execute_result"]]
    (row,) = llmnb.calls(limit=1).to_dict("records")
    assert row["cell"] is not None


@pytest.fixture
def kernel() -> Iterator[tuple[KernelManager, BlockingKernelClient]]:
    """A running kernel, and a client of it."""
    manager, client = start_new_kernel(startup_timeout=60)
    yield manager, client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


@pytest.mark.parametrize("cell", ["llm('Hi', display='static')", "await llm.aask('Hi', display='static')"])
def test_interrupt(sim: Simulator, kernel: tuple[KernelManager, BlockingKernelClient], cell: str) -> None:
    """The kernel's interrupt ends the request at once; the cell fails with one line, and the kernel goes on."""
    manager, client = kernel
    client.execute_interactive("import llmnb\nllm = llmnb.LLM()", timeout=60)
    sim.script(Answer(text="word " * 2000, deltas=2000, delta_delay_s=0.01))
    asked = client.execute(cell)
    while not sim.requests:
        pass
    manager.interrupt_kernel()
    reply: Any = client.get_shell_msg(timeout=60)
    while reply["parent_header"].get("msg_id") != asked:
        reply = client.get_shell_msg(timeout=60)
    assert reply["content"]["status"] == "error"
    assert reply["content"]["ename"] == ("Cancelled" if "await" in cell else "Stopped")
    sim.settle()
    assert sim.requests[0].disconnected_at is not None
    assert _status(client, "_ = llmnb.calls()") == "ok"  # whoever reads the ledger writes first what waits
    (row,) = llmnb.calls().to_dict("records")
    assert row["status"] == "cancelled"
    assert reply["content"]["traceback"] == [reply["content"]["evalue"]]
    assert _status(client, "llm('Again')") == "ok"


def _status(client: BlockingKernelClient, cell: str) -> str:
    """How the cell ended; it is sent again when the kernel refused it because another failed a moment ago."""
    while (status := client.execute_interactive(cell, timeout=60)["content"]["status"]) == "aborted":
        pass
    return status


def test_a_console_prints(sim: Simulator, kernel: tuple[KernelManager, BlockingKernelClient]) -> None:
    """jupyter console and qtconsole have no widgets and do not update outputs: there the answer is printed, once."""
    shown: list[Any] = []
    sim.script(Answer(text="the answer", deltas=2))
    kernel[1].execute_interactive("import llmnb\nllmnb.LLM()('Hi')", timeout=60, output_hook=shown.append)
    printed = "".join(message["content"]["text"] for message in shown if message["msg_type"] == "stream")
    assert printed.startswith("the answer\nclaude-sonnet-5-5")
    assert {message["msg_type"] for message in shown} & {"display_data", "execute_result", "comm_open"} == set()
