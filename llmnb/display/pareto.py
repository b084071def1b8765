"""Quality against cost as an Altair chart, with the Pareto front: those whom nobody beats in both."""

from __future__ import annotations

import copy
import itertools
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from llmnb.display.where import where
from llmnb.errors import InvalidRequest, MissingExtra

if TYPE_CHECKING:
    import pandas as pd

_V5 = "application/vnd.vegalite.v5+json"
_SCHEMA_V5 = "https://vega.github.io/schema/vega-lite/v5.json"
_WIDTH, _HEIGHT = 460, 280
_GREEN, _GREY = "#1b9e77", "#8a8a8a"
_WIDE = 10
_TIPS = (
    *("contestant:N", "score:Q", "score_low:Q", "score_high:Q"),
    *("usd_per_1000:Q", "cost_usd:Q", "seconds:Q", "answered:Q"),
)


def pareto(summary: pd.DataFrame) -> Any:
    """The chart of a summary of contestants (see `Comparison.summary`): `score` against `full_cost_usd`.

    It is an `altair.LayerChart`, to be changed and saved like any. JupyterLab draws it itself, without the network.

    Raises:
        InvalidRequest: nobody has both a score and a price.
        MissingExtra: Altair is not installed.
    """
    try:
        alt: Any = import_module("altair")
    except ImportError:
        raise MissingExtra("a Pareto chart", "plots") from None
    points = cast("Any", summary).reset_index().rename(columns={summary.index.name or "index": "contestant"})
    points = points.dropna(subset=["score", "full_cost_usd"])
    if points.empty:
        raise InvalidRequest("there is nothing to plot: no contestant has both a score and a price")
    points["usd_per_1000"] = points["full_cost_usd"] * 1_000
    points["above"] = named_above(points["full_cost_usd"].tolist(), points["score"].tolist())
    points["front"] = on_front(points["full_cost_usd"].tolist(), points["score"].tolist())
    return _chart(alt, points)


def on_front(costs: list[float], scores: list[float]) -> list[bool]:
    """For each whether no other costs no more and scores no less, and is better in one of the two."""
    both = list(zip(costs, scores, strict=True))
    return [not any(c <= cost and s >= score and (c < cost or s > score) for c, s in both) for cost, score in both]


def named_above(costs: list[float], scores: list[float]) -> list[bool]:
    """For each whether its name, which goes to the right, stands above its point: out of the way of the next one's."""
    above = [True] * len(costs)
    order = sorted(range(len(costs)), key=lambda at: costs[at])
    for one, following in reversed(list(itertools.pairwise(order))):
        is_level = scores[one] == scores[following]
        above[one] = not above[following] if is_level else scores[one] > scores[following]
    return above


def _chart(alt: Any, points: Any) -> Any:
    names = ["contestant", "front", "score", "score_low", "score_high", "usd_per_1000", "cost_usd", "seconds"]
    # numbers of no value are null, as JSON wants them
    values = alt.Data(values=[_known(row) for row in points[[*names, "answered", "above"]].to_dict("records")])
    cost = points["usd_per_1000"]
    title, form = "dollars per 1,000 answers", alt.Axis(format="$.3~r", grid=False, tickCount=6)
    x = alt.X("usd_per_1000:Q", title=title, axis=form, scale=_scale(alt, cost.min(), cost.max()))
    y = alt.Y("score:Q", title="score", scale=alt.Scale(zero=False, padding=24))
    base = alt.Chart(values)
    line = base.transform_filter("datum.front").mark_line(strokeDash=[4, 3], color=_GREY, interpolate="step-after")
    colour = alt.Color(
        "front:N",
        title="Pareto front",
        scale=alt.Scale(domain=[True, False], range=[_GREEN, _GREY]),
        legend=alt.Legend(labelExpr="datum.value ? 'on it' : 'beaten'", orient="bottom"),
    )
    interval = base.transform_filter("isValid(datum.score_low)").mark_rule(opacity=0.6)
    low = alt.Y("score_low:Q", title="score")
    layers = [
        interval.encode(x=x, y=low, y2="score_high:Q", color=colour),
        line.encode(x=x, y=y),
        base.mark_point(filled=True, size=110, opacity=1).encode(x=x, y=y, color=colour, tooltip=list(_TIPS)),
        *(
            base.transform_filter(f"{sign}datum.above")
            .mark_text(align="left", dx=9, dy=dy)
            .encode(x=x, y=y, text="contestant:N", color=colour)
            for sign, dy in (("", -7), ("!", 14))
        ),
    ]
    told = {"text": _in_words(points)}
    return _kind(alt)(layer=layers, width=_WIDTH, height=_HEIGHT, title="Quality against cost", usermeta=told)


def _in_words(points: Any) -> str:
    """The chart for where none is drawn."""
    lines = [
        f"{one['contestant']}: {one['score']:.3g} for ${one['usd_per_1000']:,.3g}" + (", on it" if one["front"] else "")
        for one in points.sort_values("usd_per_1000").to_dict("records")
    ]
    return "\n".join(["Score for dollars per 1,000 answers, and the Pareto front", *lines])


def _scale(alt: Any, least: float, most: float) -> Any:
    """Prices of models differ by hundreds: then each step to the right costs so many times as much."""
    if least > 0 and most / least >= _WIDE:
        return alt.Scale(type="log", nice=False, domainMin=least / 1.5, domainMax=most * 4)
    return alt.Scale(nice=False, domainMin=0, domainMax=most * 1.4 or 1)


def _known(row: dict[str, Any]) -> dict[str, Any]:
    return {name: None if value != value else value for name, value in row.items()}


def _kind(alt: Any) -> Any:
    """A layered chart that JupyterLab can draw: it knows Vega-Lite 5, of which this needs no more, and Altair's own way
    there fetches scripts from the network."""
    kind: Any = _kinds.get("chart")
    if kind is None:
        usual: Any = alt.LayerChart._repr_mimebundle_

        class ParetoChart(alt.LayerChart):
            """An `altair.LayerChart` of contestants."""

            def _repr_mimebundle_(self, *args: Any, **kwargs: Any) -> Any:
                if where() not in ("jupyter", "headless") or alt.renderers.active != "default":
                    return usual(self, *args, **kwargs)
                said = copy.deepcopy(self.to_dict(context={"pre_transform": False}))
                said["$schema"] = _SCHEMA_V5
                return {_V5: said, "text/plain": said["usermeta"]["text"]}

        kind = _kinds["chart"] = ParetoChart
    return kind


_kinds: dict[str, Any] = {}
