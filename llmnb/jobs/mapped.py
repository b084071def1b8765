"""`Mapped`: the frame that `llm.map` gives, a DataFrame that can have its failed rows asked again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import pandas as pd

from llmnb.asking.extraction import fields_of
from llmnb.asking.shape import Shape
from llmnb.jobs.run import Status

_FIGURES = ("cost_usd", "source", "error", "input_tokens", "output_tokens", "stop_reason")
_TAKEN = "_llm"


class Mapped(pd.DataFrame):
    """The rows of the frame in their order, with what was answered, what it cost, and what went wrong.

    `run_id` is the run's in the ledger (`llmnb.calls(where={"run_id": …})`), `status` how it went. Frames made of this
    one are plain DataFrames.
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
    keys: list[str],
    found: Mapping[str, dict[str, Any]],
    shape: Shape | None,
    *,
    run_id: str,
    status: Status,
    again: Callable[[], Mapped],
) -> Mapped:
    """The frame with the columns of what became of its rows."""
    said = _said(keys, found, shape)
    figures: dict[str, Any] = {}
    for name in _FIGURES:
        if name == "cost_usd":
            costs = [found[key]["cost_nanousd"] for key in keys]
            figures[name] = pd.array([None if cost is None else cost / 1e9 for cost in _once(keys, costs)], "Float64")
        elif name.endswith("_tokens"):
            figures[name] = pd.array(_once(keys, [found[key][name] for key in keys]), "Int64")
        else:
            figures[name] = [found[key].get(name) for key in keys]
    columns = {**said, **figures}
    renamed = {name if name not in frame.columns else f"{name}{_TAKEN}": column for name, column in columns.items()}
    result = Mapped(pd.concat([frame, pd.DataFrame(renamed, index=frame.index)], axis=1))
    result.run_id, result.status, result.again = run_id, status, again
    return result


def _said(keys: list[str], found: Mapping[str, dict[str, Any]], shape: Shape | None) -> dict[str, list[Any]]:
    if shape is None:
        return {"text": [found[key].get("text") for key in keys]}
    values: dict[str, dict[str, Any]] = {}
    for key in dict.fromkeys(keys):
        if "value" in (facts := found[key]):
            value = shape.again(facts["value"])
            values[key] = {"value": value} if shape.wrapped else fields_of(value)
    names = ["value"] if shape.wrapped else list(cast("dict[str, Any]", shape.schema.get("properties", {})))
    names = list(dict.fromkeys([*names, *(name for one in values.values() for name in one)]))
    return {name: [values.get(key, {}).get(name) for key in keys] for name in names}


def _once(keys: list[str], figures: list[Any]) -> list[Any]:
    """Figures of rows that ask the same stand at the first of them, so that sums are those of the bill."""
    seen: set[str] = set()
    told: list[Any] = []
    for key, figure in zip(keys, figures, strict=True):
        told.append(0 if key in seen and figure is not None else figure)
        seen.add(key)
    return told
