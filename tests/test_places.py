"""Places: a database can be named everywhere without giving its password away."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmnb.errors import SettingsError
from llmnb.places import PostgresPlace
from llmnb.settings import load

URL = "postgresql://ann:se%40same@db.example:5433/books?sslmode=require&password=other&sslpassword=third"


def test_the_password_is_not_shown() -> None:
    """Neither as text nor as repr, wherever in the URL it stands."""
    place = PostgresPlace(URL)
    shown = "postgresql://ann@db.example:5433/books?sslmode=require&password=***&sslpassword=***"
    assert (str(place), repr(place)) == (shown, shown)
    assert place.password == "se%40same"


def test_the_store_of_the_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A file or a database, as its URL begins; the settings do not show the URL."""
    monkeypatch.setenv("LLMNB_STORE_URL", f"sqlite:///{tmp_path}/a.db")
    assert load().ledger_path == tmp_path / "a.db"
    for scheme in ("postgresql", "postgres"):
        monkeypatch.setenv("LLMNB_STORE_URL", URL.replace("postgresql", scheme, 1))
        assert load().ledger_path == PostgresPlace(URL.replace("postgresql", scheme, 1))
        assert "same" not in repr(load())


def test_a_url_that_is_refused_is_shown_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the setting and what is accepted."""
    monkeypatch.setenv("LLMNB_STORE_URL", URL.replace("postgresql", "postgresql+psycopg", 1))
    with pytest.raises(SettingsError, match=r"LLMNB_STORE_URL.*postgresql:// URL") as caught:
        load()
    assert "same" not in str(caught.value)
    assert "other" not in str(caught.value)
