"""Who may see the dashboard: everybody on this machine, unless it is protected; then whoever has logged in.

A password is asked for where one is set, and `st.login` where that is configured. Without either, nothing is shown to
an address that other machines can reach, however the server was started.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
import time

import streamlit as st

from llmnb import passwords, settings

LOOPBACK = ("127.0.0.1", "localhost", "::1")
COOKIE = "llmnb_dashboard"
LASTS_S = 12 * 3600
_SLOWEST_S = 5.0
pause = time.sleep


class _Door:
    """What this process knows: a key of its own, and how often a wrong password came since the last right one."""

    def __init__(self) -> None:
        self.key = secrets.token_bytes(32)
        self.failures = 0
        self.lock = threading.Lock()

    def is_right(self, password: str, stored: str) -> bool:
        """One try at a time, and each after a wrong one later: a network cannot try many."""
        with self.lock:
            if self.failures:
                pause(min(0.1 * 2**self.failures, _SLOWEST_S))
            right = passwords.is_right(password, stored)
            self.failures = 0 if right else min(self.failures + 1, 10)
            return right


@st.cache_resource
def _door() -> _Door:
    return _Door()


def passed() -> bool:
    """Whether this visitor may see the pages."""
    chosen = settings.load()
    if not chosen.dashboard_password and not oidc():
        return st.get_option("server.address") in LOOPBACK
    if oidc() and chosen.dashboard_users and _is_known(chosen.dashboard_users):
        return True
    stored = chosen.dashboard_password
    return bool(stored) and (st.session_state.get("may-see") == _seal(stored) or _has_ticket(stored))


def ask() -> None:
    """Draw what a visitor sees who may not see the pages."""
    chosen = settings.load()
    with st.container(border=True, key="login", width=420):
        st.subheader("llmnb dashboard", anchor=False)
        if oidc() and chosen.dashboard_users:
            _ask_oidc()
        if chosen.dashboard_password:
            _ask_password(chosen.dashboard_password)
        if not chosen.dashboard_password and not (oidc() and chosen.dashboard_users):
            st.error(
                "This dashboard can be reached from other machines and asks for no password, so it shows nothing. "
                "Set LLMNB_DASHBOARD_PASSWORD, or start it with `llmnb dashboard`, which listens to this machine only.",
                icon=":material/lock:",
            )


def _ask_password(stored: str) -> None:
    with st.form("password", border=False):
        given = st.text_input("Password", type="password", key="password")
        if not st.form_submit_button("Log in", type="primary"):
            return
    if _door().is_right(given, stored):
        st.session_state["may-see"] = _seal(stored)
        st.session_state["ticket"] = _ticket(stored)
        st.rerun()
    st.error("That is not the password.", icon=":material/lock:")


def leave_ticket() -> None:
    """Have the browser keep that it has logged in, so that a reload need not ask again."""
    if ticket := st.session_state.pop("ticket", None):
        secure = "; Secure" if (st.context.url or "").startswith("https:") else ""
        cookie = f"{COOKIE}={ticket}; Path=/; Max-Age={LASTS_S}; SameSite=Strict{secure}"
        st.html(f"<script>document.cookie = {cookie!r};</script>", unsafe_allow_javascript=True)


def _ticket(stored: str) -> str:
    until = int(time.time()) + LASTS_S
    return f"{until}.{_mac(stored, str(until))}"


def _has_ticket(stored: str) -> bool:
    kept = st.context.cookies.get(COOKIE)
    until, _, mac = (kept if isinstance(kept, str) else "").partition(".")
    return (
        until.isascii()
        and until.isdecimal()
        and int(until) > time.time()
        and hmac.compare_digest(mac.encode(), _mac(stored, until).encode())
    )


def _seal(stored: str) -> str:
    """Of the password itself, so that a session ends when it is changed."""
    return _mac(stored, "session")


def _mac(stored: str, text: str) -> str:
    return hmac.new(_door().key, f"{stored}\0{text}".encode(), hashlib.sha256).hexdigest()


# OIDC -----------------------------------------------------------------------------------------------------------------


def oidc() -> bool:
    """Whether `st.login` is configured, in .streamlit/secrets.toml."""
    try:
        return bool(st.secrets.get("auth"))
    except FileNotFoundError:
        return False


def _is_known(users: str) -> bool:
    address = str(st.user.get("email") or "").lower() if st.user.is_logged_in else ""
    if not address or st.user.get("email_verified") is False:
        return False
    wanted = [user.strip().lower() for user in users.split(",") if user.strip()]
    return any(address.endswith(user) if user.startswith("@") else address == user for user in wanted)


def _ask_oidc() -> None:
    if st.user.is_logged_in:
        st.error(f"{st.user.get('email')} may not see this dashboard (LLMNB_DASHBOARD_USERS).", icon=":material/lock:")
        st.button("Log out", on_click=st.logout)
        return
    st.button("Log in", type="primary", on_click=st.login)
