"""Whether the dashboard may be served to other machines: only behind a password or an OIDC login."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from typing import Any

from llmnb import passwords
from llmnb.errors import InvalidRequest, SettingsError
from llmnb.settings import find_pyproject, load

LOOPBACK = ("127.0.0.1", "localhost", "::1")
"""Addresses that only this machine reaches."""


def refuse_open_doors(host: str) -> None:
    """Returns where `host` may be listened on.

    Raises:
        InvalidRequest: other machines reach it, and nothing protects it.
        SettingsError: the password is too short, no hash, or readable in a file.
    """
    chosen = load()
    if chosen.dashboard_password is not None:
        _check_password(chosen.dashboard_password)
    if host in LOOPBACK or chosen.dashboard_password:
        return
    if _oidc():
        _check_oidc(chosen.dashboard_users)
        return
    raise InvalidRequest(
        f"host {host!r} can be reached from other machines, and nothing protects the dashboard. Set a password: "
        "LLMNB_DASHBOARD_PASSWORD, as it is or as `llmnb dashboard --hash-password` prints it; or configure an OIDC "
        "login ([auth] in .streamlit/secrets.toml) and LLMNB_DASHBOARD_USERS. To see it from another machine without "
        "either, leave out --host and forward its port: ssh -L 8520:127.0.0.1:8520 USER@THIS-MACHINE"
    )


def new_hash(password: str) -> str:
    """The hash of a password for the settings.

    Raises:
        SettingsError: it is too short.
    """
    _check_length(password)
    return passwords.hashed(password)


def _check_password(stored: str) -> None:
    if stored.startswith(passwords.PREFIX):
        try:
            passwords.parts(stored)
        except ValueError:
            raise SettingsError(
                "dashboard_password is no whole hash: copy the line that `llmnb dashboard --hash-password` prints, in "
                "single quotes where a shell reads it",
                name="dashboard_password",
            ) from None
        return
    if _in_pyproject() == stored:
        raise SettingsError(
            "dashboard_password stands in pyproject.toml as it is, where others may read it: write its hash there "
            "(`llmnb dashboard --hash-password`), or set LLMNB_DASHBOARD_PASSWORD instead",
            name="dashboard_password",
        )
    _check_length(stored)


def _check_length(password: str) -> None:
    if len(password) < passwords.SHORTEST:
        raise SettingsError(
            f"the dashboard's password must have at least {passwords.SHORTEST} characters: others can try it",
            name="dashboard_password",
        )


def _in_pyproject() -> object:
    found = find_pyproject()
    tables = {} if found is None else tomllib.loads(found.read_text(encoding="utf-8"))
    return tables.get("tool", {}).get("llmnb", {}).get("dashboard_password")


def _oidc() -> dict[str, Any]:
    """The [auth] table that `st.login` reads: of the working directory, else of the home folder."""
    for folder in (Path.cwd(), Path.home()):
        try:
            text = (folder / ".streamlit" / "secrets.toml").read_text(encoding="utf-8")
            table = tomllib.loads(text).get("auth")
        except (OSError, tomllib.TOMLDecodeError):
            continue
        if table:
            return dict(table)
    return {}


def _check_oidc(users: str | None) -> None:
    if not users:
        raise InvalidRequest(
            "an OIDC login lets in everybody whom the provider knows: say who may see the dashboard, with "
            "LLMNB_DASHBOARD_USERS=ann@example.org or LLMNB_DASHBOARD_USERS=@example.org"
        )
    if importlib.util.find_spec("authlib") is None:
        raise InvalidRequest("an OIDC login needs Authlib: pip install 'streamlit[auth]'")
