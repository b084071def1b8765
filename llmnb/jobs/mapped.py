"""`Mapped`: the frame that `llm.map` gives, a DataFrame that can have its failed rows asked again."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import pandas as pd

from llmnb.asking.extraction import fields_of
from llmnb.asking.shape import Shape
from llmnb.jobs.run import Status

Facts = Mapping[str, Any]

_TOKENS = ("input_tokens", "output_tokens")
_TEXTS = ("source", "error", "stop_reason")
_ORDER = ("cost_usd", "source", "error", "input_tokens", "output_tokens", "stop_reason")
_TAKEN = "_llm"


class Mapped(pd.DataFrame):
    """The rows of the frame in their order, with what was answered, what it cost, and what went wrong.

    `run_id` is the run's in the ledger (`llmnb.calls(where={"run_id": …})`) and in `llmnb.runs()`, `status` how it
    went. Frames made of this one are plain DataFrames.
    """

    _metadata = ["again", "run_id", "status"]  # noqa: RUF012 - pandas' protocol

    run_id: str
    status: Status
    again: Callable[[], Mapped]

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def retry_failed(self) -> Mapped:
        """Asks the rows that failed again, and gives the whole frame; the others stay as they are."""
        return self.again()


def mapped(
    frame: pd.DataFrame,
    rows: Iterable[tuple[Facts, bool]],
    shape: Shape | None,
    *,
    run_id: str,
    status: Status,
    again: Callable[[], Mapped],
) -> Mapped:
    """The frame with the columns of what became of its rows; `rows` as for `answered`."""
    result = Mapped(answered(frame, rows, shape))
    result.run_id, result.status, result.again = run_id, status, again
    return result


def answered(frame: pd.DataFrame, rows: Iterable[tuple[Facts, bool]], shape: Shape | None) -> pd.DataFrame:
    """A frame of rows with what was found out about each.

    Args:
        frame: the rows.
        rows: the facts of each, and whether it is the first of those that ask the same: figures stand there, so that
            sums are those of the bill.
        shape: of the values; None for texts.
    """
    said: list[Any] = []
    costs: list[float | None] = []
    tokens: dict[str, list[int | None]] = {name: [] for name in _TOKENS}
    texts: dict[str, list[str | None]] = {name: [] for name in _TEXTS}
    for facts, is_first in rows:
        said.append(facts.get("text") if shape is None else _value(facts, shape))
        cost = facts["cost_nanousd"]
        costs.append(None if cost is None else cost / 1e9 if is_first else 0.0)
        for name in _TOKENS:
            tokens[name].append(facts[name] if is_first else 0)
        for name in _TEXTS:
            texts[name].append(facts.get(name))
    figures: dict[str, Any] = {
        "cost_usd": pd.array(costs, "Float64"),
        **{name: pd.array(column, "Int64") for name, column in tokens.items()},
        **texts,
    }
    columns = {**_said(said, shape), **{name: figures[name] for name in _ORDER}}
    renamed = {name if name not in frame.columns else f"{name}{_TAKEN}": column for name, column in columns.items()}
    return pd.concat([frame, pd.DataFrame(renamed, index=frame.index)], axis=1)


def _value(facts: Facts, shape: Shape) -> dict[str, Any]:
    if "value" not in facts:
        return {}
    value = shape.again(facts["value"])
    return {"value": value} if shape.wrapped else fields_of(value)


def _said(said: list[Any], shape: Shape | None) -> dict[str, list[Any]]:
    if shape is None:
        return {"text": said}
    names = ["value"] if shape.wrapped else list(cast("dict[str, Any]", shape.schema.get("properties", {})))
    names = list(dict.fromkeys([*names, *(name for one in said for name in one)]))
    return {name: [one.get(name) for one in said] for name in names}
