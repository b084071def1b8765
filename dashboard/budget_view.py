"""Budgets, drawn: a bar for how much is spent, the line of what is left, the form that sets one."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import clock
import figures
import filters
import streamlit as st

from llmnb.budgeting import Budget, BudgetStatus, course, remove_budget, set_budget
from llmnb.budgeting.budget import ACTIONS, PERIODS
from llmnb.ledger.zones import from_us

CALM, WARNED, SPENT = "#18B6A4", "#F2994A", "#E5484D"
ANY = "any"


def amount(budget: Budget, value: int) -> str:
    """Nano-dollars or tokens, as the budget's unit says."""
    return figures.money(value) if budget.unit == "usd" else f"{figures.compact(value)} tokens"


def color(status: BudgetStatus) -> str:
    """Calm, warned of, spent."""
    return SPENT if status.share >= 1 else WARNED if status.share >= 0.8 else CALM


def bar(status: BudgetStatus) -> None:
    """What is spent of a budget, held and left, as one line of text over a bar."""
    budget = status.budget
    spent, limit = amount(budget, status.spent_amount), amount(budget, budget.allowance)
    held = f", {amount(budget, status.held_amount)} held" if status.held_amount else ""
    when = status.resets_at
    anew = f" · anew {when:%a} {when.day} {when:%b, %H:%M}" if when else ""
    scope = figures.plain(budget.scope.replace("'", "") or "everything")
    st.markdown(f"**{scope}** · {figures.plain(f'{spent} of {limit} {_per(budget)}{held}{anew}')}")
    held_too = (status.spent_amount + status.held_amount) / budget.allowance if budget.allowance else 1
    percent = round(min(status.share, 1) * 100)
    st.html(
        f'<div class="llmnb-bar" role="progressbar" aria-label="{status.share:.0%} spent" aria-valuenow="{percent}"'
        f' aria-valuemin="0" aria-valuemax="100"><i style="width:{min(held_too, 1):.2%}"></i>'
        f'<b style="width:{min(status.share, 1):.2%};background:{color(status)}"></b></div>'
    )


def burn_down(status: BudgetStatus) -> None:
    """What is left over the current period, against spending it evenly."""
    budget = status.budget
    period = budget.period(status.at_us)
    rows = course(status)
    if budget.per == "total":
        st.caption("It counts for all time, so there is no pace to hold it against.")
        return
    start, now = (from_us(us or 0, budget.zone) for us in (period.start_us, status.at_us))
    end = now if period.end_us is None else from_us(period.end_us, budget.zone)
    points = [(start, budget.allowance), *zip(rows["at"], rows["left"], strict=True), (now, _left(status))]
    left = [_point(budget, at, int(value)) for at, value in points]
    even = [] if period.end_us is None else [_point(budget, start, budget.allowance), _point(budget, end, 0)]
    when = "%-d %b" if budget.per in ("week", "month") else "%H:%M"
    spec = _lines(left, even, color(status), "$,.2~f" if budget.unit == "usd" else "~s", when)
    st.vega_lite_chart(spec=spec, width="stretch", key=f"burn-{budget.id}", alt=f"What is left of budget {budget.id}")
    if even:
        st.caption("The dashed line is spending it evenly. " + _pace(status, start, now, end))


def _left(status: BudgetStatus) -> int:
    return max(0, status.budget.allowance - status.spent_amount)


def _pace(status: BudgetStatus, start: datetime, now: datetime, end: datetime) -> str:
    """When it runs out, if it goes on like this."""
    passed, whole = (now - start).total_seconds(), (end - start).total_seconds()
    if not status.spent_amount or passed < 0.02 * whole:
        return ""
    if status.share >= 1:
        return "It is spent."
    out = start + (now - start) / status.share
    if out >= end:
        return "At this pace it lasts."
    return f"At this pace it is spent on {out:%a} {out.day} {out:%b at %H:%M}."


def _point(budget: Budget, at: datetime, value: int) -> dict[str, Any]:
    unit = value / 1e9 if budget.unit == "usd" else value
    when = f"{at:%a} {at.day} {at:%b, %H:%M}"
    return {"at": f"{at:%Y-%m-%dT%H:%M:%S}", "left": unit, "said": amount(budget, value), "when": when}


def _lines(left: Sequence[Any], even: Sequence[Any], paint: str, format: str, when: str) -> dict[str, Any]:
    # wall-clock text read as UTC: a browser elsewhere must not move it to another hour
    x = {
        "field": "at",
        "type": "temporal",
        "timeUnit": "utcyearmonthdatehoursminutes",
        "axis": {
            "title": None,
            "tickCount": 5,
            "grid": False,
            "labelOverlap": "greedy",
            "labelFlush": True,
            "format": when,
        },
    }
    y = {"field": "left", "type": "quantitative", "axis": {"title": None, "tickCount": 4, "format": format}}
    tooltip = [{"field": "when", "title": "At"}, {"field": "said", "title": "Left"}]
    encoding = {"x": x, "y": y}
    stretch = {"parse": {"at": "utc:'%Y-%m-%dT%H:%M:%S'"}}
    mark = {"type": "area", "interpolate": "step-after", "line": {"color": paint}, "color": paint, "opacity": 0.25}
    return {
        "height": 170,
        "layer": [
            {
                "data": {"values": list(left), "format": stretch},
                "mark": mark,
                "encoding": {**encoding, "tooltip": tooltip},
            },
            {
                "data": {"values": list(even), "format": stretch},
                "mark": {"type": "line", "strokeDash": [4, 4], "color": "#8A93A6", "strokeWidth": 1.5},
                "encoding": encoding,
            },
        ],
    }


def _per(budget: Budget) -> str:
    return {"rolling 24h": "in any 24 hours", "total": "in total"}.get(budget.per, f"a {budget.per}").replace(
        "a hour", "an hour"
    )


# Setting, editing, removing -------------------------------------------------------------------------------------------


def new_form(choices: dict[str, Sequence[str | None]]) -> None:
    """The form of a new budget."""
    with st.form("new-budget", border=False):
        first = st.columns(4)
        unit = first[0].selectbox("In", ["dollars", "tokens"], key="budget-unit")
        whole = "Dollars, such as 5 or 0.25; tokens as a whole number."
        limit = first[1].text_input("Limit", placeholder="5 or 0.25", key="budget-limit", help=whole)
        per = first[2].selectbox("Per", PERIODS, index=1, key="budget-per", help="Cut in the reporting timezone.")
        action = first[3].selectbox("When it is spent", ACTIONS, key="budget-action", help=ACTION_HELP)
        scope: dict[str, str | None] = {}
        for column, name in zip(st.columns(4), ("project", "user", "model", "notebook"), strict=True):
            options = [ANY, *(value for value in choices.get(name, ()) if value)]
            help = "* stands for anything, as in claude-opus-*" if name == "model" else None
            scope[name] = column.selectbox(
                f"For {name}", options, key=f"budget-{name}", accept_new_options=True, help=help
            )
        allowed = st.text_input("Models that may go without a price", placeholder="llama, my-*", key="budget-unpriced")
        if st.form_submit_button("Set budget", type="primary"):
            given = {name: value for name, value in scope.items() if value and value != ANY}
            _set(unit, limit, per=per, action=action, allow_unpriced=_names(allowed), **given)


ACTION_HELP = "stop: a call that does not fit is not sent, and a stream is cut off at the line. warn: it only warns."


def edit_form(budget: Budget) -> None:
    """The form that changes a budget's limit and action; its period and scope are what it is."""
    with st.form(f"edit-{budget.id}", border=False):
        limit = st.text_input("Limit", value=_plain(budget), key=f"limit-{budget.id}")
        at = ACTIONS.index(budget.action)
        action = st.selectbox("When it is spent", ACTIONS, index=at, key=f"action-{budget.id}", help=ACTION_HELP)
        allowed = st.text_input(
            "Models that may go without a price", value=", ".join(budget.unpriced), key=f"unpriced-{budget.id}"
        )
        if st.form_submit_button("Save"):
            scope = {name: getattr(budget, name) for name in ("project", "user", "model", "notebook")}
            unit = "dollars" if budget.unit == "usd" else "tokens"
            _set(unit, limit, per=budget.per, action=action, allow_unpriced=_names(allowed), **scope)


def remove_button(budget: Budget) -> None:
    """Removes a budget, after it was asked for twice."""
    with st.popover("Remove", type="tertiary", icon=":material/delete:"):
        st.write("The books keep what was spent; calls are no longer held against this budget.")
        if st.button("Remove it", key=f"remove-{budget.id}", type="primary"):
            remove_budget(budget.id)
            st.rerun()


def _set(unit: str, limit: str, **arguments: Any) -> None:
    """Set the budget in the way `llmnb budget set` does; what is wrong with it is told in a sentence."""
    text = limit.strip().lstrip("$").replace(",", "").replace("_", "")
    if unit == "tokens":
        status = set_budget(tokens=int(text) if text.isdecimal() else text, **arguments)  # refused there, in words
    else:
        status = set_budget(usd=text, **arguments)
    st.session_state["budget-said"] = str(status)
    st.rerun()


def _plain(budget: Budget) -> str:
    return format(budget.limit.normalize(), "f") if budget.unit == "usd" else str(budget.limit)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def concerned(found: Sequence[BudgetStatus], chosen: filters.Filters) -> list[BudgetStatus]:
    """The budgets that calls of the filter bar's projects, users and models can belong to."""
    kept: list[BudgetStatus] = []
    for status in found:
        budget = status.budget
        wanted = {name: chosen.where[name] for name in ("project", "user") if name in chosen.where}
        fits = all(getattr(budget, name) is None or getattr(budget, name) in values for name, values in wanted.items())
        models = chosen.where.get("model")
        of_model = budget.model is None or not models
        facts = {name: getattr(budget, name) for name in ("project", "user", "notebook")}
        of_model = of_model or any(budget.concerns({**facts, "model": name}) for name in models or ())
        if fits and of_model:
            kept.append(status)
    return kept


def clock_of(budget: Budget) -> str:
    """The timezone of a budget's periods, where it is not the one the pages speak in."""
    name = budget.zone_name()
    return "" if name == getattr(clock.zone(), "key", None) else f"Its periods begin in {name}."
