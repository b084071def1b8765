"""The frame around every page: the name, the look, the navigation, the filter bar."""

from __future__ import annotations

from pathlib import Path

import books
import frame
import login
import streamlit as st

HERE = Path(__file__).parent


def page(name: str, title: str, icon: str, **more: bool) -> st.Page:
    """A page of the navigation; its file is views/<name>.py.

    Not pages/: Streamlit takes a folder of that name for the whole navigation, and the first visitor of a server who
    comes by a link to a page would get it without this frame.
    """
    return st.Page(HERE / "views" / f"{name}.py", title=title, icon=f":material/{icon}:", **more)


PAGES = [
    page("overview", "Overview", "monitoring", default=True),
    page("models", "Models", "speed"),
    page("caching", "Caching", "cached"),
    page("projects", "Projects & notebooks", "folder_open"),
    page("calls", "Calls", "list_alt"),
    page("errors", "Errors & limits", "error"),
    page("budgets", "Budgets", "account_balance_wallet"),
    page("prices", "Prices & data", "sell"),
]

st.set_page_config(page_title="llmnb", page_icon=str(HERE / "mark.svg"), layout="wide")
st.html(HERE / "look.css")
st.logo(str(HERE / "logo.svg"), size="large")
with books.in_plain_words():
    may_see = login.passed()
    chosen = st.navigation(PAGES, position="top" if may_see else "hidden")
    if may_see:
        login.leave_ticket()
        where = chosen.url_path
        if frame.draw(chosen.title, works_empty=where in ("budgets", "prices"), compares=not where):
            chosen.run()
    else:
        login.ask()
