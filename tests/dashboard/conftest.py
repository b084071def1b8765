"""The dashboard's modules on the path, as Streamlit puts them there, and ledgers to show."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from streamlit import config
from streamlit.components.v2 import manifest_scanner
from streamlit.testing.v1 import AppTest

from llmnb.ledger import open_ledger
from llmnb.records import Call

DASHBOARD = Path(__file__).parents[2] / "dashboard"
sys.path[:0] = [str(DASHBOARD), str(Path(__file__).parent)]

Fill = Callable[..., None]
Show = Callable[..., AppTest]


@pytest.fixture(autouse=True, scope="session")
def _one_look_for_components() -> Iterator[None]:
    """Installed packages are looked through for components once, as a server does, and not before every run: 150 ms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest_scanner, "scan_component_manifests", cache(manifest_scanner.scan_component_manifests))
        yield


@pytest.fixture(autouse=True)
def on_this_machine() -> Iterator[None]:
    """The server listens to this machine only, as the launcher has it."""
    before = config.get_option("server.address")
    config.set_option("server.address", "127.0.0.1")
    yield
    config.set_option("server.address", before)


@pytest.fixture(autouse=True)
def reporting_in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Days are cut in UTC, and nothing is remembered of another test's ledger."""
    monkeypatch.setenv("LLMNB_TIMEZONE", "UTC")
    st.cache_data.clear()
    yield
    st.cache_data.clear()


@pytest.fixture
def fill(llmnb_home: Path) -> Fill:
    """Writes calls into the ledger of this test."""

    def write(*calls: Call) -> None:
        ledger = open_ledger(llmnb_home / "ledger.db")
        for one in calls:
            ledger.write(one)

    return write


@pytest.fixture
def show() -> Show:
    """Runs a page of the dashboard as a browser would open it, with these URL parameters."""

    def run(page: str = "overview", /, **query: Any) -> AppTest:
        app = AppTest.from_file(DASHBOARD / "app.py", default_timeout=30)
        app.switch_page(f"views/{page}.py")
        app.query_params.update(query)
        return app.run()

    return run
