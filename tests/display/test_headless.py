"""What nbclient leaves in the notebook file."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

CELL = """
from llmnb import display
from llmnb.events import Text, Done
from llmnb.records import Usage
view = display.choose()
view.open("claude", None)
for text in ("# Title\\n\\n", "**bold** <b>tag</b> ![i](http://a.example/i.png)"):
    view.show(Text(text))
view.show(Done("claude", Usage(input_tokens=3, output_tokens=4), None))
view.close()
import sys
print("anywidget" in sys.modules)
"""


def test_headless_runs_keep_plain_markdown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook run without a front end holds one output of Markdown and text, and no widget was made for it."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    NotebookClient(notebook, timeout=60).execute()
    answer, printed = notebook.cells[0].outputs
    footer = "claude · 3 in · 4 out · unpriced"
    assert answer.data == {
        "text/markdown": f"# Title\n\n**bold** &lt;b>tag&lt;/b> [i](http://a.example/i.png)\n\n*{footer}*",
        "text/plain": f"# Title\n\n**bold** <b>tag</b> ![i](http://a.example/i.png)\n\n{footer}",
    }
    assert printed.text == "False\n"
