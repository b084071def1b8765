"""Where the rows of a run come from: whatever a user has them in, whole as a DataFrame or piece by piece.

In pieces are read the files and iterators of a run whose results go to a file (`out=`): there may be more rows than
memory; and async iterators, whose rows come while others are asked. A file is read twice or more, and nothing of it is
kept; what came of an iterator is put on disk until the run's frame is forgotten, since it comes once.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from llmnb.errors import InvalidRequest, MissingExtra
from llmnb.jobs.readers import Reader, ThreadReader, note_threads

if TYPE_CHECKING:
    import pandas as pd

VALUE = "value"
"""The column of rows that are no mappings."""
PIECE = 10_000
"""So many rows are read at once, and are a row group of the results' Parquet file."""
_FORMATS = (".csv", ".jsonl", ".parquet")


class Source(Protocol):
    """Rows that can be read again and again."""

    @property
    def columns(self) -> list[Any]:
        """The names of their columns."""
        ...

    @property
    def count(self) -> int | None:
        """How many there are; None of an iterator that has not been read to its end."""
        ...

    def pieces(self) -> Iterator[pd.DataFrame]:
        """The rows, some at a time."""
        ...

    def frame(self) -> pd.DataFrame:
        """All of them."""
        ...


def source_of(rows: Any, *, in_pieces: bool = False) -> Source:
    """The rows as a source; files and iterators whole unless `in_pieces`.

    Raises:
        InvalidRequest: they are nothing that has rows, or the file cannot be read.
    """
    if in_pieces and isinstance(rows, PathLike):
        return _file(Path(cast("PathLike[str]", rows)).expanduser())
    if isinstance(rows, Reader) or (in_pieces and isinstance(rows, Iterator)):
        from llmnb.jobs.spooled import Spooled

        return Spooled(rows if isinstance(rows, Reader) else ThreadReader(cast("Iterator[Any]", rows)))
    return Whole(frame_of(rows))


def frame_of(rows: Any) -> pd.DataFrame:
    """The rows as a DataFrame: a frame as it is, a Series or list as one column, mappings as columns, a file as read.

    Raises:
        InvalidRequest: they are none of these, or the file cannot be read.
    """
    import pandas as pd

    if isinstance(rows, pd.DataFrame):
        return rows.copy(deep=False)  # the user may go on working at theirs
    if isinstance(rows, pd.Series):
        series = cast("pd.Series[Any]", rows)
        return series.to_frame(VALUE if series.name is None else series.name)
    if isinstance(rows, PathLike):
        return _file(Path(cast("PathLike[str]", rows)).expanduser()).frame()
    has_rows = isinstance(rows, Iterable) and not _gives_its_fields(cast("object", rows))
    if isinstance(rows, AsyncIterable) and not has_rows:
        raise InvalidRequest("the rows of an async iterator are asked by `await llm.amap(…)`. Nothing was sent.")
    if isinstance(rows, (str, bytes, Mapping)) or not has_rows:
        hint = f" Path({rows!r}) reads that file." if isinstance(rows, str) and rows.lower().endswith(_FORMATS) else ""
        raise InvalidRequest(
            "rows must be a DataFrame, a Series, a list, an iterator or a Path to a CSV, JSONL or Parquet file, not "
            f"a {type(cast('Any', rows)).__name__}.{hint} Nothing was sent."
        )
    try:
        listed = list(cast("Iterable[Any]", rows))
    except Exception as error:
        note_threads(error)
        raise
    return listed_frame(listed)


def _gives_its_fields(rows: object) -> bool:
    """Whether its own iteration is that of every Pydantic model, over its fields, as in an async page of the SDK."""
    from pydantic import BaseModel

    return isinstance(rows, BaseModel) and type(rows).__iter__ is BaseModel.__iter__


def listed_frame(listed: list[Any]) -> pd.DataFrame:
    """Rows of a list: mappings as columns, all else as one."""
    import pandas as pd

    if listed and all(isinstance(row, Mapping) for row in listed):
        return pd.DataFrame(listed, dtype=object)
    return pd.DataFrame({VALUE: pd.Series(listed, dtype=object)})


class Whole:
    """A frame that is there."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self._frame = frame
        self.columns: list[Any] = list(frame.columns)
        self.count: int | None = len(frame)

    def pieces(self) -> Iterator[pd.DataFrame]:
        for at in range(0, len(self._frame), PIECE):
            yield self._frame.iloc[at : at + PIECE]

    def frame(self) -> pd.DataFrame:
        return self._frame


# Files ----------------------------------------------------------------------------------------------------------------


def _file(path: Path) -> Source:
    kinds: dict[str, Callable[[Path], Source]] = {".csv": Csv, ".jsonl": JsonLines, ".parquet": Parquet}
    if path.suffix.lower() not in kinds:
        raise InvalidRequest(f"{path} is none of {', '.join(_FORMATS)}: read it into a DataFrame. Nothing was sent.")
    try:
        return kinds[path.suffix.lower()](path)
    except ImportError:
        raise MissingExtra("reading Parquet", "parquet") from None
    except (OSError, ValueError) as error:
        raise InvalidRequest(f"the rows in {path} cannot be read: {error}. Nothing was sent.") from None


class Csv:
    """A CSV file. It is read once to learn how many rows there are, and of what types: pieces are guessed apart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.count: int | None = 0
        found: dict[Any, list[Any]] = {}
        for piece in self._pieces():
            self.count += len(piece)
            for name in piece.columns:
                found.setdefault(name, []).append(_kind(piece[name]))
        self.columns: list[Any] = list(found)
        self._types = {name: kind for name, kinds in found.items() if (kind := _common(kinds))}

    def pieces(self) -> Iterator[pd.DataFrame]:
        return self._pieces(dtype=self._types)

    def frame(self) -> pd.DataFrame:
        import pandas as pd

        return pd.read_csv(self._path)  # pyright: ignore[reportUnknownMemberType]

    def _pieces(self, **options: Any) -> Iterator[pd.DataFrame]:
        import pandas as pd

        reader: Any = pd.read_csv(self._path, chunksize=PIECE, **options)  # pyright: ignore[reportUnknownMemberType]
        with reader:
            yield from reader


def _kind(column: pd.Series[Any]) -> tuple[str, bool] | None:
    """What a column was taken for, and whether something is missing in it; None when there is nothing in it."""
    missing = bool(column.isna().any())
    return None if missing and bool(column.isna().all()) else (str(column.dtype), missing)


def _common(kinds: list[tuple[str, bool] | None]) -> str | None:
    """The type that pandas gives the whole column; None leaves it to pandas."""
    known = {kind for kind in kinds if kind is not None}
    names = {name for name, _ in known}
    has_gaps = any(missing for _, missing in known) or None in kinds
    if names and names <= {"int64", "float64"}:
        return "float64" if len(names) > 1 or has_gaps else names.pop()
    if len(names) == 1:
        return None if names == {"bool"} else names.pop()
    return "str" if names else None


class JsonLines:
    """A file of JSON objects, one a line. It is read once to learn how many there are, and their keys."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.count: int | None = 0
        names: dict[Any, None] = {}
        for row in self._rows():
            self.count += 1
            names.update(dict.fromkeys(row))
        self.columns: list[Any] = list(names)

    def pieces(self) -> Iterator[pd.DataFrame]:
        import pandas as pd

        rows, at = self._rows(), 0
        while listed := list(itertools.islice(rows, PIECE)):
            index = range(at, at + len(listed))
            yield pd.DataFrame(listed, columns=self.columns, index=index, dtype=object)
            at += len(listed)

    def frame(self) -> pd.DataFrame:
        return joined(self.pieces(), self.columns).infer_objects()

    def _rows(self) -> Iterator[dict[str, Any]]:
        with self._path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError(f"line {number} is no JSON object")
                yield cast("dict[str, Any]", row)


def arrow() -> Any:
    """pyarrow, which is not typed."""
    return import_module("pyarrow")


def parquet() -> Any:
    """Its reader and writer of Parquet."""
    return import_module("pyarrow.parquet")


class Parquet:
    """A Parquet file, whose rows are counted in it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with parquet().ParquetFile(path) as file:
            self.count: int | None = int(file.metadata.num_rows)
            empty: Any = file.schema_arrow.empty_table().to_pandas()  # without what is the index
            self.columns: list[Any] = list(empty.columns)

    def pieces(self) -> Iterator[pd.DataFrame]:
        at = 0
        with parquet().ParquetFile(self._path) as file:
            for batch in file.iter_batches(batch_size=PIECE):
                # a number beside a gap stays the number that it is, in whatever piece the gap is
                piece: pd.DataFrame = arrow().Table.from_batches([batch]).to_pandas(integer_object_nulls=True)
                if not _has_index(file):
                    piece.index = range(at, at + len(piece))  # pyright: ignore[reportAttributeAccessIssue]
                at += len(piece)
                yield piece

    def frame(self) -> pd.DataFrame:
        import pandas as pd

        return pd.read_parquet(self._path)  # pyright: ignore[reportUnknownMemberType]


def _has_index(file: Any) -> bool:
    kept: Any = file.schema_arrow.pandas_metadata or {}
    return any(isinstance(name, str) for name in kept.get("index_columns", []))


def joined(pieces: Iterable[pd.DataFrame], columns: list[Any]) -> pd.DataFrame:
    """Pieces as one frame."""
    import pandas as pd

    found = list(pieces)
    return pd.concat(found) if found else pd.DataFrame(columns=columns)
