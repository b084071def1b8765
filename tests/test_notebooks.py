"""The notebooks are the documentation, so each runs from top to bottom: offline, without a key, in seconds."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest
from ipykernel.kernelspec import get_kernel_dict
from nbclient import NotebookClient
from nbformat.notebooknode import NotebookNode

import llmnb
from llmnb.simulator import Simulator

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))

SHOWN = {
    "03_what_did_it_cost": (
        "80 % of the budget of $0.02 a day for project 'paper' is spent",
        "Nothing was sent",
        "the answer was cut off after",
        "107 calls written to calls.csv",
        "np.True_",
    ),
    "04_tools_and_structure": (
        "('cache', Decimal('0'), ['Oslo', 'Bergen', 'Rome'])",
        "ConnectionError: the tide gauge of Bergen does not answer",
        "only to addresses at example.org",
        "max_turns ['user', 'assistant', 'user']",
        "Stay(city='Oslo', nights=2)",
    ),
    "05_ten_thousand_rows": (
        "9,850 equal to another row",
        "{'different questions': 150, 'billed twice, at most 4': True}",
        "(10000, 10000, ",
        "BadRequestError: this order is not",
        "(0, 'neutral')",
        "not asked: it could cost more than is left of budget_usd=0.00028",
        "the prompt cache saved $0.",
        "'50% of the price'",
        "30 prompts × 4 contestants",
    ),
}
"""What a notebook is about, as its cells show it."""

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)

# what a kernel does on its way out is not llmnb's to judge
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning")


def execute(path: Path, folder: Path) -> NotebookNode:
    """The notebook after a run in `folder`."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(folder)}}).execute()
    return notebook


def outputs(notebook: NotebookNode) -> str:
    """Everything the cells showed, as plain text."""
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    return "\n".join(
        output.get("text", "") + str(output.get("data", {}).get("text/markdown", ""))
        + str(output.get("data", {}).get("text/plain", ""))
        for output in shown
    )  # fmt: skip


def test_there_are_notebooks() -> None:
    """The tests below look at something."""
    assert NOTEBOOKS


@each_notebook
def test_notebook_runs_without_a_key(path: Path, tmp_path: Path) -> None:
    """With no key and no network every cell works, no cell warns, and the books balance with what it shows."""
    notebook = execute(path, tmp_path)
    streams = [
        output for cell in notebook.cells for output in cell.get("outputs", []) if output.get("name") == "stderr"
    ]
    assert streams == []
    for text in ("Simulated answer", *SHOWN.get(path.stem, ())):
        assert text in outputs(notebook)


def test_quickstart_uses_the_api_that_is_configured(tmp_path: Path, llmnb_simulator: Simulator) -> None:
    """With a key it asks there, and each question is one row that agrees with the API's own bill.

    A headless run leaves each answer readable in the notebook file, and no widget without a kernel behind it.
    """
    notebook = execute(FOLDER / "01_quickstart.ipynb", tmp_path)
    billed, booked = llmnb_simulator.billed(), llmnb.usage(by=[]).iloc[0]
    assert billed.requests == booked["calls"] == 5
    assert (booked["output_tokens"], booked["cost_nanousd"]) == (billed.output_tokens, billed.price_nanousd)
    assert "claude-haiku-5-5" in outputs(notebook)
    bundles = [output.get("data", {}) for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("text/markdown" in bundle for bundle in bundles) >= 3
    assert not any("application/vnd.jupyter.widget-view+json" in bundle for bundle in bundles)


def test_the_second_run_pays_nothing(tmp_path: Path, llmnb_simulator: Simulator) -> None:
    """Run again with the API gone, the notebook shows the same answers, and no row of that run costs anything."""
    first = execute(FOLDER / "02_never_pay_twice.ipynb", tmp_path)
    asked, billed = len(llmnb.calls()), llmnb_simulator.billed()
    assert billed.price_nanousd == llmnb.usage(by=[]).iloc[0]["cost_nanousd"] > 0
    llmnb_simulator.stop()
    second = execute(FOLDER / "02_never_pay_twice.ipynb", tmp_path)
    assert answers(second) == answers(first)
    assert len(answers(first)) >= 4
    anew = llmnb.calls().iloc[: len(llmnb.calls()) - asked]
    assert len(anew) == asked
    assert set(anew["source"]) == {"cache", "replay"}
    assert set(anew["cost_nanousd"]) == {0}
    assert llmnb.usage(by=[]).iloc[0]["cost_nanousd"] == billed.price_nanousd


def answers(notebook: NotebookNode) -> list[str]:
    """The answers that the cells showed, without the line below each that tells of tokens, dollars and time."""
    shown = [
        output.get("data", {}).get("text/markdown") for cell in notebook.cells for output in cell.get("outputs", [])
    ]
    return [text.rpartition("\n\n")[0] for text in shown if text and "Simulated answer" in text]


@each_notebook
def test_notebook_is_kept_without_outputs(path: Path) -> None:
    """What is in version control is the source: no outputs, no counts, no traces of the machine it was written on."""
    notebook = json.loads(path.read_text())
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell for cell in code if cell["outputs"] or cell["execution_count"]] == []
    assert set(notebook["metadata"]) <= {"kernelspec", "language_info"}
    assert notebook["metadata"]["kernelspec"]["name"] == "python3"
    # under another name JupyterLab calls the notebook changed as soon as it is opened, and asks whether to save it
    assert notebook["metadata"]["kernelspec"]["display_name"] == get_kernel_dict()["display_name"]
    assert not re.search(r"/home/|/Users/|/work/|/tmp/", path.read_text())
