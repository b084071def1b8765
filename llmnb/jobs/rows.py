"""The rows of a run: whatever a user has them in as a DataFrame, and the prompt of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llmnb.errors import InvalidRequest, MissingExtra
from llmnb.templates import Rendered, Template

if TYPE_CHECKING:
    import pandas as pd

VALUE = "value"
"""The column of rows that are no mappings."""
_ROW = "row"


def frame_of(rows: Any) -> pd.DataFrame:
    """The rows as a DataFrame: a frame as it is, a Series or list as one column, mappings as columns, a file as read.

    Raises:
        InvalidRequest: they are none of these, or the file cannot be read.
    """
    import pandas as pd

    if isinstance(rows, pd.DataFrame):
        return rows
    if isinstance(rows, pd.Series):
        series = cast("pd.Series[Any]", rows)
        return series.to_frame(VALUE if series.name is None else series.name)
    if isinstance(rows, PathLike):
        return _read(Path(cast("PathLike[str]", rows)).expanduser())
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
        raise InvalidRequest(
            "rows must be a DataFrame, a Series, a list, an iterator or a Path to a CSV, JSONL or Parquet file, not "
            f"a {type(cast('Any', rows)).__name__}. Nothing was sent."
        )
    listed = list(cast("Iterable[Any]", rows))
    if listed and all(isinstance(row, Mapping) for row in listed):
        return pd.DataFrame(listed, dtype=object)
    return pd.DataFrame({VALUE: pd.Series(listed, dtype=object)})


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    readers: dict[str, Callable[[], Any]] = {
        ".csv": lambda: pd.read_csv(path),  # pyright: ignore[reportUnknownMemberType]
        ".jsonl": lambda: pd.read_json(path, lines=True),  # pyright: ignore[reportUnknownMemberType]
        ".parquet": lambda: pd.read_parquet(path),  # pyright: ignore[reportUnknownMemberType]
    }
    if path.suffix.lower() not in readers:
        raise InvalidRequest(
            f"{path.name} is none of {', '.join(readers)}: read it into a DataFrame. Nothing was sent."
        )
    try:
        return readers[path.suffix.lower()]()
    except ImportError:
        raise MissingExtra("reading Parquet", "parquet") from None
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"the rows in {path} cannot be read: {error}. Nothing was sent.") from None


class Prompts:
    """The prompt of each row of a frame, by a template or a function of the row.

    Raises:
        InvalidRequest: the template names a column that is not there, or none at all.
    """

    def __init__(self, frame: pd.DataFrame, prompt: Template | Callable[[pd.Series[Any]], Any]) -> None:
        self._frame = frame
        self._prompt = prompt
        if isinstance(prompt, Template):
            self._check(prompt)

    def __iter__(self) -> Iterator[Any]:
        """The prompts in the order of the rows; in the place of one that cannot be made, the error."""
        if isinstance(self._prompt, Template):
            yield from self._rendered(self._prompt)
            return
        for _, row in self._frame.iterrows():
            try:
                made = self._prompt(row)
                if isinstance(made, Rendered) and made.options.keys() - {"system"}:
                    raise InvalidRequest("this row's template has settings: give map the template itself")
                yield made
            except Exception as error:
                yield error

    def _check(self, template: Template) -> None:
        there = dict.fromkeys([*map(str, self._frame.columns), _ROW])
        template.check(there, what="column")
        if not template.fields and len(self._frame) > 1:
            columns = ", ".join(f"{{{{ {name} }}}}" for name in map(str, self._frame.columns) if name.isidentifier())
            raise InvalidRequest(f"the template has no field, so that all rows would ask the same. There is {columns}.")

    def _rendered(self, template: Template) -> Iterator[Rendered | Exception]:
        columns = list(self._frame.columns)
        wants_row = _ROW in template.fields and _ROW not in columns
        needed = columns if wants_row else [name for name in columns if str(name) in template.fields]
        names = [str(name) for name in needed]
        series = [self._frame.iloc[:, columns.index(name)] for name in needed]
        for values in zip(*series, strict=True) if series else ((),) * len(self._frame):
            row = dict(zip(names, values, strict=True))
            empty = [name for name in template.fields if name in row and _is_missing(row[name])]
            if empty:
                yield InvalidRequest(f"the column {empty[0]!r} has no value in this row")
                continue
            try:
                yield template.render_from({**row, _ROW: row} if wants_row else row, what="column")
            except Exception as error:
                yield error


def _is_missing(value: Any) -> bool:
    import pandas as pd

    typed: Any = pd
    return value is None or (typed.api.types.is_scalar(value) and bool(typed.isna(value)))
