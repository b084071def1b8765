"""What stands above every page: its title, what it is about, the filter bar. A page asks `view()` for what was chosen.

The bar is drawn by the frame and not by the pages, so that a change of page keeps it, and the URL, as they are.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import books
import clock
import filters
import period as periods
import states
import streamlit as st
from period import Period


@dataclass(frozen=True, slots=True)
class View:
    """What the page is about, the moment it is drawn at, and the line of its title, where badges go."""

    chosen: filters.Filters
    now: datetime
    head: Any


_view: ContextVar[View] = ContextVar("view")


def view() -> View:
    """What the frame around the running page has drawn (not for fragments, which run without it)."""
    return _view.get()


def draw(title: str, *, works_empty: bool, compares: bool) -> bool:
    """Draw the frame; False where there is nothing to show yet, and the page cannot do without calls.

    `compares` says whether the page holds its period against the one before.
    """
    head = st.container(horizontal=True, vertical_alignment="center", key="head")
    head.title(title, anchor=False, width="content")
    now = clock.now()
    if books.is_empty():
        with head:
            states.about_the_books()
        if not works_empty:
            states.no_calls()
            return False
        _view.set(View(filters.Filters(periods.period_of(periods.DEFAULT, (), now=now), {}), now, head))
        return True
    chosen = filters.bar(books.choices(), now=now, first=books.first_call)
    marks = head.container(horizontal=True, vertical_alignment="center", width="content", key="marks")
    with head:
        st.space("stretch")
        st.caption(
            _scope(chosen.period, clock.zone_name(now), compares=compares), width="content", help=_in_python(chosen)
        )
    with marks:
        states.about_the_books()
    _view.set(View(chosen, now, marks))
    return True


def _scope(period: Period, zone_name: str, *, compares: bool) -> str:
    """What the figures are about and held against, and whose midnight it is."""
    against = f" vs {period.against}" if period.before and compares else ""
    return f"{period.name[0].upper()}{period.name[1:]}{against} · {zone_name}"


def _in_python(chosen: filters.Filters) -> str:
    """The call that sums up the same: `usage("7d")` counts back from this very moment, the page from a midnight."""
    ends = [end for end in (chosen.period.since, chosen.period.until) if end]
    arguments = [f'"{end:%Y-%m-%dT%H:%M}"'.replace("T00:00", "") for end in ends]
    where = [f"where={chosen.where!r}"] if chosen.narrowed else []
    return f"The same in Python: `llmnb.usage({', '.join([*arguments, 'by=[]', *where])})`"
