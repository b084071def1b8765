"""Calls to put on the books, and what a page shows of them."""

from __future__ import annotations

import io
import json
import re
from datetime import datetime, timedelta, timezone
from typing import Any

import pyarrow as pa
from streamlit.testing.v1 import AppTest

from llmnb.records import Call

UTC = timezone.utc  # noqa: UP017


def noon(days_ago: int) -> datetime:
    """Noon (UTC) of a day that is over."""
    assert days_ago > 0
    today = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
    return today - timedelta(days=days_ago)


def call(uid: str, at: datetime, **fields: Any) -> Call:
    """A finished call to claude-sonnet-5-5 that started at `at`."""
    ts = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    model = fields.pop("model", "claude-sonnet-5-5")
    plain = {"status": "ok", "model_requested": model or "claude-sonnet-5-5", "model": model, "latency_ms": 1_000.0}
    return Call(uid=uid, ts=ts, **{**plain, **fields})


def figures_of(app: AppTest) -> dict[str, str]:
    """The big numbers on the page, by their labels."""
    return {metric.label: metric.value for metric in app.metric}


def exact_of(app: AppTest) -> dict[str, str]:
    """What the tooltips of the big numbers say."""
    return {metric.label: metric.proto.help for metric in app.metric}


def spend_chart(app: AppTest) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The specification and the rows of the chart of spend."""
    proto = app.get("vega_lite_chart")[0].proto
    return json.loads(proto.spec), pa.ipc.open_stream(io.BytesIO(proto.data.data)).read_all().to_pylist()


def texts(app: AppTest) -> str:
    """All plain text on the page, without the backslashes that keep it plain."""
    groups = (app.markdown, app.caption, app.subheader, app.error, app.code)
    return re.sub(r"\\(.)", r"\1", "\n".join(str(element.value) for group in groups for element in group))
