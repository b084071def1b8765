"""One call, opened over the page: what it cost line by line, how long what took, who asked, and its text if kept."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import fields
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

import books
import clock
import figures
import pandas as pd
import streamlit as st

from llmnb import ledger, settings
from llmnb.ledger.zones import from_us, to_us
from llmnb.pricing import cost_of_call
from llmnb.pricing.breakdown import cost_lines
from llmnb.pricing.costs import BY_PROMPT
from llmnb.records import NANO, Call

_ASKED_BY = ("project", "user", "notebook", "cell", "chat", "template", "tag", "run_id", "batch_id", "session")
_ANSWERED = ("provider", "model_requested", "model", "service_tier", "speed", "inference_geo", "stop_reason")
_CACHED = ("cache_breakpoints", "cache_miss_reason")


def show(uid: str, on_dismiss: Callable[[], None]) -> None:
    """Open the call over the page; `on_dismiss` is called when it is closed."""
    st.dialog("Call", width="large", on_dismiss=on_dismiss)(_body)(uid)


def found(uid: str) -> list[Call]:
    """The call and then its iterations that were billed on another model; nothing where there is no such call."""
    asked = {"children": True, "content": True, "path": books.location()}
    own = ledger.calls(where={"uid": uid}, limit=1, **asked)
    children = ledger.calls(where={"parent_uid": uid}, limit=100, **asked)
    return [_call(row) for row in [*own.to_dict("records"), *children.to_dict("records")]]


def _call(row: dict[str, Any]) -> Call:
    row["ts"] = to_us(row["ts"].to_pydatetime())
    row["saved_nanousd"] = None if pd.isna(row["saved_usd"]) else round(row["saved_usd"] * 1e9)
    return Call(**{f.name: None if pd.isna(row[f.name]) else row[f.name] for f in fields(Call)})


def _body(uid: str) -> None:
    with books.in_plain_words():
        calls = found(uid)
        if not calls:
            st.write(f"No call has the uid {figures.plain(uid)}: it may have been pruned, or be in another ledger.")
            return
        call, *children = calls
        _head(call)
        _cost(call, children)
        _timings(call)
        _facts(call)
        _text(call)


def _head(call: Call) -> None:
    name, kind = figures.plain(call.model or call.model_requested), figures.plain(call.error_type or "")
    st.markdown(f"**{name}** · {call.status}" + (f" · {kind}" if kind else ""))
    when = from_us(call.ts, clock.zone())
    st.caption(f"{when:%a} {when.day} {when:%b %Y, %H:%M:%S} · {clock.zone_name(when)}")


def _cost(call: Call, children: list[Call]) -> None:
    st.markdown("**What it cost**")
    if call.source != "live":
        saved = "" if call.saved_nanousd is None else f"; it would have cost {figures.exact_money(call.saved_nanousd)}"
        st.write(f"Nothing: it was answered from the {call.source}{saved}.")
    elif not any(one.usage != type(one.usage)() for one in (call, *children)):
        st.write("Nothing: no token was billed.")
    else:
        st.dataframe(
            pd.DataFrame([line for one in (call, *children) for line in _lines(one)]),
            hide_index=True,
            width="stretch",
            placeholder="",  # of the sum
            column_config={"Count": st.column_config.NumberColumn(format="localized")},
        )
        for one in (call, *children):
            st.caption(_price(one))
    if call.saved_nanousd and call.source == "live":
        what = "saved" if call.saved_nanousd > 0 else "cost more than it saved:"
        st.caption(f"The prompt cache {what} {figures.exact_money(abs(call.saved_nanousd))} against no caching.")
    if call.estimated:
        st.caption("Some counts are bounds: the call ended before the API reported all its tokens.")


def _lines(call: Call) -> Iterator[dict[str, Any]]:
    """The lines of the arithmetic and their sum, for one model."""
    lines = cost_lines(call, settings.load().prices)
    for line in lines:
        unit = {1_000_000: "million", 1_000: "thousand"}[line.unit]
        yield {
            "Model": call.model or call.model_requested,
            "What": line.name,
            "Count": line.count,
            "Rate": "not known" if line.usd_per_unit is None else f"${line.usd_per_unit.normalize():f} a {unit}",
            "Dollars": figures.UNPRICED if line.usd is None else f"${line.usd:.9f}",
        }
    yield {
        "Model": call.model or call.model_requested,
        "What": "on the books",
        "Count": None,
        "Rate": "",
        "Dollars": figures.exact_money(call.cost_nanousd),
    }


def _price(call: Call) -> str:
    """The version of the price on the books, and whether the lines above are worked out with another one."""
    name = figures.plain(call.model or call.model_requested)
    if call.cost_nanousd is None:
        return f"{name} has no price: give it one on the page Prices & data."
    said = f"Price of {name}: `{call.price_id}`."
    if (call.price_id or "").endswith(BY_PROMPT):
        return f"{said} It took several prompts, each priced by its own length: the lines are of their sum."
    now = cost_of_call(call, settings.load().prices)
    if now.nanousd == call.cost_nanousd:
        return said
    lines = [line.usd for line in cost_lines(call, settings.load().prices)]
    total = sum((usd for usd in lines if usd is not None), Decimal(0)) * NANO
    return (
        f"{said} The lines are at today's price (`{now.price_id}`), which makes "
        f"{figures.exact_money(int(total.to_integral_value(ROUND_HALF_UP)))}: reprice to bring the books up to date."
    )


def _timings(call: Call) -> None:
    st.markdown("**Time**")
    facts = {"To the end": figures.duration(call.latency_ms), "First token": figures.duration(call.ttft_ms)}
    if call.latency_ms is not None and call.ttft_ms is not None and call.latency_ms > call.ttft_ms:
        writing_ms = call.latency_ms - call.ttft_ms
        facts["Writing"] = figures.duration(writing_ms)
        if call.output_tokens:
            facts["Speed"] = f"{call.output_tokens / writing_ms * 1000:,.0f} tokens/s"
    facts["Attempts"] = f"{call.attempts}"
    if call.attempts > 1:
        facts["Waited between"] = figures.duration(call.wait_ms)
    _pairs(facts)


def _facts(call: Call) -> None:
    st.markdown("**Who asked, who answered**")
    names = (*_ASKED_BY, *_ANSWERED, *_CACHED)
    facts = {name.replace("_", " "): str(value) for name in names if (value := getattr(call, name)) is not None}
    facts |= {"request id": call.request_id or figures.NOT_KNOWN, "uid": call.uid}
    facts["streamed"] = "yes" if call.stream else "no"
    _pairs(facts)


def _pairs(facts: dict[str, str]) -> None:
    rows = pd.DataFrame({"": list(facts), "Value": list(facts.values())})
    st.dataframe(rows, hide_index=True, width="stretch", height="content", column_config={"Value": " "})


def _text(call: Call) -> None:
    st.markdown("**Text**")
    if call.content is None:
        st.caption("Not kept: the ledger holds text only where `log_content` is on (LLMNB_LOG_CONTENT=true).")
        return
    try:
        text = json.dumps(json.loads(call.content), indent=2, ensure_ascii=False)
    except ValueError:
        text = call.content
    st.code(text, language="json", wrap_lines=True, height=360)  # never as Markdown: it is anybody's text
