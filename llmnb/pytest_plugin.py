"""The pytest marker, fixture and option for cassettes. Loaded in every pytest run of an environment with llmnb, so that
it imports nothing of llmnb before a test asks for it.

    @pytest.mark.llmnb_cassette("thesis.jsonl")
    def test_my_analysis():
        assert classify("I like it") == "positive"

The first time: `pytest --llmnb-cassette=record`, with a key. From then on the test needs no key and no network.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from llmnb.cassette import Cassette

_MARKER = "llmnb_cassette"
_MODES = ("replay", "record", "new", "auto")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option `--llmnb-cassette`."""
    parser.getgroup("llmnb").addoption(
        "--llmnb-cassette",
        choices=_MODES,
        metavar="MODE",
        help="what marked tests do with their cassettes, whatever their markers say: replay (nothing is sent), record "
        "(all is sent, and the cassette begun anew), new (what it lacks is sent and added), auto (replay it, or record "
        "it where there is none)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marker."""
    config.addinivalue_line(
        "markers",
        f"{_MARKER}(path=None, *, mode='replay', pace='at once', repeat=False, redact=()): answers the test's requests "
        "from a cassette, as llmnb.replay does; path is relative to the test's file, and by default "
        "cassettes/<module>/<test>.jsonl there",
    )


def pytest_itemcollected(item: pytest.Item) -> None:
    """A marked test has its cassette without naming the fixture."""
    names: list[str] = getattr(item, "fixturenames", [])
    if item.get_closest_marker(_MARKER) is not None and _MARKER not in names:
        names.insert(0, _MARKER)


@pytest.fixture
def llmnb_cassette(request: pytest.FixtureRequest) -> Iterator[Cassette]:
    """The cassette of this test, in force while it runs; its marker says which and how.

    A request that the test makes more often than it was recorded is a `ReplayMiss`, unless the marker says
    `repeat=True`. `llmnb_cassette.unused` is what was recorded and is asked for no longer.
    """
    from llmnb.cassette import replay
    from llmnb.errors import CassetteError

    path, options = _marked(request.node)
    asked = request.config.getoption("--llmnb-cassette")
    chosen: dict[str, Any] = {"repeat": False, **options, **({"mode": asked} if asked else {})}
    try:
        cassette = replay(path, **chosen)
    except CassetteError as error:
        error.add_note(f"To record it: pytest --llmnb-cassette=record '{request.node.nodeid}'")
        raise
    cassette.way_out = f"To ask for what is missing: pytest --llmnb-cassette=new '{request.node.nodeid}'"
    with cassette:
        yield cassette


def _marked(node: Any) -> tuple[Path, dict[str, Any]]:
    """The path and the options that the test's marker gives."""
    marker = node.get_closest_marker(_MARKER)
    options = dict(marker.kwargs) if marker is not None else {}
    given = options.pop("path", None) or (marker.args[0] if marker is not None and marker.args else None)
    here = Path(node.path)
    if given is not None:
        return here.parent / given, options
    name = re.sub(r"[^\w.\[\]=-]+", "-", node.name)
    return here.parent / "cassettes" / here.stem / f"{name}.jsonl", options
