"""How `make` sets up the virtual environment where only pip is configured."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).parent.parent / "tools" / "bootstrap.py"


@pytest.fixture(scope="module")
def tool() -> dict[str, Any]:
    """The names of tools/bootstrap.py."""
    return runpy.run_path(str(TOOL))


def test_pip_settings_merge_as_pip_does(tool: dict[str, Any]) -> None:
    """The environment wins over [install], and that over [global]; other commands' settings are not ours."""
    listing = "\n".join(
        [
            ":env:.index-url='https://c/simple'",
            "global.index-url='https://a/simple'",
            "global.extra-index-url='https://x/simple\\nhttps://y/simple'",
            "install.index-url='https://b/simple'",
            "install.trusted-host='a'",
            "download.find-links='/elsewhere'",
        ]
    )
    assert tool["pip_settings"](listing) == {
        "index-url": "https://c/simple",
        "extra-index-url": "https://x/simple\nhttps://y/simple",
        "trusted-host": "a",
    }


def test_uv_is_told_where_packages_are(tool: dict[str, Any]) -> None:
    """Every place pip looks into is a place uv looks into, the best version of all of them wins, as with pip."""
    settings = {
        "index-url": "https://a/simple",
        "extra-index-url": "https://x\nhttps://y",
        "find-links": "/w /v",
        "constraint": "/a.txt",
    }
    assert tool["uv_environment"](settings) == {
        "UV_DEFAULT_INDEX": "https://a/simple",
        "UV_INDEX": "https://x https://y",
        "UV_FIND_LINKS": "/w,/v",
        "UV_CONSTRAINT": "/a.txt",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
    }


def test_settings_about_pips_own_manners_are_left_out(tool: dict[str, Any]) -> None:
    """What changes no result needs no word in uv."""
    assert tool["uv_environment"]({"disable-pip-version-check": "1"}) == {"UV_INDEX_STRATEGY": "unsafe-best-match"}


def test_what_uv_cannot_be_told_is_left_to_pip(tool: dict[str, Any]) -> None:
    """A setting without a counterpart (here: a client certificate) means that pip does the work."""
    assert tool["uv_environment"]({"client-cert": "/me.pem"}) is None


def test_no_file_records_where_packages_came_from() -> None:
    """Lock files of that kind hold addresses of somebody's index, and do not belong here."""
    names = {path.name for path in TOOL.parent.parent.iterdir()}
    assert not names & {"uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "pylock.toml"}
