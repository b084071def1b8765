"""`MappedFile`: the results of a run as a Parquet file, written piece by piece: they need not fit into memory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from importlib.util import find_spec
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pandas as pd

from llmnb.errors import InvalidRequest, MissingExtra
from llmnb.estimate import dollars
from llmnb.jobs.mapped import Facts, answered
from llmnb.jobs.sources import arrow, parquet
from llmnb.records import NANO

if TYPE_CHECKING:
    from llmnb.asking.shape import Shape
    from llmnb.jobs.run import Status
    from llmnb.jobs.sources import Source

_TYPES = {"string": "string", "integer": "int64", "number": "double", "boolean": "bool_"}


@dataclass(frozen=True)
class _Level:
    """Stands among names of columns for a level of the index."""

    number: int


@dataclass(frozen=True)
class MappedFile:
    """What `llm.map(…, out=path)` gives: where the results are, how the run went, and its id."""

    path: Path
    run_id: str
    status: Status
    _again: Callable[[], MappedFile]

    def frame(self) -> pd.DataFrame:
        """All rows with their results, in memory."""
        return pd.read_parquet(self.path)  # pyright: ignore[reportUnknownMemberType]

    def retry_failed(self) -> MappedFile:
        """Asks the rows that failed again, and writes the file anew; the others stay as they are."""
        return self._again()

    def __repr__(self) -> str:
        status = self.status
        failed = f", {status.failed:,} failed" if status.failed else ""
        money = dollars(status.cost_nanousd / Decimal(NANO))
        return f"<{status.rows:,} rows{failed}, {money}, run {self.run_id}: {self.path}>"


def checked(out: str | PathLike[str]) -> Path:
    """The path to write to.

    Raises:
        InvalidRequest: it cannot be written; nothing was sent.
        MissingExtra: pyarrow is not installed.
    """
    path = Path(out).expanduser().absolute()
    if path.suffix.lower() != ".parquet":
        raise InvalidRequest(f"out= is a path that ends with .parquet, not {path.name}. Nothing was sent.")
    if find_spec("pyarrow") is None:
        raise MissingExtra("writing Parquet", "parquet")
    if not os.access(path.parent, os.W_OK):
        raise InvalidRequest(f"out=: {path.parent} is no folder that can be written. Nothing was sent.")
    return path


def write(source: Source, rows: Iterable[tuple[Facts, bool]], shape: Shape | None, path: Path) -> None:
    """Writes the rows of a source with what became of each; the file is there when it is whole, and not before.

    Raises:
        OSError: the disk is full, or the file cannot be written.
    """
    types = _types(source)
    columns = [name for name in types if not isinstance(name, _Level)]
    left = iter(rows)
    draft = path.with_name(f".{path.name}.{os.getpid()}.part")
    writer: Any = None
    try:
        for piece in _pieces(source):
            if len(columns) > len(piece.columns):  # of an iterator whose rows have not all the same keys
                piece = piece.reindex(columns=columns)
            table = _table(piece, list(islice(left, len(piece))), shape, types)
            if writer is None:
                writer = parquet().ParquetWriter(draft, table.schema)
            writer.write_table(_conformed(table, writer.schema))
        writer.close()
        os.replace(draft, path)
    finally:
        if writer is not None and writer.is_open:
            with suppress(Exception):
                writer.close()
        draft.unlink(missing_ok=True)


def _conformed(table: Any, schema: Any) -> Any:
    """A table with the columns of the first one; a schema with free keys may give more, or fewer."""
    if table.schema.equals(schema):
        return table
    there = set(table.column_names)
    columns = [
        table[field.name].cast(field.type) if field.name in there else arrow().nulls(len(table), field.type)
        for field in schema
    ]
    return arrow().table(columns, schema=schema)


def _pieces(source: Source) -> Iterator[pd.DataFrame]:
    is_empty = True
    for piece in source.pieces():
        is_empty = False
        yield piece
    if is_empty:
        yield pd.DataFrame(columns=source.columns)


def _table(piece: pd.DataFrame, found: list[tuple[Facts, bool]], shape: Shape | None, types: dict[Any, Any]) -> Any:
    """A piece as it is written; `types` are those of the columns that the rows came with."""
    whole = answered(piece, found, shape)
    said = _said_types(shape)
    columns: dict[str, Any] = {}
    for at, name in enumerate(whole.columns):
        column: Any = whole.iloc[:, at]
        is_given = at < len(piece.columns)
        kind = types.get(name) if is_given else said.get(str(name).removesuffix("_llm"), arrow().string())
        columns[str(name)] = _array(column, kind)
    # what names the rows is written, too, unless it counts them
    index: Any = whole.index
    if not isinstance(index, pd.RangeIndex):
        for level in range(index.nlevels):
            name = str(index.names[level] if index.names[level] is not None else "index")
            if name not in columns:
                columns[name] = _array(pd.Series(index.get_level_values(level)), types.get(_Level(level)))
    return arrow().table(columns)


def _array(column: Any, kind: Any) -> Any:
    """A column as Arrow has it; what it has no type for is written as text."""
    if kind is not None:
        with suppress(arrow().ArrowInvalid, arrow().ArrowTypeError, arrow().ArrowNotImplementedError, TypeError):
            return arrow().array(column, type=kind, from_pandas=True)
    texts = arrow().array([_text(value) for value in column], type=arrow().string())
    return texts if kind is None else texts.cast(kind)


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, (dict, list)):
        return json.dumps(cast("object", value), ensure_ascii=False, default=str)
    is_missing = value is None or (pd.api.types.is_scalar(value) and bool(cast("Any", pd).isna(value)))
    return None if is_missing else str(value)


# Types ----------------------------------------------------------------------------------------------------------------


def _types(source: Source) -> dict[Any, Any]:
    """One type for each column, by all pieces; None where they have none in common, and of the index by its level."""
    known: dict[Any, Any] = {}
    for piece in source.pieces():
        columns: list[tuple[Any, Any]] = [(name, piece.iloc[:, at]) for at, name in enumerate(piece.columns)]
        levels = range(0 if isinstance(piece.index, pd.RangeIndex) else piece.index.nlevels)
        columns += [(_Level(level), pd.Series(piece.index.get_level_values(level))) for level in levels]
        for name, column in columns:
            kind = _type(column)
            known[name] = kind if name not in known else _common(known[name], kind)
    return {name: None if kind is None or kind == arrow().null() else kind for name, kind in known.items()}


def _type(column: Any) -> Any:
    try:
        return arrow().array(column, from_pandas=True).type
    except (arrow().ArrowException, TypeError, ValueError):
        return None


def _common(one: Any, other: Any) -> Any:
    if one is None or other is None:
        return None
    try:
        schemas = [arrow().schema([("x", kind)]) for kind in (one, other)]
        return arrow().unify_schemas(schemas, promote_options="permissive").field("x").type
    except (arrow().ArrowException, TypeError):
        return None


def _said_types(shape: Shape | None) -> dict[str, Any]:
    """The types of the columns that the run adds."""
    numbers = {"cost_usd": arrow().float64(), "input_tokens": arrow().int64(), "output_tokens": arrow().int64()}
    if shape is None:
        return numbers
    properties: dict[str, Any] = cast("dict[str, Any]", shape.schema.get("properties", {}))
    return {**{name: _schema_type(one) for name, one in properties.items()}, **numbers}


def _schema_type(schema: dict[str, Any]) -> Any:
    """The type of a value by its JSON schema; what is not plain is written as JSON."""
    choices = [one for one in schema.get("anyOf", [schema]) if one.get("type") != "null"]
    kind = choices[0].get("type") if len(choices) == 1 else None
    if kind == "array" and (item := _TYPES.get(str(choices[0].get("items", {}).get("type")))):
        return arrow().list_(getattr(arrow(), item)() if item != "double" else arrow().float64())
    if kind in _TYPES:
        return arrow().float64() if kind == "number" else getattr(arrow(), _TYPES[kind])()
    return None
