"""Writes the calls of the ledger to a file, a page at a time, so that memory stays flat whatever the ledger's size.

`csv`, `json` (a JSON object a line) and `parquet` hold the columns of `calls()`. `otel` holds a span a line in OTLP's
JSON form, with the attribute names of OpenTelemetry's semantic conventions for generative AI: what its collector's
`otlpjsonfile` receiver reads.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import closing, suppress
from datetime import tzinfo
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Literal, cast

from llmnb.errors import MissingExtra
from llmnb.ledger.connection import reading
from llmnb.ledger.filters import known, time_condition, time_range_us, where_condition
from llmnb.ledger.frames import Kind
from llmnb.ledger.rows import CALL_COLUMNS, stored_columns
from llmnb.ledger.shelf import settle
from llmnb.ledger.zones import Moment, from_us, reporting_zone
from llmnb.places import Place
from llmnb.settings import load

Format = Literal["csv", "json", "parquet", "otel"]
FORMATS: tuple[Format, ...] = ("csv", "json", "parquet", "otel")
PAGE = 10_000

Row = dict[str, Any]


def export(
    path: Path,
    format: Format | None = None,
    *,
    since: Moment = None,
    until: Moment = None,
    where: Mapping[str, object] | None = None,
    ledger: Place | None = None,
) -> int:
    """Writes calls, oldest first and children included, to `path`; the number of rows.

    Args:
        path: the file; written beside it first, so that what was there stays when something fails.
        format: csv, json (lines), parquet or otel; unset: from the ending of the file's name.
        since, until, where: which calls, as for `calls()`.
        ledger: the ledger file; unset: the one of the settings.

    Raises:
        InvalidRequest: a name, a moment or a format is not understood.
        MissingExtra: parquet, without pyarrow.
        StoreError: the ledger cannot be read.
        OSError: the file cannot be written.
    """
    chosen = format or _ENDINGS.get(path.suffix.lower())
    known(chosen, FORMATS, "format (or give the file an ending such as .csv, .jsonl, .parquet, .otlp.json)")
    settings = load()
    zone, where_from = reporting_zone(settings), ledger or settings.ledger_path
    settle(where_from)
    part = path.with_name(path.name + ".part")
    try:
        pages = _pages(where_from, time_range_us(since, until, zone), where, zone)
        with closing(pages):
            rows = _WRITERS[cast("Format", chosen)](part, pages)
        part.replace(path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)
    return rows


_ENDINGS: dict[str, Format] = {
    ".csv": "csv", ".json": "json", ".jsonl": "json", ".ndjson": "json", ".parquet": "parquet", ".otlp": "otel"
}  # fmt: skip


def _pages(
    path: Place, span: tuple[int | None, int | None], where: Mapping[str, object] | None, zone: tzinfo
) -> Generator[list[Row]]:
    """Rows by the order of their ids, each page from where the last one ended; on one snapshot of the ledger."""
    in_time, wanted = time_condition(*span), where_condition(where)
    with reading(path) as connection:
        if connection is None:
            return
        names = list(CALL_COLUMNS)
        columns = ", ".join(["id", *stored_columns(connection, names)])
        sql = f"SELECT {columns} FROM calls WHERE id > ? AND {in_time.sql} AND {wanted.sql} ORDER BY id LIMIT {PAGE}"  # noqa: S608
        last_id = 0
        connection.execute("BEGIN")
        while found := connection.execute(sql, (last_id, *in_time.parameters, *wanted.parameters)).fetchall():
            last_id = found[-1][0]
            yield [_row(names, row[1:], zone) for row in found]


def _row(names: list[str], values: tuple[Any, ...], zone: tzinfo) -> Row:
    return {name: _value(CALL_COLUMNS[name], value, zone) for name, value in zip(names, values, strict=True)}


def _value(kind: Kind, value: Any, zone: tzinfo) -> Any:
    if value is None:
        return None
    if kind == "bool":
        return bool(value)
    if kind == "usd":
        return value / 10**9
    return from_us(value, zone) if kind == "time" else value


# Formats --------------------------------------------------------------------------------------------------------------


def _csv(path: Path, pages: Iterable[list[Row]]) -> int:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(CALL_COLUMNS))
        writer.writeheader()
        return _written(pages, lambda rows: writer.writerows({**row, "ts": row["ts"].isoformat()} for row in rows))


def _json(path: Path, pages: Iterable[list[Row]]) -> int:
    with path.open("w", encoding="utf-8") as file:
        return _written(pages, lambda rows: _lines(file, ({**row, "ts": row["ts"].isoformat()} for row in rows)))


def _otel(path: Path, pages: Iterable[list[Row]]) -> int:
    with path.open("w", encoding="utf-8") as file:
        return _written(pages, lambda rows: _lines(file, map(span_of, rows)))


def _parquet(path: Path, pages: Iterable[list[Row]]) -> int:
    try:
        import pyarrow as pa  # pyright: ignore[reportMissingTypeStubs]
        import pyarrow.parquet as pq  # pyright: ignore[reportMissingTypeStubs]
    except ImportError:
        raise MissingExtra("exporting to Parquet", "parquet") from None
    arrow: Any = pa
    kinds = {
        "text": arrow.string(), "int": arrow.int64(), "float": arrow.float64(), "bool": arrow.bool_(),
        "usd": arrow.float64(), "time": arrow.timestamp("us", tz="UTC"),
    }  # fmt: skip
    schema = arrow.schema([(name, kinds[kind]) for name, kind in CALL_COLUMNS.items()])
    with cast("Any", pq).ParquetWriter(path, schema, compression="zstd") as writer:
        return _written(pages, lambda rows: writer.write_table(arrow.Table.from_pylist(rows, schema=schema)))


_WRITERS: dict[Format, Callable[[Path, Iterable[list[Row]]], int]] = {
    "csv": _csv, "json": _json, "parquet": _parquet, "otel": _otel
}  # fmt: skip


def _written(pages: Iterable[list[Row]], write: Callable[[list[Row]], object]) -> int:
    count = 0
    for rows in pages:
        write(rows)
        count += len(rows)
    return count


def _lines(file: IO[str], rows: Iterable[Row]) -> None:
    file.writelines(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)


# OpenTelemetry --------------------------------------------------------------------------------------------------------

# https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
_ATTRIBUTES = {
    "gen_ai.provider.name": "provider",
    "gen_ai.request.model": "model_requested",
    "gen_ai.response.model": "model",
    "gen_ai.response.id": "request_id",
    "gen_ai.conversation.id": "chat",
    "gen_ai.usage.output_tokens": "output_tokens",
    "gen_ai.usage.cache_read.input_tokens": "cache_read_tokens",
    "error.type": "error_type",
    "enduser.id": "user",
}
_OURS = ("project", "session", "notebook", "cell", "template", "tag", "status", "source", "cost_nanousd", "attempts",
         "cache_write_5m_tokens", "cache_write_1h_tokens", "cache_write_unsplit_tokens", "thinking_tokens",
         "service_tier", "price_id", "estimated", "ttft_ms")  # fmt: skip
"""What has no name there; under `llmnb.`."""


def span_of(row: Row) -> Row:
    """A call as one line of OTLP's JSON: a client span, from its start to its end."""
    start_ns = int(row["ts"].timestamp() * 1_000_000) * 1_000
    written = sum(row[f"cache_write_{kind}_tokens"] for kind in ("5m", "1h", "unsplit"))
    facts: Row = {"gen_ai.operation.name": "chat"}
    facts |= {name: row[column] for name, column in _ATTRIBUTES.items()}
    facts["gen_ai.usage.input_tokens"] = row["input_tokens"] + row["cache_read_tokens"] + written
    facts["gen_ai.usage.cache_creation.input_tokens"] = written
    facts["gen_ai.response.finish_reasons"] = [row["stop_reason"]] if row["stop_reason"] else None
    facts |= {f"llmnb.{name}": row[name] for name in _OURS}
    model = row["model"] or row["model_requested"]
    span: Row = {
        "traceId": _id(row["parent_uid"] or row["uid"], 16),
        "spanId": _id(row["uid"], 8),
        **({"parentSpanId": _id(row["parent_uid"], 8)} if row["parent_uid"] else {}),
        "name": f"chat {model}",
        "kind": 3,
        "startTimeUnixNano": str(start_ns),
        "endTimeUnixNano": str(start_ns + int((row["latency_ms"] or 0) * 1e6)),
        "attributes": [{"key": name, "value": _any(value)} for name, value in facts.items() if value is not None],
        "status": {"code": 2 if row["status"] in ("error", "truncated", "interrupted") else 1},
    }
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "llmnb"}}]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {"name": "llmnb"}, "spans": [span]}]}]}


def _id(uid: str, size: int) -> str:
    return sha256(uid.encode()).hexdigest()[: 2 * size]


def _any(value: Any) -> Row:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_any(item) for item in cast("list[Any]", value)]}}
    return {"stringValue": str(value)}
