"""Calls: every call on the books, a page at a time; one of them opened, with its cost worked out line by line."""

from __future__ import annotations

import call_view
import filters
import frame
import states
import streamlit as st
import tables
from books import location

from llmnb import ledger
from llmnb.errors import InvalidRequest

PAGE = 50
STATUSES = ("ok", "error", "truncated", "interrupted", "cancelled", "running")
SOURCES = ("live", "cache", "replay")
CURSORS = ("before", "after")


def page() -> None:
    """The explorer; a call named in the URL is opened over it."""
    chosen = frame.view().chosen
    where = {**chosen.where, **narrowed()}
    asked = (chosen.period.name, str(sorted(where.items(), key=str)))
    if st.session_state.setdefault("calls-asked", asked) != asked:  # other calls begin at their newest
        st.session_state["calls-asked"] = asked
        turn()
    cursor = {name: st.query_params[name] for name in CURSORS if name in st.query_params}
    try:
        rows = ledger.calls(
            chosen.period.since, chosen.period.until, where=where, limit=PAGE + 1, path=location(), **cursor
        )
    except InvalidRequest:  # the call of an old link is gone
        turn()
        st.rerun()
    more = len(rows) > PAGE
    upwards = "after" in cursor
    rows = rows.iloc[-PAGE:] if upwards else rows.iloc[:PAGE]
    if rows.empty and not cursor:
        states.no_match(filters.Filters(chosen.period, where))
    else:
        uids = rows["uid"].tolist()
        tables.calls(rows, key=f"calls-{cursor}", on_select=lambda: opened(f"calls-{cursor}", uids))
        pages(uids, newer=bool(cursor) and (not upwards or more), older=more or upwards)
    if uid := st.query_params.get("call"):
        call_view.show(uid, on_dismiss=closed)


def narrowed() -> dict[str, object]:
    """What this page narrows the calls by beyond the filter bar; in the URL, too."""
    with st.container(horizontal=True, vertical_alignment="center", key="narrow"):
        look = {"label_visibility": "collapsed", "bind": "query-params"}
        status = st.multiselect("Status", STATUSES, key="status", placeholder="Any status", **look)
        source = st.multiselect("Source", SOURCES, key="source", placeholder="Any source", **look)
        found = st.text_input("Find", key="find", placeholder="Request id, uid, notebook or session", **look).strip()
    where: dict[str, object] = {}
    if status:
        where["status"] = status
    if source:
        where["source"] = source
    if found:
        where[_column(found)] = [found]
    return where


def _column(text: str) -> str:
    """Which column a text that was looked for belongs to, told by its form."""
    if text.startswith("req_"):
        return "request_id"
    if "." in text:
        return "notebook"
    return "session" if text.count(":") >= 3 else "uid"


def pages(uids: list[str], *, newer: bool, older: bool) -> None:
    """The way to older and newer calls: from the last or first one shown, never by counting."""
    with st.container(horizontal=True, vertical_alignment="center", key="pages"):
        look = {"type": "tertiary", "on_click": turn}
        st.button("Newest", icon=":material/first_page:", disabled=not newer, **look)
        first, last = (uids[0], uids[-1]) if uids else ("", "")
        newer, older = newer and bool(uids), older and bool(uids)
        st.button("Newer", icon=":material/chevron_left:", disabled=not newer, kwargs={"after": first}, **look)
        st.button("Older", icon=":material/chevron_right:", disabled=not older, kwargs={"before": last}, **look)
        st.caption(f"{len(uids)} calls shown. Choose one to open it.", width="content")


def turn(**cursor: str) -> None:
    """Go on from a call (a callback); without one, to the newest."""
    for name in CURSORS:
        st.query_params.pop(name, None)
    st.query_params.update(cursor)


def opened(key: str, uids: list[str]) -> None:
    """A row was chosen (a callback)."""
    if rows := st.session_state[key].selection.rows:
        st.query_params["call"] = uids[rows[0]]


def closed() -> None:
    """The call that was open was closed (a callback)."""
    st.query_params.pop("call", None)


page()
