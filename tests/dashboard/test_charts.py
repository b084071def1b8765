"""The charts' specifications."""

from __future__ import annotations

from datetime import datetime, timedelta

import charts
import pandas as pd
import pytest

DAY = datetime(2026, 11, 20)
GRID = [DAY + timedelta(days=n) for n in range(3)]


def steps(*rows: tuple[datetime, str | None, int | None]) -> pd.DataFrame:
    """Sums by day and model, as usage() gives them."""
    frame = pd.DataFrame(rows, columns=["at", "model", "cost_nanousd"])
    return frame.astype({"model": "string", "cost_nanousd": "Int64"}).assign(calls=1)


def test_a_model_keeps_its_colour_when_others_are_filtered_out() -> None:
    """Colours depend on the ledger's models and not on which of them are shown."""
    models = ["a", "b", "c"]
    everything = charts.spend(steps((DAY, "a", 5), (DAY, "b", 6), (DAY, "c", 7)), GRID, "day", models)
    only_c = charts.spend(steps((DAY, "c", 7)), GRID, "day", models)
    colors = everything["encoding"]["color"]["scale"]
    assert dict(zip(colors["domain"], colors["range"], strict=True))["c"] == charts.PALETTE[2]
    assert only_c["encoding"]["color"]["scale"] == {"domain": ["c"], "range": [charts.PALETTE[2]]}


def test_many_models_are_the_dearest_and_the_others() -> None:
    """More models than colours: the dearest keep their own, the rest is one sum, and nothing is lost."""
    models = [f"m{n:02}" for n in range(12)]
    spec = charts.spend(steps(*((DAY, name, 10 + n) for n, name in enumerate(models))), GRID, "day", models)
    rows = {row["model"]: row["usd"] for row in spec["data"]["values"]}
    assert set(rows) == {*models[4:], charts.OTHERS}
    assert round(rows[charts.OTHERS] * 1e9) == 10 + 11 + 12 + 13
    assert round(sum(rows.values()) * 1e9) == sum(range(10, 22))


@pytest.mark.parametrize(
    ("nanousd", "format"), [(4_200_000, "$.2~r"), (100_000_000, "$,.2f"), (1_500_000_000, "$,.2f"), (10**11, "$,.0f")]
)
def test_the_axis_of_money_has_the_digits_it_takes(nanousd: int, format: str) -> None:
    """Tiny spend is not labelled $0.00 all the way up."""
    spec = charts.spend(steps((DAY, "a", nanousd)), GRID, "day", ["a"])
    assert spec["encoding"]["y"]["axis"]["format"] == format


def test_the_last_step_has_a_label() -> None:
    """However the labels are thinned out, today keeps its own."""
    grid = [DAY + timedelta(days=n) for n in range(90)]
    axis = charts.spend(steps((DAY, "a", 5)), grid, "day", ["a"])["encoding"]["x"]["axis"]
    assert axis["values"][-1] == grid[-1].strftime("%Y-%m-%dT%H:%M")
    assert len(axis["values"]) <= 9


@pytest.mark.parametrize(
    ("step", "spoken"),
    [
        ("hour", "Fri 20 Nov, 14:00"),
        ("day", "Fri 20 Nov 2026"),
        ("week", "from 16 Nov 2026"),
        ("month", "November 2026"),
    ],
)
def test_tooltips_name_the_step(step: charts.Step, spoken: str) -> None:
    """A tooltip says which hour, day, week or month it is about."""
    rows = charts.spend(steps((DAY.replace(hour=14), "a", 5)), [DAY], step, ["a"])["data"]["values"]
    assert [row["when"] for row in rows] == [spoken]


def test_sparkline_sums_each_step() -> None:
    """A step holds the sum over models, missing costs count nothing, and a step without calls is zero."""
    data = steps((GRID[0], "a", 5), (GRID[0], "b", 6), (GRID[2], "a", None))
    assert charts.sparkline(data, GRID, "day", ["cost_nanousd"]) == [11, 0, 0]
    assert charts.sparkline(data, GRID, "day", ["calls"]) == [2, 0, 1]
    assert charts.sparkline(data[:0], GRID, "day", ["calls"]) == [0, 0, 0]


def test_token_bars_count_every_token_once() -> None:
    """The pieces of the bars add up to all tokens, thinking being a piece of output."""
    sums = dict.fromkeys(charts.TOKEN_CLASSES, 100) | {"output_tokens": 50}
    bars, numbers = (layer["data"]["values"] for layer in charts.tokens(sums, 20, "#000000")["layer"])
    assert sum(piece["tokens"] for piece in bars) == sum(sums.values())
    output = [(piece["name"], piece["tokens"]) for piece in bars if piece["class"] == "Output"]
    assert output == [("Output: thinking", 20), ("Output: answer", 30)]
    assert numbers[-1]["text"] == "50 · 9.1%"


def test_writes_of_unknown_ttl_are_shown_only_when_there_are_some() -> None:
    """A class that hardly ever occurs takes no room while it is empty; the others keep theirs."""
    sums = dict.fromkeys(charts.TOKEN_CLASSES, 0)
    classes = [label["class"] for label in charts.tokens(sums, 0, "#000000")["layer"][1]["data"]["values"]]
    assert classes == ["Uncached input", "Cache read", "Cache write, 5 min", "Cache write, 1 h", "Output"]
    more = charts.tokens(sums | {"cache_write_unsplit_tokens": 1}, 0, "#000000")["layer"][1]["data"]["values"]
    assert "Cache write, TTL unknown" in [label["class"] for label in more]
