"""The prompt of each row of a run, by a template or a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, cast

from llmnb.errors import InvalidRequest
from llmnb.jobs.sources import Source, Whole
from llmnb.templates import Rendered, Template

if TYPE_CHECKING:
    import pandas as pd

_ROW = "row"


class Prompts:
    """The prompt of each row of a frame, by a template or a function of the row.

    Raises:
        InvalidRequest: the template names a column that is not there, or none at all.
    """

    def __init__(self, rows: pd.DataFrame | Source, prompt: Template | Callable[[pd.Series[Any]], Any]) -> None:
        self._source = cast("Source", rows) if hasattr(rows, "pieces") else Whole(cast("pd.DataFrame", rows))
        self._prompt = prompt
        if isinstance(prompt, Template):
            self._check(prompt)

    def __iter__(self) -> Iterator[Any]:
        """The prompts in the order of the rows; in the place of one that cannot be made, the error."""
        for piece in self._source.pieces():
            yield from self._rendered(self._prompt, piece) if isinstance(self._prompt, Template) else self._made(piece)

    def _made(self, frame: pd.DataFrame) -> Iterator[Any]:
        make = cast("Callable[[pd.Series[Any]], Any]", self._prompt)
        for _, row in frame.iterrows():
            try:
                made = make(row)
                if isinstance(made, Rendered) and made.options.keys() - {"system"}:
                    raise InvalidRequest("this row's template has settings: give map the template itself")
                yield made
            except Exception as error:
                yield error

    def _check(self, template: Template) -> None:
        names = [str(name) for name in self._source.columns]
        template.check(names, what="column", whole=_ROW)
        if not template.fields and (self._source.count is None or self._source.count > 1):
            columns = ", ".join(f"{{{{ {name} }}}}" for name in names if name.isidentifier())
            raise InvalidRequest(f"the template has no field, so that all rows would ask the same. There is {columns}.")

    def _rendered(self, template: Template, frame: pd.DataFrame) -> Iterator[Rendered | Exception]:
        columns = list(frame.columns)
        wants_row = _ROW in template.fields and _ROW not in columns
        needed = columns if wants_row else [name for name in columns if str(name) in template.fields]
        names = [str(name) for name in needed]
        series = [frame.iloc[:, columns.index(name)] for name in needed]
        for values in zip(*series, strict=True) if series else ((),) * len(frame):
            row: dict[Any, Any] = dict(zip(names, values, strict=True))
            empty = [name for name in template.fields if name in row and _is_missing(row[name])]
            if empty:
                yield InvalidRequest(f"the column {empty[0]!r} has no value in this row")
                continue
            try:
                if wants_row:  # in it a number that names a column finds that, too
                    row[_ROW] = {**dict(zip(needed, values, strict=True)), **row}
                yield template.render_from(row, what="column")
            except Exception as error:
                yield error


def _is_missing(value: Any) -> bool:
    if type(value) is str:
        return False
    import pandas as pd

    typed: Any = pd
    return value is None or (typed.api.types.is_scalar(value) and bool(typed.isna(value)))
