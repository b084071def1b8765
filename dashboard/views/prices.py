"""Prices & data: which prices the books were written at, what has none, how the store is; export and demo data."""

from __future__ import annotations

from datetime import datetime

import books
import clock
import exporting
import figures
import frame
import price_tables
import streamlit as st
import tables
from filters import Filters

from llmnb import ledger, settings
from llmnb.demo import history
from llmnb.ledger.upkeep import status
from llmnb.pricing import price_table, remove_price, reprice, set_price

UNPRICED = (*books.TOKEN_CLASSES, "cost_nanousd", "unpriced_calls")


def page() -> None:
    """Prices first, then the data."""
    chosen = frame.view().chosen
    if said := st.session_state.pop("prices-said", None):
        st.toast(said.replace("$", "\\$"), icon=":material/check:")
    empty = books.is_empty()
    if not empty:
        unpriced()
    own()
    if not empty:
        versions(chosen)
    published()
    left, right = st.columns(2, gap="medium")
    with left:
        health()
    with right:
        if not empty:
            exported(chosen)
        demo()


def unpriced() -> None:
    """Models with calls that have no price, over all time, and the form that prices them."""
    usage = ledger.usage(by=["provider", "model"], columns=UNPRICED, path=books.location())
    rows = usage[usage["unpriced_calls"] > 0].sort_values("unpriced_calls", ascending=False)
    with st.container(border=True, key="unpriced"):
        st.markdown("**Models without a price**")
        if rows.empty:
            st.caption("Every call on the books has a price.")
            return
        st.write("What has no price is in no sum of dollars. Give it one, and its calls are priced anew.")
        price_tables.unpriced(rows)
        if books.shows_demo():
            return
        names = list(rows["model"].dropna().unique())
        with st.form("price-model", border=False), books.in_plain_words():
            model = st.selectbox("Model", names, accept_new_options=True, key="price-of")
            first, second, third, fourth = st.columns(4)
            dollars = {
                "input": first.text_input("Input", key="price-input", placeholder="$ per million"),
                "output": second.text_input("Output", key="price-output", placeholder="$ per million"),
                "cache_read": third.text_input("Cache read", key="price-read", placeholder="as input"),
                "cache_write_5m": fourth.text_input("Cache write", key="price-write", placeholder="as input"),
            }
            if st.form_submit_button("Price this model and reprice", type="primary"):
                _price(model or "", {name: text.strip().lstrip("$") for name, text in dollars.items()})


def _price(model: str, dollars: dict[str, str]) -> None:
    given = {name: text for name, text in dollars.items() if text or name in ("input", "output")}
    set_price(model, **given)
    done = reprice(ledger.open_ledger(), model=model)
    st.session_state["prices-said"] = (
        f"{model} has a price now. {figures.plural(done.newly_priced, 'call')} priced, which cost "
        f"{figures.money(done.after_nanousd - done.before_nanousd)}."
    )
    st.rerun()


def own() -> None:
    """The user's own prices, which win over the published ones."""
    known = settings.load()
    kept = settings.own_prices(known.prices_path)
    with st.container(border=True, key="own"):
        st.markdown("**Your own prices**")
        if not known.prices:
            st.caption(
                "None: all prices are published ones. Set some above, with `llmnb prices MODEL --input 1 --output 5`, "
                "or in pyproject.toml under `[tool.llmnb.prices]`."
            )
            return
        price_tables.own_prices(known.prices, kept)
        with st.container(horizontal=True, vertical_alignment="bottom"):
            if kept:
                model = st.selectbox("Forget the price of", sorted(kept), key="forget", width=320)
                with books.in_plain_words():
                    if st.button("Forget", icon=":material/delete:"):
                        remove_price(model)
                        st.rerun()
            with books.in_plain_words():
                if st.button("Reprice all calls", icon=":material/calculate:", disabled=books.shows_demo()):
                    done = reprice(ledger.open_ledger())
                    changed = figures.plural(done.changed, "call")
                    change = figures.money(done.after_nanousd - done.before_nanousd)
                    st.session_state["prices-said"] = f"{changed} changed, by {change} in all."
                    st.rerun()


def versions(chosen: Filters) -> None:
    """Which versions of prices the calls of the period were booked at."""
    quick, note = books.quick(chosen)
    usage = books.usage(quick, ["price_id"], ["calls", "cost_nanousd"], source=["live"])
    with st.container(border=True, key="versions"):
        st.markdown("**Price versions on the books**")
        priced = usage[usage["price_id"].notna()]
        if priced.empty:
            st.caption("No call of this period has a price.")
        else:
            price_tables.price_versions(priced)
        st.caption(f"Calls keep the price of their day; `llmnb prices --reprice` brings corrections in. {note}")


def published() -> None:
    """Prices as they are now, looked up by name."""
    with st.container(border=True, key="published"):
        st.markdown("**Prices now**")
        match = st.text_input("Model", "claude-", key="price-match", label_visibility="collapsed")
        rows = price_table(match=match.strip() or None, overrides=settings.load().prices)
        if rows:
            price_tables.prices(rows[:100])
        else:
            st.caption(figures.plain(f"No price is known for a model called {match!r}."))


def health() -> None:
    """How the store is."""
    with st.container(border=True, key="health"):
        st.markdown("**Store**")
        found = status(books.location(), settings.load(), count=False)
        if found is None:
            st.caption(f"There is no ledger at `{books.location()}` yet: the first call makes it.")
            return
        facts = {name: getattr(found, name) for name in found.__slots__}
        calls = int(ledger.usage(by=[], columns=["calls"], path=books.location())["calls"].sum())
        said = {
            "Where": str(facts["path"]),
            "Size": f"{figures.compact(int(facts['size_bytes']))}B",
            "Calls": figures.count(calls),
            "First call": _moment(facts["first_call"]),
            "Last call": _moment(facts["last_call"]),
            "Not summed up yet": figures.count(int(facts["waiting"])),
            "Days cut in": facts["zone"] or clock.zone_name(clock.now()),
            "Schema": str(facts["schema"]),
        }
        if facts["pruned_before"]:
            said["Single calls since"] = str(facts["pruned_before"])
        tables.facts(said)
        st.caption(
            "`llmnb doctor` looks deeper; `llmnb ledger prune --older 400d` makes it smaller, and keeps the totals."
        )


def _moment(iso: str | None) -> str:
    if iso is None:
        return figures.NOT_KNOWN
    when = datetime.fromisoformat(iso).astimezone(clock.zone())
    return f"{when.day} {when:%b %Y, %H:%M:%S}"


def exported(chosen: Filters) -> None:
    """The calls that the filter bar chose, as a file."""
    with st.container(border=True, key="export"):
        st.markdown("**Export**")
        st.write("The calls that the filter bar chose, one a row, with the columns of `llmnb.calls()`.")
        if exporting.is_too_much(chosen):
            st.caption(
                f"There are more than {exporting.ROWS:,} calls in this period: choose a shorter one, or use "
                "`llmnb export calls.parquet --since …`, which writes any number."
            )
            return
        ending = (
            st.segmented_control("Format", list(exporting.FORMATS), default="csv", required=True, key="format") or "csv"
        )
        st.download_button(
            "Download",
            data=lambda: exporting.file_of(chosen, ending),
            file_name=f"llmnb-calls.{ending}",
            mime=exporting.FORMATS[ending],
            icon=":material/download:",
            on_click="ignore",
        )


def demo() -> None:
    """Invented calls to look around in; in a file of their own, since they are nobody's money."""
    with st.container(border=True, key="demo-data"):
        st.markdown("**Demo data**")
        if books.shows_demo():
            st.write("You are looking at invented calls. Your own ledger is as it was.")
            if st.button("Back to your own ledger", icon=":material/undo:", type="primary"):
                st.session_state["demo"] = False
                st.rerun()
            return
        st.write("A month of invented calls, to see what the pages show. They are kept apart from your own books.")
        if st.button("Load demo data", icon=":material/science:"):
            path = settings.load().home / books.DEMO_FILE
            if ledger.calls(limit=1, path=path).empty:
                history.write(settings.load(store_url=f"sqlite:///{path}"), clock.now())
            st.session_state["demo"] = True
            st.rerun()


page()
