"""The charts, as Vega-Lite specifications.

Written out rather than through Altair, which draws the same but takes up to 1.5 s to import: half of the wait for the
first chart. Times on an axis are wall-clock text, read and written as UTC: a browser elsewhere must not move a call to
another day.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import axes
import figures
import pandas as pd
from axes import Spec
from books import TOKEN_CLASSES
from filters import NOBODY
from period import Step

MODELS_SHOWN = 8
"""More colours than this cannot be told apart; the smaller models are stacked as one."""
OTHERS = "other models"
PALETTE = ("#5B7FFF", "#18B6A4", "#F2994A", "#B06CF0", "#E5608F", "#3FA7E0", "#8FB339", "#C98A5B", "#8A93A6")
"""Readable on white and on near-black alike; the last one is for the others."""

_CLASSES = {
    "input_tokens": ("Uncached input", "#5B7FFF"),
    "cache_read_tokens": ("Cache read", "#18B6A4"),
    "cache_write_5m_tokens": ("Cache write, 5 min", "#F2994A"),
    "cache_write_1h_tokens": ("Cache write, 1 h", "#D9792B"),
    "cache_write_unsplit_tokens": ("Cache write, TTL unknown", "#C98A5B"),
    "output_tokens": ("Output", "#B06CF0"),
}
_THINKING_COLOR = "#7F3FC4"


def spend(steps: pd.DataFrame, grid: Sequence[datetime], step: Step, models: Sequence[str]) -> Spec:
    """Spend per step, stacked by model. `steps` has at, model, cost_nanousd, calls; `grid` all steps on the wall clock.

    `models` are all the names in the ledger: a model keeps its colour whatever is filtered.
    """
    shown = _shown(steps, models)
    rows = _stacked(steps, shown, step)
    names = [name for name in [*shown, OTHERS] if name in set(rows["model"])]
    colors = [PALETTE[-1] if name == OTHERS else PALETTE[shown.index(name)] for name in names]
    legend = {"orient": "bottom", "columns": 2, "labelLimit": 140, "symbolType": "square", "offset": 4, "padding": 0}
    return {
        "height": 300,
        "data": {"values": rows.to_dict("records")},
        "mark": {"type": "bar", "cornerRadius": 1},
        "encoding": {
            "x": axes.bars_along(grid, step),
            "y": {
                "field": "usd",
                "type": "quantitative",
                "aggregate": "sum",
                "axis": {"title": None, "tickCount": 5, "format": _dollars(rows)},
            },
            "color": {
                "field": "model",
                "type": "nominal",
                "scale": {"domain": names, "range": colors},
                "legend": {"title": None, **legend},
            },
            "order": {"field": "rank", "type": "quantitative"},
            "tooltip": _spend_tooltip(step),
        },
    }


def _spend_tooltip(step: Step) -> list[Spec]:
    return [
        {"field": "when", "title": step.capitalize()},
        {"field": "model", "title": "Model"},
        {"field": "spend", "title": "Spend"},
        {"field": "calls", "type": "quantitative", "title": "Calls", "format": ","},
    ]


def tokens(sums: dict[str, int], thinking: int, ink: str) -> Spec:
    """Tokens by class, one bar each with its number beside it; thinking is the darker part inside output.

    `ink` is the colour of the numbers: Streamlit's theme reaches all of a chart but its text marks.
    """
    parts, labels = _token_rows(sums, thinking)
    order = [label["class"] for label in labels]
    widest = max(1, *sums.values())
    y = {
        "field": "class",
        "type": "nominal",
        "sort": order,
        "axis": {"title": None, "ticks": False, "domain": False, "labelLimit": 160, "labelPadding": 8},
    }
    # the domain leaves room for the numbers beside the longest bar
    x = {"field": "tokens", "type": "quantitative", "axis": None, "scale": {"domain": [0, widest * 1.75]}}
    bars = {
        "data": {"values": parts},
        "mark": {"type": "bar", "height": {"band": 0.62}, "cornerRadius": 2},
        "encoding": {
            "y": y,
            "x": {**x, "stack": "zero"},
            "color": {"field": "color", "type": "nominal", "scale": None},
            "order": {"field": "part", "type": "quantitative"},
            "tooltip": [
                {"field": "name", "title": "Tokens"},
                {"field": "tokens", "type": "quantitative", "title": "Count", "format": ","},
                {"field": "share", "title": "Share"},
            ],
        },
    }
    numbers = {
        "data": {"values": labels},
        "mark": {"type": "text", "align": "left", "dx": 6, "fontSize": 13, "color": ink},
        "encoding": {"y": y, "x": x, "text": {"field": "text"}},
    }
    return {"height": 46 * len(order) + 20, "layer": [bars, numbers]}


def counts(rows: pd.DataFrame, grid: Sequence[datetime], step: Step, colors: dict[str, str], what: str) -> Spec:
    """How many of something there were per step, stacked by name. `rows` has at, name, number; `what` is their noun."""
    order = list(colors)
    drawn = pd.DataFrame(
        {
            "at": axes.walls(rows, step),
            "name": rows["name"],
            "number": rows["number"].astype("int64"),
            "rank": rows["name"].map(order.index),
        }
    )
    drawn["when"] = [axes.spoken(datetime.fromisoformat(at), step) for at in drawn["at"]]
    shown = [name for name in order if name in set(drawn["name"])]
    return {
        "height": 240,
        "data": {"values": drawn.to_dict("records")},
        "mark": {"type": "bar", "cornerRadius": 1},
        "encoding": {
            "x": axes.bars_along(grid, step),
            "y": {
                "field": "number",
                "type": "quantitative",
                "aggregate": "sum",
                "axis": {"title": None, "tickCount": 4, "format": "~s", "tickMinStep": 1},
            },
            "color": axes.named_colors(shown, [colors[name] for name in shown]),
            "order": {"field": "rank", "type": "quantitative"},
            "tooltip": [
                {"field": "when", "title": step.capitalize()},
                {"field": "name", "title": what},
                {"field": "number", "type": "quantitative", "title": "Calls", "format": ","},
            ],
        },
    }


def amounts(rows: pd.DataFrame, grid: Sequence[datetime], step: Step, colors: dict[str, str]) -> Spec:
    """Dollars per step, the names side by side. `rows` has at, name, nanousd (may be negative)."""
    drawn = rows.assign(at=axes.walls(rows, step), nanousd=rows["nanousd"].astype("int64"))
    drawn = drawn.groupby(["at", "name"], as_index=False).sum()
    drawn["usd"] = drawn["nanousd"] / 1e9
    drawn["dollars"] = [figures.money(int(value)) for value in drawn["nanousd"]]
    drawn["when"] = [axes.spoken(datetime.fromisoformat(at), step) for at in drawn["at"]]
    return {
        "height": 240,
        "data": {"values": drawn.drop(columns="nanousd").to_dict("records")},
        "mark": {"type": "bar", "cornerRadius": 1},
        "encoding": {
            "x": axes.bars_along(grid, step),
            "xOffset": {"field": "name", "type": "nominal", "scale": {"domain": list(colors)}},
            "y": {
                "field": "usd",
                "type": "quantitative",
                "axis": {"title": None, "tickCount": 4, "format": axes.dollar_format(drawn["usd"].abs().max())},
            },
            "color": axes.named_colors(list(colors), list(colors.values())),
            "tooltip": [
                {"field": "when", "title": step.capitalize()},
                {"field": "name", "title": "What"},
                {"field": "dollars", "title": "Dollars"},
            ],
        },
    }


def bars(names: pd.Series, nanousd: pd.Series, title: str) -> Spec:
    """Dollars by name, a bar each with its amount at its end, in the order given."""
    values = [
        {"name": str(name), "usd": int(nano) / 1e9, "dollars": figures.money(int(nano))}
        for name, nano in zip(names, nanousd.fillna(0), strict=True)
    ]
    order = [value["name"] for value in values]
    y = {
        "field": "name",
        "type": "nominal",
        "sort": order,
        "axis": {"title": None, "ticks": False, "domain": False, "labelLimit": 130, "labelOverlap": False},
    }
    highest = max((value["usd"] for value in values), default=0.0)
    # room for the amount beside the longest bar
    x = {"field": "usd", "type": "quantitative", "axis": None, "scale": {"domain": [0, highest * 1.3 or 1]}}
    tooltip = [{"field": "name", "title": title}, {"field": "dollars", "title": "Spend"}]
    return {
        "height": 30 * len(order) + 20,
        "data": {"values": values},
        "encoding": {"y": y, "x": x, "tooltip": tooltip},
        "layer": [
            {"mark": {"type": "bar", "cornerRadius": 3, "height": {"band": 0.62}, "color": PALETTE[0]}},
            {
                "mark": {"type": "text", "align": "left", "dx": 5, "color": "#8A93A6"},
                "encoding": {"text": {"field": "dollars"}},
            },
        ],
    }


def model_colors(models: Sequence[str], shown: Sequence[str]) -> dict[str, str]:
    """The colours of the models `shown`, among all `models` of the ledger: the same on every page."""
    return {name: PALETTE[models.index(name) % (len(PALETTE) - 1)] if name in models else PALETTE[-1] for name in shown}


def shares(rows: pd.DataFrame, colors: dict[str, str], what: str) -> Spec:
    """Which part each name has of every group, as a bar each. `rows` has group, name, number."""
    order = list(colors)
    totals = rows.groupby("group")["number"].transform("sum")
    parts = [figures.percent(int(n), int(of)) for n, of in zip(rows["number"], totals, strict=True)]
    drawn = rows.assign(share=parts, rank=rows["name"].map(order.index), number=rows["number"].astype("int64"))
    groups = list(dict.fromkeys(rows["group"]))
    return {
        "height": 30 * len(groups) + 80,  # the legend is inside of it
        "data": {"values": drawn.to_dict("records")},
        "mark": {"type": "bar", "cornerRadius": 2, "height": {"band": 0.7}},
        "encoding": {
            "y": {
                "field": "group",
                "type": "nominal",
                "sort": groups,
                "axis": {"title": None, "ticks": False, "domain": False, "labelLimit": 150, "labelOverlap": False},
            },
            "x": {"field": "number", "type": "quantitative", "stack": "normalize", "axis": None},
            "color": axes.named_colors(order, list(colors.values())),
            "order": {"field": "rank", "type": "quantitative"},
            "tooltip": [
                {"field": "group", "title": "Model"},
                {"field": "name", "title": what},
                {"field": "number", "type": "quantitative", "title": "Calls", "format": ","},
                {"field": "share", "title": "Share"},
            ],
        },
    }


def distribution(rows: pd.DataFrame, colors: dict[str, str]) -> Spec:
    """Which part of a model's calls took how long, a line a model. `rows` has model, from_ms, to_ms, calls."""
    totals = rows.groupby("model")["calls"].transform("sum")
    drawn = pd.DataFrame(
        {
            "model": rows["model"],
            "ms": (rows["from_ms"] * rows["to_ms"]) ** 0.5,  # the middle, on a logarithmic axis
            "share": rows["calls"].astype(float) / totals.astype(float),
            "between": [
                f"{figures.duration(low)} – {figures.duration(high)}"
                for low, high in zip(rows["from_ms"], rows["to_ms"], strict=True)
            ],
            "calls": rows["calls"].astype("int64"),
        }
    )
    return {
        "height": 240,
        "data": {"values": drawn.to_dict("records")},
        "mark": {"type": "line", "interpolate": "monotone", "strokeWidth": 2, "point": {"size": 22}},
        "encoding": {
            "x": {
                "field": "ms",
                "type": "quantitative",
                "scale": {"type": "log", "nice": False},
                "axis": {
                    "title": None,
                    "values": _round_ms(rows["from_ms"].min(), rows["to_ms"].max()),
                    "grid": False,
                    "labelExpr": "datum.value < 1000 ? datum.value + ' ms' : datum.value / 1000 + ' s'",
                    "labelOverlap": "greedy",
                },
            },
            "y": {"field": "share", "type": "quantitative", "axis": {"title": None, "format": "%", "tickCount": 4}},
            "color": axes.named_colors(list(colors), list(colors.values()), field="model"),
            "tooltip": [
                {"field": "model", "title": "Model"},
                {"field": "between", "title": "Took"},
                {"field": "calls", "type": "quantitative", "title": "Calls", "format": ","},
                {"field": "share", "type": "quantitative", "title": "Share", "format": ".1%"},
            ],
        },
    }


def _round_ms(low: float, high: float) -> list[int]:
    """Round numbers of milliseconds between two, few enough to stand side by side."""
    steps = [1, 3, 10] if high > 100 * low else [1, 2, 5, 10]
    found = {base * step for base in (10**n for n in range(8)) for step in steps}
    return sorted(number for number in found if low * 0.9 <= number <= high * 1.1)


def sparkline(steps: pd.DataFrame, grid: Sequence[datetime], step: Step, columns: Sequence[str]) -> list[int]:
    """The sum of `columns` in every step of the grid, zero where there was no call."""
    if steps.empty:
        return [0] * len(grid)
    sums = steps[list(columns)].fillna(0).sum(axis="columns").groupby(axes.walls(steps, step)).sum()
    return [int(sums.get(axes.text(at), 0)) for at in grid]


def _shown(steps: pd.DataFrame, models: Sequence[str]) -> list[str]:
    """The models with a colour of their own, in an order that does not depend on the filters unless there are many."""
    if len(models) <= MODELS_SHOWN:
        return list(models)
    biggest = steps.assign(model=_named(steps)).groupby("model")["cost_nanousd"].sum().sort_values(ascending=False)
    return sorted(biggest.index[:MODELS_SHOWN])


def _stacked(steps: pd.DataFrame, shown: Sequence[str], step: Step) -> pd.DataFrame:
    named = _named(steps)
    rows = pd.DataFrame(
        {
            "at": axes.walls(steps, step),
            "model": named.where(named.isin(shown), OTHERS),
            "nanousd": steps["cost_nanousd"].fillna(0).astype("int64"),
            "calls": steps["calls"].astype("int64"),
        }
    )
    rows = rows[rows["nanousd"] > 0].groupby(["at", "model"], as_index=False).sum()
    rows["usd"] = rows["nanousd"] / 1e9
    rows["spend"] = [figures.money(int(value)) for value in rows["nanousd"]]
    rows["when"] = [axes.spoken(datetime.fromisoformat(at), step) for at in rows["at"]]
    rows["rank"] = [shown.index(name) if name in shown else len(shown) for name in rows["model"]]
    return rows.drop(columns="nanousd")


def _named(steps: pd.DataFrame) -> pd.Series:
    return steps["model"].fillna(NOBODY["model"])


def _dollars(rows: pd.DataFrame) -> str:
    """The format of the axis: whole dollars, cents, or as many digits as it takes."""
    return axes.dollar_format(rows.groupby("at")["usd"].sum().max())


def _token_rows(sums: dict[str, int], thinking: int) -> tuple[list[Spec], list[Spec]]:
    """The pieces of the bars, and the line of text beside each bar."""
    total = sum(sums.values())
    parts: list[Spec] = []
    labels: list[Spec] = []
    for name in TOKEN_CLASSES:
        label, color = _CLASSES[name]
        number = sums[name]
        if name == "cache_write_unsplit_tokens" and not number:
            continue  # rare, and nothing to say about it then
        text = f"{figures.compact(number)} · {figures.percent(number, total)}"
        pieces = [(label, number, color)]
        if name == "output_tokens" and thinking:
            pieces = [(f"{label}: thinking", thinking, _THINKING_COLOR), (f"{label}: answer", number - thinking, color)]
        labels.append({"class": label, "tokens": number, "text": text})
        parts += [
            {
                "class": label,
                "name": piece,
                "tokens": size,
                "color": paint,
                "part": at,
                "share": figures.percent(size, total),
            }
            for at, (piece, size, paint) in enumerate(pieces)
        ]
    return parts, labels
