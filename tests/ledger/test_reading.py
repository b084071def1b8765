"""calls() and usage(): columns, order, filters, and sums held against plain Python."""

from __future__ import annotations

import sqlite3
import tempfile
from collections import defaultdict
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmnb.errors import InvalidRequest
from llmnb.ledger import DIMENSIONS, Ledger, Store, calls, migrations, usage
from llmnb.ledger.totals import TOKEN_COLUMNS
from llmnb.records import Call

COLUMNS = [
    "uid",
    "parent_uid",
    "ts",
    "project",
    "session",
    "user",
    "notebook",
    "cell",
    "chat",
    "run_id",
    "batch_id",
    "template",
    "tag",
    "provider",
    "model_requested",
    "model",
    "status",
    "source",
    "is_call",
    "stop_reason",
    "error_type",
    "stream",
    "attempts",
    "wait_ms",
    "latency_ms",
    "ttft_ms",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_write_unsplit_tokens",
    "output_tokens",
    "thinking_tokens",
    "web_search_requests",
    "web_fetch_requests",
    "service_tier",
    "speed",
    "inference_geo",
    "cost_usd",
    "cost_nanousd",
    "saved_usd",
    "cache_breakpoints",
    "cache_miss_reason",
    "estimated",
    "price_id",
    "request_id",
    "estimated_input_tokens",
    "estimated_by",
]
TOTALS = [
    "calls",
    "errors",
    "cached_calls",
    "retries",
    "wait_ms",
    "input_tokens",
    "cache_read_tokens",
    "cache_write_5m_tokens",
    "cache_write_1h_tokens",
    "cache_write_unsplit_tokens",
    "output_tokens",
    "thinking_tokens",
    "web_search_requests",
    "web_fetch_requests",
    "cost_usd",
    "cost_nanousd",
    "saved_usd",
    "unpriced_calls",
    "estimated_calls",
    "output_tokens_per_s",
    "latency_p50_ms",
    "latency_p95_ms",
    "ttft_p50_ms",
    "ttft_p95_ms",
]


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, store: Store) -> Store:
    """The ledger of the settings, in either database, in the timezone of Oslo."""
    monkeypatch.setenv("LLMNB_TIMEZONE", "Europe/Oslo")
    return store


def oslo_us(*parts: int) -> int:
    """Microseconds since 1970 of a time in Oslo."""
    return int(datetime(*parts, tzinfo=ZoneInfo("Europe/Oslo")).timestamp()) * 1_000_000  # type: ignore[misc]


# No ledger ------------------------------------------------------------------------------------------------------------


def test_without_a_ledger_frames_are_empty_and_typed(llmnb_home: Path) -> None:
    """The columns and their types are those of a full frame, and nothing is created."""
    found, totals = calls(), usage(by=["day", "model"])
    assert (list(found), len(found)) == (COLUMNS, 0)
    assert (list(totals), len(totals)) == (["day", "model", *TOTALS], 0)
    assert usage(by=[])["calls"].tolist() == [0]
    assert usage(by=[])["cost_usd"].isna().all()
    assert not llmnb_home.exists()


def test_types_do_not_depend_on_the_rows(own: Store, make_call, tmp_path: Path) -> None:
    """A full frame and an empty one can be concatenated, and the empty one plotted."""
    own.write(make_call())
    for ask in (calls, lambda **k: usage(by=["day", "model"], **k)):
        full, empty = ask(), ask(path=tmp_path / "none.db")
        assert full.dtypes.to_dict() == empty.dtypes.to_dict()
    types = calls().dtypes.astype(str)
    assert types[["ts", "cost_usd", "cost_nanousd", "is_call", "model", "latency_ms"]].tolist() == [
        "datetime64[us, Europe/Oslo]", "Float64", "Int64", "boolean", "string", "Float64",
    ]  # fmt: skip


def test_reading_changes_nothing(monkeypatch: pytest.MonkeyPatch, ledger: Ledger, make_call) -> None:
    """Not a byte of the file is written by a reader."""
    own = ledger
    monkeypatch.setenv("LLMNB_STORE_URL", f"sqlite:///{own.path}")
    own.write(make_call())
    own.close()
    before = own.path.read_bytes()
    calls(), usage(by=["day"])
    assert own.path.read_bytes() == before
    with closing(sqlite3.connect(f"{own.path.as_uri()}?mode=ro", uri=True)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (migrations.LATEST,)


# calls() --------------------------------------------------------------------------------------------------------------


def test_calls_are_newest_first_and_without_children(own: Store, make_call) -> None:
    """Child rows come only when asked for; the limit counts what is shown."""
    own.write(make_call(uid="old", ts=1), [make_call(uid="child", ts=2, parent_uid="old", is_call=False)])
    own.write(make_call(uid="new", ts=3))
    assert calls()["uid"].tolist() == ["new", "old"]
    assert calls(children=True)["uid"].tolist() == ["new", "child", "old"]
    assert calls(limit=1)["uid"].tolist() == ["new"]
    assert calls(limit=0)["uid"].tolist() == []


def test_an_unpriced_call_has_no_cost_and_a_free_one_costs_nothing(own: Store, make_call) -> None:
    """Missing and 0 are different things; dollars are the exact nano-dollars, divided once."""
    own.write(make_call(uid="a", ts=3, cost_nanousd=None, saved_nanousd=None))
    own.write(make_call(uid="b", ts=2, cost_nanousd=0, saved_nanousd=5_000_000_000))
    own.write(make_call(uid="c", ts=1, cost_nanousd=123_456_789_012_345_678))
    found = calls()
    assert found["cost_usd"].isna().tolist() == [True, False, False]
    assert found["cost_usd"].tolist()[1:] == [0.0, 123456789.012345678]
    assert found["cost_nanousd"].tolist()[2] == 123_456_789_012_345_678
    assert found["saved_usd"].tolist()[1] == 5.0


def test_content_comes_only_when_asked_for(own: Store, make_call) -> None:
    """`content` is a last column, and not in the ordinary frame."""
    own.write(make_call(content='{"messages": []}'))
    assert "content" not in calls()
    assert calls(content=True)["content"].tolist() == ['{"messages": []}']


def test_since_holds_its_begin_and_until_not_its_end(own: Store, make_call) -> None:
    """Two ranges that touch share no call and miss none."""
    for hour in (0, 12, 24):
        own.write(make_call(uid=str(hour), ts=oslo_us(2026, 11, 20) + hour * 3_600_000_000))
    assert calls(since="2026-11-20", until="2026-11-21")["uid"].tolist() == ["12", "0"]
    assert calls(since="2026-11-21")["uid"].tolist() == ["24"]
    assert calls(until="2026-11-20")["uid"].tolist() == []


def test_where_takes_a_value_a_list_or_none(own: Store, make_call) -> None:
    """None finds what has no value, also inside a list; text is never SQL."""
    for uid, project in (("a", "thesis"), ("b", "paper"), ("c", None), ("d", "x' OR 1 --")):
        own.write(make_call(uid=uid, project=project))
    ask = lambda value: sorted(calls(where={"project": value})["uid"])  # noqa: E731
    assert ask("thesis") == ["a"]
    assert ask(["thesis", "paper"]) == ["a", "b"]
    assert ask(None) == ["c"]
    assert ask(["thesis", None]) == ["a", "c"]
    assert ask("x' OR 1 --") == ["d"]
    assert ask([]) == []
    assert ask([f"p{number}" for number in range(40_000)] + ["paper"]) == ["b"]
    assert calls(where={"is_call": True, "uid": "a"})["uid"].tolist() == ["a"]


# usage() --------------------------------------------------------------------------------------------------------------


def test_children_count_as_tokens_and_money_but_not_as_calls(own: Store, make_call) -> None:
    """An iteration on another model stands in that model's group."""
    own.write(
        make_call(uid="a", model="big", cost_nanousd=1_000),
        [make_call(uid="b", model="small", parent_uid="a", is_call=False, cost_nanousd=30, output_tokens=5)],
    )
    found = usage().set_index("model")
    assert found["calls"].to_dict() == {"big": 1, "small": 0}
    assert found["cost_nanousd"].to_dict() == {"big": 1_000, "small": 30}
    assert found["output_tokens"].to_dict() == {"big": 20, "small": 5}
    assert usage(by=[])[["calls", "cost_nanousd"]].values.tolist() == [[1, 1_030]]


def test_a_group_without_any_price_has_no_cost(own: Store, make_call) -> None:
    """It is missing, not 0, and unpriced calls are counted."""
    own.write(make_call(model="a", cost_nanousd=None))
    own.write(make_call(model="b", cost_nanousd=None))
    own.write(make_call(model="b", cost_nanousd=7))
    found = usage().set_index("model")
    assert pd.isna(found.loc["a", "cost_usd"])
    assert found.loc["b", "cost_usd"] == 7e-9
    assert found["unpriced_calls"].to_dict() == {"a": 1, "b": 1}


def test_errors_are_calls_that_failed_for_the_caller(own: Store, make_call) -> None:
    """An error and a truncated stream are; what the user stopped is not."""
    for status in ("ok", "error", "cancelled", "truncated", "interrupted", "running"):
        own.write(make_call(status=status))
    assert usage(by=[])[["calls", "errors"]].values.tolist() == [[6, 2]]


def test_percentiles_are_of_live_calls_that_ended_ok(own: Store, make_call) -> None:
    """Linear between neighbours: of 10, 20, … 100 ms half lie below 55 and 95 % below 95.5."""
    for number in range(1, 11):
        own.write(make_call(latency_ms=number * 10.0, ttft_ms=float(number)))
    own.write(make_call(latency_ms=0.5, source="cache"))
    own.write(make_call(latency_ms=9999.0, status="cancelled"))
    found = usage(by=[])[["latency_p50_ms", "latency_p95_ms", "ttft_p50_ms", "ttft_p95_ms"]].values.tolist()[0]
    assert found == pytest.approx([55.0, 95.5, 5.5, 9.55])


def test_days_are_cut_in_the_reporting_timezone(own: Store, make_call, monkeypatch: pytest.MonkeyPatch) -> None:
    """00:30 in Oslo is the day before in UTC; the day clocks go back has 25 hours."""
    for ts in (oslo_us(2026, 10, 24, 23, 59), oslo_us(2026, 10, 25, 0, 30), oslo_us(2026, 10, 25, 23, 59)):
        own.write(make_call(ts=ts))
    found = usage(by="day")
    assert [str(day) for day in found["day"]] == ["2026-10-24 00:00:00+02:00", "2026-10-25 00:00:00+02:00"]
    assert found["calls"].tolist() == [1, 2]
    monkeypatch.setenv("LLMNB_TIMEZONE", "UTC")
    assert usage(by="day")["calls"].tolist() == [2, 1]


def test_columns_stand_as_they_were_asked_for(own: Store, make_call) -> None:
    """Dimensions first, in the order of `by`; time in its order, then the dearest first."""
    own.write(make_call(ts=oslo_us(2026, 11, 2), model="cheap", cost_nanousd=1))
    own.write(make_call(ts=oslo_us(2026, 11, 2), model="dear", cost_nanousd=9))
    own.write(make_call(ts=oslo_us(2026, 11, 1), model="unpriced", cost_nanousd=None))
    found = usage(by=["model", "month", "project"])
    assert list(found) == ["model", "month", "project", *TOTALS]
    assert found["model"].tolist() == ["dear", "cheap", "unpriced"]
    assert usage(by=["day", "model"])["model"].tolist() == ["unpriced", "dear", "cheap"]


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"by": ["modle"]}, "unknown name 'modle' in by: did you mean 'model'"),
        ({"by": "wek"}, "did you mean 'week'"),
        ({"by": ["day", "hour"]}, "cuts time twice"),
        ({"by": ["model", "model"]}, "names something twice"),
        ({"by": None}, "by=None: give a name or a list of names"),
        ({"where": "thesis"}, "where='thesis': give a dict"),
        ({"where": {"proyect": 1}}, "unknown name 'proyect' in where: did you mean 'project'"),
        ({"since": "last week"}, "no point in time"),
    ],
)
def test_a_question_that_is_not_understood_is_refused(question: dict[str, Any], message: str) -> None:
    """Also without a ledger; it is a ValueError that names the nearest word."""
    with pytest.raises(InvalidRequest, match=message):
        usage(**question)


def test_a_negative_limit_is_refused() -> None:
    """SQLite would take it for no limit."""
    with pytest.raises(InvalidRequest, match="limit=-1"):
        calls(limit=-1)


# Held against plain Python --------------------------------------------------------------------------------------------

names = st.sampled_from(["a", "b", None])
counts = st.integers(0, 10**9)
maybe = st.one_of(st.none(), st.floats(0, 1e6, allow_subnormal=False))
random_calls = st.lists(
    st.builds(
        Call,
        uid=st.uuids().map(str),
        ts=st.integers(oslo_us(2026, 10, 20), oslo_us(2026, 11, 5)),
        model_requested=st.just("m"),
        model=names,
        project=names,
        status=st.sampled_from(["ok", "error", "cancelled", "truncated", "interrupted", "running"]),
        source=st.sampled_from(["live", "cache"]),
        is_call=st.booleans(),
        estimated=st.booleans(),
        attempts=st.integers(0, 4),
        latency_ms=maybe,
        ttft_ms=maybe,
        cost_nanousd=st.one_of(st.none(), st.integers(0, 10**14)),
        saved_nanousd=st.one_of(st.none(), st.integers(0, 10**14)),
        thinking_tokens=st.one_of(st.none(), counts),
        **{name: counts for name in TOKEN_COLUMNS if name != "thinking_tokens"},
    ),
    unique_by=lambda call: call.uid,
    max_size=30,
)
groupings = st.sampled_from([(), ("model",), ("model", "project"), ("status", "day"), ("week",), ("hour", "model")])


def plain_key(call: Call, by: tuple[str, ...]) -> tuple[object, ...]:
    """The group of a call, worked out without SQL or the module's own calendar."""
    local = pd.Timestamp(call.ts, unit="us", tz="UTC").tz_convert("Europe/Oslo")
    day = pd.Timestamp(local.date(), tz="Europe/Oslo")
    spans = {"day": day, "week": pd.Timestamp(local.date() - pd.Timedelta(days=local.weekday()), tz="Europe/Oslo")}
    spans["hour"] = pd.Timestamp(call.ts // 3_600_000_000 * 3_600, unit="s", tz="UTC")
    return tuple(plain_value(spans[name] if name in spans else getattr(call, name)) for name in by)


def plain_value(value: object) -> object:
    """A label, with moments in UTC: equal moments in an hour that comes twice have different hashes."""
    if isinstance(value, pd.Timestamp):
        return value.tz_convert("UTC")
    return None if pd.isna(value) else value


def plain_sums(group: list[Call]) -> dict[str, int | None]:
    """The integer columns of a group."""
    costs = [call.cost_nanousd for call in group if call.cost_nanousd is not None]
    return {
        "calls": sum(call.is_call for call in group),
        "errors": sum(call.is_call and call.status in ("error", "truncated") for call in group),
        "cached_calls": sum(call.is_call and call.source != "live" for call in group),
        "retries": sum(call.is_call * max(call.attempts - 1, 0) for call in group),
        **{name: sum(getattr(call, name) or 0 for call in group) for name in TOKEN_COLUMNS},
        "cost_nanousd": sum(costs) if costs else None,
        "unpriced_calls": len(group) - len(costs),
        "estimated_calls": sum(call.is_call and call.estimated for call in group),
    }


def plain_percentiles(group: list[Call]) -> list[float | None]:
    """Latency and time to first token, by numpy."""
    live = [call for call in group if call.is_call and call.source == "live"]
    latency = [call.latency_ms for call in live if call.latency_ms is not None and call.status == "ok"]
    ttft = [call.ttft_ms for call in live if call.ttft_ms is not None]
    return [float(np.percentile(v, share)) if v else None for v in (latency, ttft) for share in (50, 95)]


@settings(deadline=None, max_examples=60)
@given(random_calls, groupings, st.lists(st.sampled_from(TOTALS), min_size=1, unique=True))
def test_usage_equals_plain_python_sums(rows: list[Call], by: tuple[str, ...], some: list[str]) -> None:
    """For any calls and grouping, every integer is exactly the sum, and every group is there once, whole or in part."""
    groups: dict[tuple[object, ...], list[Call]] = defaultdict(list)
    for call in rows:
        groups[plain_key(call, by)].append(call)
    if not by:
        groups.setdefault((), [])
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("LLMNB_TIMEZONE", "Europe/Oslo")
        ledger = Ledger(Path(folder) / "ledger.db")
        for call in rows:
            ledger.write(call)
        found, fewer = usage(by=by, path=ledger.path), usage(by=by, columns=some, path=ledger.path)
        ledger.close()
    pd.testing.assert_frame_equal(fewer, found[[*by, *some]], check_column_type=False)
    assert len(found) == len(groups)
    for _, row in found.astype(object).iterrows():
        group = groups.pop(tuple(plain_value(row[name]) for name in by))
        sums = plain_sums(group)
        assert {name: None if pd.isna(row[name]) else row[name] for name in sums} == sums
        assert row["cost_usd"] == sums["cost_nanousd"] / 1e9 if sums["cost_nanousd"] else True
        for name, expected in zip(TOTALS[-4:], plain_percentiles(group), strict=True):
            assert pd.isna(row[name]) if expected is None else row[name] == pytest.approx(expected, rel=1e-9)


def test_a_column_that_there_is_not_is_refused(own: Store) -> None:
    """With the nearest that there is."""
    with pytest.raises(InvalidRequest, match="did you mean 'cost_usd'"):
        usage(columns=["cost_us"], path=own.path)


def test_every_dimension_can_be_asked_for(own: Store, make_call) -> None:
    """Each name of the contract groups and filters."""
    own.write(make_call())
    for name in DIMENSIONS:
        value = usage(by=[name])[name].tolist()[0]
        assert usage(by=[name], where={name: None if pd.isna(value) else value})["calls"].tolist() == [1]


# Pages ----------------------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(min_value=0, max_value=3), min_size=1, max_size=20), st.integers(min_value=1, max_value=6))
def test_pages_hold_every_call_once(seconds: list[int], size: int) -> None:
    """Page after page by cursor is the whole list, forwards and backwards, whatever calls have the same moment."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        with closing(Ledger(path)) as store:
            for number, second in enumerate(seconds):
                store.write(Call(uid=str(number), ts=1_795_608_000_000_000 + second, model_requested="m", status="ok"))
        everything = calls(path=path)["uid"].tolist()
        older = calls(path=path, limit=size)["uid"].tolist()
        while page := calls(path=path, limit=size, before=older[-1])["uid"].tolist():
            older += page
        assert older == everything
        newer = everything[-1:]
        while page := calls(path=path, limit=size, after=newer[0])["uid"].tolist():
            newer = page + newer
        assert newer == everything
        assert calls(path=path, before=everything[0], after=everything[-1])["uid"].tolist() == everything[1:-1]


def test_a_cursor_that_is_not_there_is_refused(ledger: Ledger) -> None:
    """Going on from a call that was pruned is an error that says what to do."""
    with pytest.raises(InvalidRequest, match="begin again"):
        calls(path=ledger.path, before="gone")
