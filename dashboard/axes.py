"""What the charts have in common: steps of time on the wall clock, dollars, and colours by name."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pandas as pd
from period import Step, floor

Spec = dict[str, Any]

_WHEN = {"hour": "%H:%M", "day": "%-d %b", "week": "%-d %b", "month": "%b %Y"}


def bars_along(grid: Sequence[datetime], step: Step) -> Spec:
    """The axis of bars in time: a place for each step, also where there is no bar."""
    scale = {"domain": [text(at) for at in grid], "paddingInner": 0.25}
    return {"field": "at", "type": "ordinal", "scale": scale, "axis": _time_axis(grid, step)}


def walls(steps: pd.DataFrame, step: Step) -> pd.Series:
    """The step each row belongs to, as the text of its beginning on the wall clock."""
    return steps["at"].map(lambda at: text(floor(at.replace(tzinfo=None), step)))


def text(at: datetime) -> str:
    """A step as the charts' data write it."""
    return at.strftime("%Y-%m-%dT%H:%M")


def spoken(at: datetime, step: Step) -> str:
    """A step as a person says it."""
    if step == "hour":
        return f"{at:%a} {at.day} {at:%b}, {at:%H:%M}"
    return {"day": f"{at:%a} {at.day} {at:%b %Y}", "week": f"from {at.day} {at:%b %Y}"}.get(step, f"{at:%B %Y}")


def dollar_format(highest: float) -> str:
    """Whole dollars, cents, or as many digits as it takes."""
    return "$,.0f" if highest >= 20 else "$,.2f" if highest >= 0.1 else "$.2~r"


def named_colors(names: Sequence[str], colors: Sequence[str], field: str = "name") -> Spec:
    """The colour of each name, with the legend below."""
    legend = {"orient": "bottom", "columns": 2, "labelLimit": 180, "symbolType": "square", "offset": 4, "padding": 0}
    return {
        "field": field,
        "type": "nominal",
        "scale": {"domain": list(names), "range": list(colors)},
        "legend": {"title": None, **legend},
    }


def _time_axis(grid: Sequence[datetime], step: Step) -> Spec:
    every = max(1, -(-len(grid) // 8))
    return {
        "title": None,
        "values": [text(at) for at in grid[(len(grid) - 1) % every :: every]],
        "labelExpr": f"utcFormat(utcParse(datum.value, '%Y-%m-%dT%H:%M'), '{_WHEN[step]}')",
        "labelAngle": 0,
        "labelOverlap": "greedy",
        "ticks": False,
        "grid": False,
    }
