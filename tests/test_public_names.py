"""The names a user types: exactly the ones that exist, each imported on first use."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import llmnb

HEAVY = ("anthropic", "pandas", "ipywidgets", "streamlit", "pydantic", "rich", "genai_prices", "IPython")


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_all_is_sorted_and_without_repeats() -> None:
    """__all__ reads like an index."""
    assert llmnb.__all__ == sorted(set(llmnb.__all__))


@pytest.mark.parametrize("name", llmnb.__all__)
def test_every_public_name_exists(name: str) -> None:
    """Each name in __all__ can be had, and has a docstring if it is ours to document."""
    value = getattr(llmnb, name)
    assert name == "__version__" or value.__doc__


def test_type_checkers_see_the_same_names() -> None:
    """The block for type checkers imports exactly what is imported lazily, from the same modules."""
    tree = ast.parse(Path(llmnb.__file__).read_text())
    blocks = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in ast.walk(blocks[0]) if isinstance(node, ast.ImportFrom)]
    seen = {alias.asname: f"{node.module}.{alias.name}" for node in imports for alias in node.names}
    lazy = {name: f"llmnb.{module}.{name}" for name, module in vars(llmnb)["_HOME"].items()}
    rooms = {name: f"llmnb.{name}" for name in vars(llmnb)["_ROOMS"]}
    assert seen == lazy | rooms


def test_dir_lists_the_public_names() -> None:
    """Tab completion offers what there is before anything was imported."""
    assert run("import llmnb; print(*dir(llmnb))").split() == llmnb.__all__


def test_import_is_light() -> None:
    """`import llmnb` imports none of the heavy packages, nor any module of ours but itself."""
    loaded = run("import llmnb, sys; print(*sys.modules)").split()
    assert not [name for name in loaded if name.split(".")[0] in HEAVY]
    assert [name for name in loaded if name.startswith("llmnb")] == ["llmnb"]


def test_making_an_llm_imports_no_widget_and_no_table() -> None:
    """Names are fetched one by one: LLM brings neither pandas nor ipywidgets nor streamlit."""
    loaded = {name.split(".")[0] for name in run("import llmnb, sys; llmnb.LLM; print(*sys.modules)").split()}
    assert not loaded & {"pandas", "ipywidgets", "streamlit"}


def test_unknown_name_is_an_attribute_error() -> None:
    """A misspelled name fails as Python users expect."""
    with pytest.raises(AttributeError, match="no attribute 'LMM'"):
        getattr(llmnb, "LMM")  # noqa: B009 - the attribute does not exist, and that is the point


@pytest.mark.parametrize("path", sorted(Path(llmnb.__file__).parent.rglob("*.py")), ids=lambda path: path.name)
def test_every_module_says_its_job(path: Path) -> None:
    """The first thing in a file is one sentence about what it is for."""
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_imports_never_go_upwards() -> None:
    """A room imports only rooms below it, so that there are no cycles and the core stays light."""
    package = Path(llmnb.__file__).parent
    wrong = [
        f"{path.relative_to(package)} imports {target}"
        for path in package.rglob("*.py")
        for target in _imported(path)
        if _floor(target) > _floor(_room(path, package))
    ]
    assert not wrong


FLOORS = (
    {"durations", "errors", "events", "forks", "interrupts", "keys", "later", "locks", "network_files", "passwords",
     "places", "plain_numbers", "records", "sqlite_files", "terminals", "trouble"},
    {"connections", "hearing", "messages", "metrics", "origin", "pricing", "settings", "simulator", "slots", "testing",
     "tokens", "unread", "views"},
    {"prompt_cache"},
    {"cache", "cassette", "ledger"},
    {"budgeting", "pacing"},
    {"middleware"},
    {"providers"},
    {"client"},
    {"asking", "chat", "cost_table", "estimate", "jobs", "llm", "reply", "routing", "templates",
     "tools"},
    {"display"},
    {"__main__", "commands", "demo", "magics", "pytest_plugin"},
)  # fmt: skip


def test_every_module_has_its_floor() -> None:
    """A new module is put on a floor above, so that the direction of its imports is watched."""
    package = Path(llmnb.__file__).parent
    rooms = {_room(path, package) for path in package.rglob("*.py")} - {"__init__", "_dashboard", "_notebooks"}
    assert rooms == set().union(*FLOORS)


def _floor(room: str) -> int:
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), len(FLOORS))  # the last: __init__


def _room(path: Path, package: Path) -> str:
    return path.relative_to(package).parts[0].removesuffix(".py")


def _imported(path: Path) -> list[str]:
    found: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llmnb."):
            found.append((node.module or "").split(".")[1])
        elif isinstance(node, ast.ImportFrom) and node.module == "llmnb" and path.name != "__init__.py":
            found += [alias.name for alias in node.names if importlib.util.find_spec(f"llmnb.{alias.name}")]
    return found
