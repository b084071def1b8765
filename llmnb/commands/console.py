"""What the `llmnb` command prints: tables for people, JSON for scripts, and one line for an error."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmnb.display.footer import dollars
from llmnb.errors import IncompleteReply, LlmnbError
from llmnb.terminals import is_terminal

if TYPE_CHECKING:
    from llmnb.budgeting import BudgetStatus
    from llmnb.commands.doctor import Check
    from llmnb.pricing import PriceRow, Repricing
    from llmnb.reply import Reply

WIDE = 200
"""Columns of a table that goes into a pipe or a file, where nothing may be cut off."""


def out() -> Console:
    """Standard output; what is printed there is text and no markup."""
    return Console(width=None if is_terminal(sys.stdout) else WIDE, markup=False, highlight=False, emoji=False)


def as_json(value: object) -> None:
    """Prints a value as JSON."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, default=_plain) + "\n")


def _plain(value: object) -> float | str:
    """Decimals are numbers to a script (exact amounts are in the `nanousd` fields), moments are ISO 8601."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def frame_as_json(frame: Any) -> None:
    """Prints a frame as a JSON list of its rows; missing values are null, times ISO 8601."""
    text = frame.to_json(orient="records", date_format="iso", double_precision=15)
    as_json(json.loads(text or "[]"))


def reply_as_json(reply: Reply) -> None:
    """Prints an answer with what it used and cost."""
    as_json(
        {
            "text": reply.text,
            "model": reply.model,
            "stop_reason": reply.stop_reason,
            "usage": asdict(reply.usage),
            "cost_usd": None if reply.cost_usd is None else float(reply.cost_usd),
            "cost_nanousd": reply.cost.nanousd,
            "source": reply.source,
            "latency_ms": reply.latency_ms,
            "request_id": reply.request_id,
        }
    )


# Tables ---------------------------------------------------------------------------------------------------------------

USAGE_COLUMNS = {
    "calls": "calls",
    "errors": "errors",
    "input_tokens": "input",
    "cache_read_tokens": "cache read",
    "cache_write_tokens": "cache written",
    "output_tokens": "output",
    "cost_nanousd": "cost",
    "latency_p50_ms": "p50 latency",
}
"""What `llmnb usage` shows of a usage() frame; everything is in its JSON."""


def usage_table(frame: Any, total: Any, dimensions: Sequence[str]) -> Table:
    """A usage() frame for reading, with its total as the last line."""
    table = Table(*dimensions, box=None, header_style="bold", pad_edge=False)
    for title in USAGE_COLUMNS.values():
        table.add_column(title, justify="right")
    for row in frame.to_dict("records"):
        table.add_row(*(_dimension(row[name]) for name in dimensions), *_figures(row))
    if len(frame) > 1:
        table.add_section()
        head = ["total", *[""] * (len(dimensions) - 1)] if dimensions else []
        table.add_row(*head, *_figures(total.to_dict("records")[0]), style="bold")
    return table


def _figures(row: dict[Any, Any]) -> list[str]:
    written = sum(int(row[f"cache_write_{kind}_tokens"]) for kind in ("5m", "1h", "unsplit"))
    counts = {**row, "cache_write_tokens": written}
    names = [name for name in USAGE_COLUMNS if name.endswith("tokens") or name in ("calls", "errors")]
    return [*(f"{int(counts[name]):,}" for name in names), _cost(row), _duration(row["latency_p50_ms"])]


def _cost(row: dict[Any, Any]) -> str:
    nanousd, unpriced = row["cost_nanousd"], int(row["unpriced_calls"])
    if _missing(nanousd):
        return "unpriced" if unpriced else dollars(Decimal(0))
    about = "≈ " if int(row["estimated_calls"]) else ""
    return about + dollars(Decimal(int(nanousd)) / 10**9) + (f" + {unpriced:,} unpriced" if unpriced else "")


def _duration(ms: Any) -> str:
    if _missing(ms):
        return "–"
    return f"{float(ms):,.0f} ms" if ms < 1000 else f"{float(ms) / 1000:,.1f} s"


def _dimension(value: Any) -> str:
    if _missing(value):
        return "–"
    return f"{value:%Y-%m-%d %H:%M}".removesuffix(" 00:00") if hasattr(value, "strftime") else str(value)


def _missing(value: Any) -> bool:
    return value is None or type(value).__name__ in ("NAType", "NaTType") or value != value


def budget_table(found: Sequence[BudgetStatus]) -> Table:
    """Budgets for reading; what is held is only shown where something is."""
    held = any(status.held_amount for status in found)
    table = Table("id", "budget", box=None, header_style="bold", pad_edge=False)
    for title in ("spent", "of it", *(["held"] if held else []), "left", "begins anew"):
        table.add_column(title, justify="right")
    for status in found:
        budget = status.budget
        what = str(budget) + ("" if budget.action == "stop" else " (warns only)")
        spent = budget.amount(status.spent_amount)
        spent += f" + {status.unpriced_calls:,} unpriced" if status.unpriced_calls else ""
        left = budget.amount(max(0, budget.allowance - status.spent_amount))
        anew = "never" if status.resets_at is None else f"{status.resets_at:%Y-%m-%d %H:%M %Z}"
        if budget.per == "rolling 24h":
            anew = "all the time"
        extra = [budget.amount(status.held_amount)] if held else []
        table.add_row(str(status.id), what, spent, f"{status.share:.0%}", *extra, left, anew)
    return table


def budgets_as_json(found: Sequence[BudgetStatus]) -> None:
    """Prints budgets as JSON: the columns of `llmnb.budgets()`."""
    from llmnb.budgeting.status import budget_frame

    frame_as_json(budget_frame(found))


def price_table(rows: Sequence[PriceRow]) -> Table:
    """Prices for reading; a model whose price depends on the length of the prompt has a line for each length."""
    heads = {"input": "input", "output": "output", "cache_read": "cache read"}
    heads |= {"write_5m": "write 5m", "write_1h": "write 1h"}
    table = Table("model", box=None, header_style="bold", pad_edge=False)
    for title in heads.values():
        table.add_column(title, justify="right")
    table.add_column("source")
    for row in rows:
        name = f"{row.model}, prompts over {row.over_tokens:,} tokens" if row.over_tokens else row.model
        table.add_row(name, *(_per_million(getattr(row, column)) for column in heads), row.source)
    return table


def _per_million(usd: Decimal | None) -> str:
    return "–" if usd is None else f"${usd.normalize():f}"


def repriced(done: Repricing) -> str:
    """What repricing did, as a sentence or two."""
    verb = "would change" if done.dry_run else "changed"
    told = [f"{done.looked_at:,} calls looked at, {done.changed:,} {verb} ({done.newly_priced:,} had no price)."]
    if done.changed:
        before, after = (dollars(Decimal(value) / 10**9) for value in (done.before_nanousd, done.after_nanousd))
        told.append(f"Together they cost {after}, before: {before}.")
    if done.unpriced:
        told.append(f"{done.unpriced:,} have no price still; your own goes into [tool.llmnb.prices] of pyproject.toml.")
    if done.kept:
        told.append(f"{done.kept:,} keep the cost they have: no price is known for them now.")
    return " ".join(told)


def facts_table(facts: Mapping[str, Any]) -> Table:
    """Names and values, one pair a line; what is not there is left out."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in facts.items():
        if value not in (None, ""):
            table.add_row(Text(name.replace("_", " "), "dim"), f"{value:,}" if isinstance(value, int) else str(value))
    return table


SIGNS = {"ok": Text("✓", "green"), "note": Text("·", "dim"), "fix": Text("✗", "bold red")}


def check_table(checks: Sequence[Check]) -> Table:
    """What the doctor found, one line a check, and the next step below those that need one."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for check in checks:
        table.add_row(SIGNS[check.state], check.name, check.found)
        if check.do and check.state != "ok":
            table.add_row("", "", Text(f"→ {check.do}", "bold" if check.state == "fix" else "dim"))
    return table


# Errors ---------------------------------------------------------------------------------------------------------------


def explained(error: Exception) -> str | None:
    """One line that says what went wrong and what to do, or None for what nobody expected: a bug."""
    if isinstance(error, IncompleteReply):  # its own words are about attributes
        reason = f" ({error.__cause__})" if error.__cause__ else ""
        return f"the answer broke off after {len(error.partial):,} characters{reason}; ask again to get a whole one."
    if isinstance(error, LlmnbError):
        return str(error)
    sdk = sys.modules.get("anthropic")  # an error of the SDK cannot come before the SDK
    if sdk is None:
        return None
    if isinstance(error, sdk.APITimeoutError):
        return f"no answer in time from {_host(error)}; try again, or check the network."
    if isinstance(error, sdk.APIConnectionError):
        reason = f" ({error.__cause__})" if error.__cause__ else ""
        return f"cannot reach {_host(error)}{reason}: check the network and ANTHROPIC_BASE_URL."
    if isinstance(error, sdk.APIStatusError):
        return _refusal(error)
    return str(error) if isinstance(error, sdk.AnthropicError) else _broken_off(error)


def warning_line(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, line: str | None = None
) -> str:
    """A warning as one line: where in llmnb it was raised helps nobody in a shell."""
    return f"llmnb: {message}\n"


def _refusal(error: Any) -> str:
    kind = f" {error.type}" if error.type else ""
    about = f" (request {error.request_id})" if error.request_id else ""
    said = error.api_message or error.message
    status = "broke off with" if error.status_code == 200 else f"answered {error.status_code}"  # 200: it had begun
    told = [note.removeprefix("llmnb: ") for note in getattr(error, "__notes__", ())]
    notes = "".join(f" {note[:1].upper()}{note[1:]}" for note in told)
    return f"the API {status}{kind}: {said}{about}.{_hint(error.status_code, said)}{notes}"


def _hint(status: int, said: str) -> str:
    if status in (401, 403):
        return " Check ANTHROPIC_API_KEY."
    return " `llmnb prices` lists the models llmnb knows." if status == 404 and said.startswith("model:") else ""


def _broken_off(error: Exception) -> str | None:
    import httpx2

    if isinstance(error, httpx2.HTTPError):
        return f"the connection broke in the middle of the answer: {error or type(error).__name__}"
    return None


def _host(error: Any) -> str:
    return str(error.request.url.copy_with(path="/", query=None, userinfo=b"")).rstrip("/")
