"""Caching: what the prompt cache and the response cache saved, what was written for nothing, and why it was missed."""

from __future__ import annotations

import books
import cache_tables
import charts
import figures
import filters
import frame
import pandas as pd
import states
import streamlit as st
from period import buckets

from llmnb import ledger, settings
from llmnb.pricing import cache_bill

# why a prefix that should have been read was not, as the ledger writes it
REASONS = {
    "below_minimum": "The prompt is too short to cache on this model.",
    "expired": "The entry's lifetime had passed: ask sooner, or use prompt_cache='1h'.",
    "not_found": "Nobody had written it, or it is gone.",
    "model_changed": "The request before went to another model.",
    "tools_changed": "The tools were not what they were before.",
    "system_changed": "The system prompt was not what it was before.",
    "messages_changed": "An earlier message was not what it was before.",
    "settings_changed": "Settings such as thinking or tool choice were not what they were before.",
    "previous_message_not_found": "The API did not know the message before.",
}


def page() -> None:
    """Everything about both caches."""
    chosen = frame.view().chosen
    usage = books.usage(chosen, ["provider", "model"])
    totals = books.totals(usage)
    with frame.view().head:
        states.badges(totals)
    if not totals.calls:
        states.no_match(chosen)
        return
    quick, note = books.quick(chosen)
    found = books.usage(quick, ["source", "cache_miss_reason"], ["calls", "saved_usd"])  # one look at the rows for both
    used = usage[["cache_read_tokens", "cached_calls", *WRITTEN]].sum().sum()
    if not used:
        st.info(
            "Nothing was cached in this period. `LLM` and `Chat` use both caches by themselves; for your own clients "
            "say `llmnb.wrap(client, cache=True, prompt_cache='auto')`.",
            icon=":material/cached:",
        )
    else:
        metrics(usage, found, note)
        over_time(chosen)
        by_model(usage)
        unread(chosen)
    misses(found[found["source"] == "live"], note)


WRITTEN = ("cache_write_5m_tokens", "cache_write_1h_tokens", "cache_write_unsplit_tokens")


def metrics(usage: pd.DataFrame, found: pd.DataFrame, note: str) -> None:
    """What was saved in all and by each cache, and how much of the input was read from the cache."""
    saved = found["saved_usd"].map(books.nano)
    prompt = int(saved[found["source"] == "live"].sum())
    answers = int(saved.sum()) - prompt
    total = sum(books.nano(saved) for saved in usage["saved_usd"])
    read, written = int(usage["cache_read_tokens"].sum()), int(usage[list(WRITTEN)].sum().sum())
    asked = read + written + int(usage["input_tokens"].sum())
    hits, calls = int(usage["cached_calls"].sum()), int(usage["calls"].sum())
    with st.container(horizontal=True, key="metrics"):
        net = "What calls would have cost without either cache, less what they cost and what writing cost more."
        st.metric("Saved", figures.money(total), help=f"Exactly {figures.exact_money(total)}. {net}", border=True)
        help = f"Exactly {figures.exact_money(prompt)}: reads at a fraction of the price, less the premium of writes."
        st.metric("Prompt cache", figures.money(prompt), help=help, border=True)
        help = (
            f"Exactly {figures.exact_money(answers)}: what {figures.plural(hits, 'answer')} from disk would have cost."
        )
        st.metric("Response cache", figures.money(answers), help=help, border=True)
        help = f"{figures.count(read)} of {figures.count(asked)} input tokens."
        st.metric("Input cached", figures.percent(read, asked), help=help, border=True)
        help = f"{figures.count(hits)} of {figures.plural(calls, 'call')}: they cost nothing."
        st.metric("From disk", figures.percent(hits, calls), help=help, border=True)
    if note:
        st.caption(f"By which cache: {note[0].lower()}{note[1:]}")


def over_time(chosen: filters.Filters) -> None:
    """What was saved and what was spent, per step."""
    step = chosen.period.step
    steps = books.usage(chosen, [step], ["saved_usd", "cost_nanousd"]).rename(columns={step: "at"})
    grid = buckets(chosen.period, now=frame.view().now, first=steps["at"].min().to_pydatetime())
    rows = pd.concat(
        [
            pd.DataFrame({"at": steps["at"], "name": "saved", "nanousd": steps["saved_usd"].map(books.nano)}),
            pd.DataFrame({"at": steps["at"], "name": "spent", "nanousd": steps["cost_nanousd"].fillna(0)}),
        ]
    )
    with st.container(border=True):
        st.markdown(f"**Saved and spent per {step}**")
        colors = {"spent": "#5B7FFF", "saved": "#18B6A4"}
        spec = charts.amounts(rows, grid, step, colors)
        st.vega_lite_chart(spec=spec, width="stretch", key="saved", alt=f"Dollars saved and spent per {step}")


def by_model(usage: pd.DataFrame) -> None:
    """Reads and writes of each model, and what they save and cost."""
    st.subheader("Prompt cache by model", anchor=False)
    prices, rows = settings.load().prices, list[dict[str, object]]()
    for row in usage[usage["model"].notna()].itertuples():
        tokens = books.Usage(**{name: int(getattr(row, name)) for name in books.SUMMED})
        if not (tokens.cache_read_tokens or tokens.cache_write_tokens):
            continue
        bill = cache_bill(row.model, tokens, provider=row.provider, overrides=prices)
        rows.append(
            {
                "model": row.model,
                "share": 100 * tokens.cache_read_tokens / tokens.total_input_tokens,
                "read": tokens.cache_read_tokens,
                "written_5m": tokens.cache_write_5m_tokens + tokens.cache_write_unsplit_tokens,
                "written_1h": tokens.cache_write_1h_tokens,
                "reads_saved": bill and bill.reads_saved,
                "cost_5m": bill and bill.writes_5m_cost,
                "cost_1h": bill and bill.writes_1h_cost,
                "net": bill and bill.net,
            }
        )
    if not rows:
        st.caption("No prompt was cached in this period: all that was saved came from the response cache.")
        return
    cache_tables.cache_by_model(pd.DataFrame(rows))
    st.caption(
        "Dollars here are of the tokens at today's prices of short prompts, to compare five minutes with an hour; the "
        "figures above are of each call at its own price."
    )


def unread(chosen: filters.Filters) -> None:
    """What was written to the cache and certainly never read."""
    quick, note = books.quick(chosen)
    period = quick.period
    found = ledger.unread_writes(period.since, period.until, where=quick.where, path=books.location())
    if found.empty:
        return
    st.subheader("Writes that were never read", anchor=False)
    prices, rows = settings.load().prices, list[dict[str, object]]()
    for row in found.itertuples():
        lost = books.Usage(cache_write_5m_tokens=row.unread_5m_tokens, cache_write_1h_tokens=row.unread_1h_tokens)
        bill = cache_bill(row.model, lost, provider=row.provider, overrides=prices)
        for life in ("5m", "1h"):
            writes, unread = getattr(row, f"writes_{life}"), getattr(row, f"unread_writes_{life}")
            if writes:
                premium = None if bill is None else bill.writes_5m_cost if life == "5m" else bill.writes_1h_cost
                facts = {"writes": writes, "unread": unread, "share": 100 * unread / writes}
                tokens = getattr(row, f"unread_{life}_tokens")
                rows.append({"model": row.model, "life": life, **facts, "tokens": tokens, "premium": premium})
    cache_tables.unread_writes(pd.DataFrame(rows))
    st.caption(
        "A write counts when no later call to the model in its project read anything from the cache while it lived. "
        "The ledger keeps no prompts, so there may be more. " + note
    )


def misses(found: pd.DataFrame, note: str) -> None:
    """Why a prefix that should have been in the prompt cache was not."""
    missed = found[found["cache_miss_reason"].notna()]
    with st.container(border=True):
        st.markdown("**Misses of the prompt cache by reason**")
        if missed.empty:
            st.caption("No prefix that should have been cached was missed.")
        else:
            rows = pd.DataFrame(
                {
                    "reason": missed["cache_miss_reason"].str.replace("_", " "),
                    "calls": missed["calls"],
                    "why": missed["cache_miss_reason"].map(lambda reason: REASONS.get(reason, "As the API says.")),
                }
            ).sort_values("calls", ascending=False)
            cache_tables.reasons(rows)
        if note:
            st.caption(note)


page()
