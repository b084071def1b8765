"""Projects & notebooks: who and what spent how much, the dearest sessions, and which cell costs most."""

from __future__ import annotations

import books
import charts
import figures
import filters
import frame
import pandas as pd
import states
import streamlit as st
import tables

NAMES = {"project": "Project", "notebook": "Notebook", "user": "User", "tag": "Tag"}
BARS = 12
ROWS = 200
TOP = 10


def page() -> None:
    """Spend by one name, then the dearest sessions and cells."""
    chosen = frame.view().chosen
    name = st.segmented_control(
        "By", list(NAMES), default="project", required=True, key="by", bind="query-params", format_func=str
    )
    name = name or "project"
    quick, note = books.quick(chosen) if name == "notebook" else (chosen, "")
    usage = books.usage(quick, [name])
    totals = books.totals(usage)
    with frame.view().head:
        states.badges(totals)
    if not totals.calls:
        states.no_match(chosen)
        return
    named = usage[name].fillna(filters.NOBODY[name])
    left, right = st.columns([2, 3], gap="medium")
    with left.container(border=True, height="stretch"):
        st.markdown(f"**Spend by {name}**")
        spec = charts.bars(named[:BARS], usage["cost_nanousd"][:BARS], NAMES[name])
        st.vega_lite_chart(spec=spec, width="stretch", key="by-name", alt=f"Spend by {name}")
        if len(usage) > BARS:
            st.caption(f"The {BARS} dearest of {figures.count(len(usage))}.")
    with right:
        tables.by_name(usage[:ROWS].assign(name=named[:ROWS]), NAMES[name])
        rest = f"The {ROWS} dearest of {figures.count(len(usage))}. " if len(usage) > ROWS else ""
        if rest or note:
            st.caption(rest + note)
    deepest(chosen)


def deepest(chosen: filters.Filters) -> None:
    """The sessions and the cells that cost most."""
    quick, note = books.quick(chosen)
    # two looks at the rows: sessions by cells are so many groups that adding them up again takes longer
    sessions = books.usage(quick, ["session", "notebook"], tables.DEAREST)
    sessions = sessions[sessions["session"].notna()][:TOP]
    cells = books.usage(quick, ["notebook", "cell"], tables.DEAREST)
    cells = cells[cells["cell"].notna()][:TOP]
    left, right = st.columns(2, gap="medium")
    with left:
        st.subheader("Dearest sessions", anchor=False)
        where = pd.DataFrame({"session": sessions["session"], "notebook": _short(sessions["notebook"])})
        tables.dearest(where, sessions)
        st.caption("A session is a kernel or a script, from its start to its end. " + note)
    with right:
        st.subheader("Dearest cells", anchor=False)
        if cells.empty:
            st.caption("No call of this period came from a cell that is known: Jupyter tells it, scripts have none.")
            return
        where = pd.DataFrame({"notebook": _short(cells["notebook"]), "cell": cells["cell"]})
        tables.dearest(where, cells)
        st.caption("A cell by the id it has in its notebook, over all its runs.")


def _short(notebooks: pd.Series) -> pd.Series:
    return notebooks.map(lambda name: figures.NOT_KNOWN if pd.isna(name) else str(name).rsplit("/", 1)[-1])


page()
