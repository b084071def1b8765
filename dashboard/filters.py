"""The one filter bar: period, projects, models, and providers, users and tags where there are some.

It lives in the URL, so that a view can be bookmarked and shared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime

import period as periods
import streamlit as st
from period import Period

NOBODY = {
    "project": "(no project)",
    "model": "(no model answered)",
    "provider": "(no provider)",
    "user": "(no user)",
    "tag": "(no tag)",
    "notebook": "(no notebook)",
}
"""What a filter or a table shows for the rows that have no such value."""
DIMENSIONS = ("project", "model", "provider", "user", "tag")
"""What the bar filters by: what roll-ups hold, so that every page stays quick."""
_ALWAYS = ("project", "model")
_OF_PAGES: dict[str, object] = {"status": [], "source": [], "find": ""}
"""What single pages narrow their calls by, and how that is reset."""


@dataclass(frozen=True, slots=True)
class Filters:
    """What the page shall be about."""

    period: Period
    where: dict[str, list[str | None]]

    @property
    def narrowed(self) -> bool:
        """Whether projects or models are left out."""
        return bool(self.where)


def bar(
    choices: dict[str, Sequence[str | None]],
    *,
    now: datetime,
    first: Callable[[], datetime | None],
) -> Filters:
    """Draw the filter bar and say what is chosen.

    `choices` are the values there are, by dimension; `first` finds the oldest call, and is asked only for "All".
    """
    with st.container(horizontal=True, vertical_alignment="center", key="filters"):
        preset = st.segmented_control(
            "Period",
            periods.PRESETS,
            default=periods.DEFAULT,
            required=True,
            key="period",
            bind="query-params",
            label_visibility="collapsed",
            wrap=True,
        )
        dates = _dates(now) if preset == "Custom" else ()
        where = {name: _chosen(name, choices[name]) for name in DIMENSIONS if _is_a_choice(name, choices[name])}
    oldest = first() if preset == "All" else None
    period = periods.period_of(preset or periods.DEFAULT, dates, now=now, first=oldest)
    return Filters(period, {dimension: values for dimension, values in where.items() if values})


def reset() -> None:
    """Back to what an untouched page shows (a callback); set and not deleted, or the URL would fill them again."""
    st.session_state["period"] = periods.DEFAULT
    for dimension in DIMENSIONS:
        st.session_state[dimension] = []
    for name, empty in _OF_PAGES.items():
        if name in st.session_state:
            st.session_state[name] = empty


def _is_a_choice(dimension: str, values: Sequence[str | None]) -> bool:
    """Whether there is something to choose; whoever works alone is not asked for a user."""
    asked = st.query_params.get_all(dimension) or st.session_state.get(dimension)
    return dimension in _ALWAYS or len(values) > 1 or bool(asked)


def _dates(now: datetime) -> tuple[date, ...]:
    chosen = st.date_input(
        "Days",
        value=(),
        max_value=now.date(),
        key="dates",
        bind="query-params",
        format="YYYY-MM-DD",
        width=270,
        label_visibility="collapsed",
    )
    return tuple(chosen)


def _chosen(dimension: str, values: Sequence[str | None]) -> list[str | None]:
    """The chosen values of a dimension; none chosen means all of them.

    A value from the URL that the ledger does not know stays chosen: dropping it would show the totals of everything
    under a link that was about one project.
    """
    nobody = NOBODY[dimension]
    named = [nobody if value is None else value for value in values]
    asked = [*st.query_params.get_all(dimension), *st.session_state.get(dimension, [])]
    options = list(dict.fromkeys([*named, *(value for value in asked if value)]))
    chosen = st.multiselect(
        dimension.capitalize(),
        options,
        key=dimension,
        bind="query-params",
        placeholder=f"All {dimension}s",
        label_visibility="collapsed",
    )
    return [None if value == nobody else value for value in chosen]
