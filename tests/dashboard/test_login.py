"""Who may see the dashboard: the launcher's conditions, the password, its hash, the ticket that a browser keeps."""

from __future__ import annotations

import http.client
import time
from contextlib import closing
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import pytest
from conftest import Fill, Show
from shown import call, noon, texts
from streamlit import config
from streamlit.testing.v1 import AppTest

from llmnb import passwords
from llmnb.commands.dashboard_access import new_hash, refuse_open_doors
from llmnb.commands.dashboard_launcher import launch
from llmnb.errors import InvalidRequest, SettingsError

PASSWORD = "correct horse battery"
AUTH = '[auth]\nredirect_uri = "http://x/oauth2callback"\ncookie_secret = "y"\n'


def log_in(page: AppTest, password: str) -> AppTest:
    """Type a password and press the button."""
    page.text_input(key="password").set_value(password)
    return page.button[0].click().run()


def test_hashes() -> None:
    """A hash fits its password and no other, and two of one password differ."""
    stored = passwords.hashed(PASSWORD)
    assert passwords.is_right(PASSWORD, stored)
    assert not passwords.is_right(PASSWORD + " ", stored)
    assert not passwords.is_right(stored, stored), "the hash is no password"
    assert stored != passwords.hashed(PASSWORD)
    assert PASSWORD not in stored
    assert passwords.is_right(PASSWORD, PASSWORD)
    assert not passwords.is_right("", PASSWORD)


def test_without_a_password_a_ledger_is_shown_to_this_machine_only(show: Show, fill: Fill) -> None:
    """A server that others reach shows nothing without a login, however it was started."""
    fill(call("a", noon(1), cost_nanousd=5, project="secret"))
    for address in ("0.0.0.0", None, "192.168.1.5"):
        config.set_option("server.address", address)
        page = show()
        assert not page.metric
        assert not page.multiselect
        assert "asks for no password, so it shows nothing" in page.error[0].value
    config.set_option("server.address", "127.0.0.1")
    assert show().metric


@pytest.mark.parametrize("as_hash", [False, True])
def test_the_password_opens_every_page(show: Show, fill: Fill, monkeypatch: pytest.MonkeyPatch, as_hash: bool) -> None:
    """Nothing is shown before the password, everything after it; another password ends the session."""
    fill(call("a", noon(1), cost_nanousd=5))
    monkeypatch.setenv("LLMNB_DASHBOARD_PASSWORD", passwords.hashed(PASSWORD) if as_hash else PASSWORD)
    config.set_option("server.address", "0.0.0.0")
    page = show("calls")
    assert not page.dataframe
    page = log_in(page, PASSWORD)
    assert not page.exception
    assert len(page.dataframe) == 1
    assert page.switch_page("views/overview.py").run().metric
    monkeypatch.setenv("LLMNB_DASHBOARD_PASSWORD", "another one than before")
    assert not page.run().metric


def test_wrong_passwords_take_longer_each_time(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong password is told, and the next try waits; a right one ends that."""
    import login

    slept = list[float]()
    monkeypatch.setattr(login, "pause", slept.append)
    monkeypatch.setenv("LLMNB_DASHBOARD_PASSWORD", PASSWORD)
    page = show()
    for _ in range(3):
        page = log_in(page, "guess")
        assert "not the password" in page.error[0].value
    assert slept == [0.2, 0.4]
    page = log_in(page, PASSWORD)
    assert "No calls yet" in texts(page)
    assert slept == [0.2, 0.4, 0.8]


def test_tickets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser's ticket opens the door until it ends; no other one does, nor one for another password."""
    import login

    class Browser:
        cookies: ClassVar[dict[str, str]]

    monkeypatch.setattr(login.st, "context", Browser)
    ticket = login._ticket(PASSWORD)
    Browser.cookies = {login.COOKIE: ticket}
    assert login._has_ticket(PASSWORD)
    assert not login._has_ticket("another")
    until, _, mac = ticket.partition(".")
    for forged in ("", "x", f"{int(until) + 1}.{mac}", f"{until}.{mac[:-1]}", f"{until}.ä", f"²{until}.{mac}"):
        Browser.cookies = {login.COOKIE: forged}
        assert not login._has_ticket(PASSWORD)
    Browser.cookies = {login.COOKIE: ticket}
    now = time.time()
    monkeypatch.setattr(login.time, "time", lambda: now + login.LASTS_S + 1)
    assert not login._has_ticket(PASSWORD)


def test_the_launcher_wants_a_password_worth_the_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Short passwords, broken hashes and passwords that stand in a file are refused, also for this machine."""
    monkeypatch.chdir(tmp_path)
    for bad, said in (("short", "at least 12"), ("scrypt$1$2", "no whole hash")):
        monkeypatch.setenv("LLMNB_DASHBOARD_PASSWORD", bad)
        for host in ("0.0.0.0", "127.0.0.1"):
            with pytest.raises(SettingsError, match=said):
                refuse_open_doors(host)
    monkeypatch.delenv("LLMNB_DASHBOARD_PASSWORD")
    project = tmp_path / "pyproject.toml"
    project.write_text(f'[tool.llmnb]\ndashboard_password = "{PASSWORD}"\n')
    with pytest.raises(SettingsError, match="where others may read it"):
        refuse_open_doors("0.0.0.0")
    project.write_text(f"[tool.llmnb]\ndashboard_password = '{new_hash(PASSWORD)}'\n")
    refuse_open_doors("0.0.0.0")
    with pytest.raises(SettingsError, match="at least 12"):
        new_hash("short")


def test_oidc_needs_to_know_who_may_look(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With st.login configured the users must be named, and Authlib installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / ".streamlit").mkdir()
    (tmp_path / ".streamlit" / "secrets.toml").write_text(AUTH)
    with pytest.raises(InvalidRequest, match="LLMNB_DASHBOARD_USERS"):
        refuse_open_doors("0.0.0.0")
    monkeypatch.setenv("LLMNB_DASHBOARD_USERS", "@example.org")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InvalidRequest, match="Authlib"):
        refuse_open_doors("0.0.0.0")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    refuse_open_doors("0.0.0.0")


@pytest.mark.parametrize(
    ("user", "may_see"),
    [
        ({}, False),
        ({"email": "ann@example.org"}, True),
        ({"email": "Ann@Example.org"}, True),
        ({"email": "bob@team.org"}, True),
        ({"email": "eve@example.org"}, False),
        ({"email": "eve@evilteam.org"}, False),
        ({"email": "ann@example.org", "email_verified": False}, False),
    ],
)
def test_oidc_lets_in_whom_it_names(monkeypatch: pytest.MonkeyPatch, user: dict[str, object], may_see: bool) -> None:
    """Whole addresses and whole domains, whatever their case, and none that the provider has not verified."""
    import login

    class User(dict[str, object]):
        is_logged_in = bool(user)

    monkeypatch.setattr(login.st, "user", User(user))
    assert login._is_known("ann@example.org, @team.org") is may_see


def test_others_reach_it_behind_a_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a password the server listens everywhere, under whatever name it is reached."""
    monkeypatch.setenv("LLMNB_DASHBOARD_PASSWORD", PASSWORD)
    with launch(host="0.0.0.0", ledger=tmp_path / "ledger.db") as dashboard:
        address = urlsplit(dashboard.url)
        assert address.hostname == "127.0.0.1"
        with closing(http.client.HTTPConnection("127.0.0.2", address.port, timeout=10)) as connection:
            connection.request("GET", "/_stcore/health", headers={"Host": "books.example", "Connection": "close"})
            assert connection.getresponse().read() == b"ok"
