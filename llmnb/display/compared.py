"""A comparison as it stays: columns of answers, or a table of many, and how the contestants stand; it runs nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from functools import cache
from html import escape
from typing import TYPE_CHECKING, Any

from llmnb.display import footer, markdown_writer, static, style
from llmnb.display.answer import Answer, Part, Prose, Tool, clean
from llmnb.jobs.comparing.comparison import Comparison, answer_of
from llmnb.jobs.comparing.scores import counted

if TYPE_CHECKING:
    from llmnb.reply import Reply

ROWS = 20
"""Of more rows the first are shown; `.frame()` has them all."""
_CELL_CHARS = 300
_NARROW_CHARS = 12
PROMPT_CHARS = 120
PROMPT_COLUMNS = 3

Bundle = dict[str, str]


@cache
def css() -> str:
    """The style sheet of comparisons, answers included."""
    return style.answer_css() + style.squeezed("side_by_side.css")


def bundle(comparison: Comparison) -> Bundle:
    """A comparison as {"text/html", "text/markdown", "text/plain"}."""
    if comparison.is_single:
        answers = [_answer(comparison, label) for label in comparison.labels]
        return columns(comparison.labels, answers, comparison)
    return _table(comparison)


def short(comparison: Comparison) -> str:
    """How the contestants stand and what it cost, as plain text: what `repr` says."""
    return _joined(_plain_table(*_standings(comparison)), told_of(comparison))


# One prompt -----------------------------------------------------------------------------------------------------------


def columns(labels: Sequence[str], answers: Sequence[Answer], comparison: Comparison | None = None) -> Bundle:
    """The answers next to each other, with their scores where a comparison has some."""
    notes = ["" if comparison is None else stands(comparison, label) for label in labels]
    told = "" if comparison is None else told_of(comparison)
    parts = list(zip(labels, answers, notes, strict=True))
    cells = "".join(_column(label, static.part_of_page(answer), note) for label, answer, note in parts)
    foot = note(told)
    marked = [
        _joined(f"**{_escaped(label)}**", static.kept_markdown(answer), f"**{_escaped(note)}**" if note else "")
        for label, answer, note in parts
    ]
    plain = [_joined(f"── {clean(label)} ──", static.plain(answer), note) for label, answer, note in parts]
    return {
        "text/html": framed(f'<div class="llmnb-columns">{cells}</div>{foot}'),
        "text/markdown": "\n\n---\n\n".join([*marked, *([f"*{_escaped(told)}*"] if told else [])]),
        "text/plain": "\n\n".join([*plain, *([told] if told else [])]),
    }


def _column(label: str, answer: str, note: str) -> str:
    scored = f'<div class="llmnb-scored">{_plain_html(note)}</div>' if note else ""
    return (
        f'<section class="llmnb-column" aria-label="{escape(clean(f"Answer of {label}"))}">'
        f'<div class="llmnb-who">{_plain_html(footer.shortened(label))}</div>{answer}{scored}</section>'
    )


def _answer(comparison: Comparison, label: str) -> Answer:
    reply = comparison.replies.get(label)
    if reply is not None:
        return _of_reply(reply)
    [facts] = comparison.facts[label]
    parts: list[Part] = [Prose(clean(str(facts["text"])), ended=True)] if facts.get("text") else []
    error = comparison.errors.get(label) or RuntimeError(str(facts.get("error")))
    return Answer(label, parts, None, error, ended=True)


def _of_reply(reply: Reply) -> Answer:
    parts: list[Part] = [Prose(clean(reply.thinking), thinking=True, ended=True)] if reply.thinking else []
    parts += [Tool(call, result, abandoned=result is None) for call, result in reply.tool_results]
    parts.append(Prose(clean(reply.text), ended=True))
    return Answer(reply.model, parts, reply.done(), None, ended=True)


# Many prompts ---------------------------------------------------------------------------------------------------------


def _table(comparison: Comparison) -> Bundle:
    shown = range(min(len(comparison.prompts), ROWS))
    names = [str(name) for name in comparison.prompts.columns[:PROMPT_COLUMNS]]
    rows = [
        [
            *(shortened(comparison.prompts.iloc[row, at], PROMPT_CHARS) for at in range(len(names))),
            *(_said(comparison, label, row) for label in comparison.labels),
        ]
        for row in shown
    ]
    more = len(comparison.prompts) - len(shown)
    rest = f"{more:,} more rows are in .frame()" if more else ""
    head, standings = _standings(comparison)
    told = told_of(comparison)
    columns = [*names, *comparison.labels]
    table = html_table(columns, rows, "llmnb-answers") + note(rest)
    marked = [_markdown_table(head, standings), f"*{_escaped(told)}*", _markdown_table(columns, rows), _escaped(rest)]
    return {
        "text/html": framed(html_table(head, standings, "llmnb-standings") + note(told) + table),
        "text/markdown": _joined(*marked),
        "text/plain": _joined(_plain_table(head, standings), told),
    }


def _said(comparison: Comparison, label: str, row: int) -> str:
    return cell(comparison.facts[label][row], comparison.scores[label][row] if comparison.scores else None)


def cell(facts: Mapping[str, Any], score: float | None, chars: int = _CELL_CHARS) -> str:
    """One answer in a table: its text, and in the next line its score, price and time."""
    answer = answer_of(facts)
    text = shortened(facts.get("error") if answer is None else answer, chars)
    told = [text if answer is not None else f"✕ {text}"]
    small = [f"score {score:.2f}"] if score is not None else []
    if answer is not None:
        small.append("cached" if facts.get("source") != "live" else _dollars(facts["cost_nanousd"]))
        if facts.get("source") == "live" and facts.get("latency_ms"):
            small.append(footer.seconds(facts["latency_ms"]))
    return "\n".join([*told, " · ".join(small)] if small else told)


def _standings(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    summary: Any = comparison.summary()
    has_scores = bool(comparison.scores)
    head = [
        "",
        *(["score", "95 %", "won, tied, lost"] if has_scores else []),
        "answered",
        "$ an answer",
        "median",
        "first token",
    ]
    if comparison.criteria is None and has_scores:
        head.remove("won, tied, lost")
    rows: list[list[str]] = []
    for label in summary.index:
        one = summary.loc[label]
        scored: list[str] = []
        if has_scores:
            scored = [_figure(one["score"], ".2f"), _interval(one["score_low"], one["score_high"])]
            if comparison.criteria is not None:
                games = counted(comparison.pairs, str(label))
                scored.append(f"{games['wins']}, {games['ties']}, {games['losses']}")
        failed = f" ({one['failed']:.0f} failed)" if one["failed"] else ""
        rows.append(
            [
                str(label), *scored, f"{one['answered']:.0f}{failed}", _money(one["full_cost_usd"]),
                _time(one["seconds"]), _time(one["ttft_seconds"]),
            ]
        )  # fmt: skip
    return head, rows


# In words -------------------------------------------------------------------------------------------------------------


def stands(comparison: Comparison, label: str) -> str:
    """What one answer to one prompt has reached."""
    [facts] = comparison.facts[label]
    if facts.get("scoring_failed"):
        return str(facts["error"])
    stands = comparison.standing(label)
    if stands.score is None:
        return "not scored" if comparison.scores else ""
    if comparison.criteria is None:
        return f"score {stands.score:.4g}"
    games = counted(comparison.pairs, label)
    told = [
        f"{games[name]} {word}" for name, word in (("wins", "won"), ("ties", "tied"), ("losses", "lost")) if games[name]
    ]
    return f"score {stands.score:.2f}: {', '.join(told)}"


def told_of(comparison: Comparison) -> str:
    """What all of it cost, and what the judge did."""
    prompts = f"{_many(len(comparison.prompts), 'prompt')} × " if not comparison.is_single else ""
    told = [f"{prompts}{_many(len(comparison.labels), 'contestant')}", _paid(comparison.cost_usd)]
    if comparison.criteria is not None:
        judged = [pair for pair in comparison.pairs if pair.winner is not None]
        ties = [pair for pair in judged if pair.winner == "tie"]
        split = sum(not pair.agreed for pair in ties)
        told.append(f"judge {_paid(comparison.judge_cost_usd)} for {_many(comparison.judge_calls, 'judgement')}")
        told.append(f"{_many(len(judged), 'pair')}, {len(ties):,} tied")
        if comparison.judge_competes:
            told.append("the judge is of a contestant's model, and models like their own answers better")
        if split:
            told.append(f"{split:,} of them as the judge said otherwise with the answers swapped")
        if unjudged := len(comparison.pairs) - len(judged):
            error = next((pair.error for pair in comparison.pairs if pair.error), "")
            told.append(f"{unjudged:,} not judged: {shortened(error, PROMPT_CHARS)}")
    return " · ".join(told)


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _paid(usd: Decimal | None) -> str:
    return "unpriced" if usd is None else footer.dollars(usd)


def _dollars(nanousd: int | None) -> str:
    return "unpriced" if nanousd is None else footer.dollars(Decimal(nanousd) / 1_000_000_000)


def _money(usd: float) -> str:
    return "" if usd != usd else footer.dollars(Decimal(str(float(usd))))


def _time(seconds: float) -> str:
    return "" if seconds != seconds else footer.seconds(seconds * 1000)


def _figure(value: float, form: str) -> str:
    return "" if value != value else format(value, form)


def _interval(low: float, high: float) -> str:
    return "" if low != low else f"{low:.2f} to {high:.2f}"


def shortened(value: object, chars: int) -> str:
    """A value as text of at most so many characters."""
    return footer.shortened(str(value), chars)


# Tables ---------------------------------------------------------------------------------------------------------------


def html_table(head: Sequence[str], rows: Sequence[Sequence[str]], name: str) -> str:
    """A table that keys can scroll; what follows a line break in a cell is small."""
    cells = "".join(f'<th scope="col">{_plain_html(text)}</th>' for text in head)
    body = "".join(f"<tr>{''.join(_cell(text) for text in row)}</tr>" for row in rows)
    table = f'<table class="{name}"><thead><tr>{cells}</tr></thead><tbody>{body}</tbody></table>'
    return f'<div class="llmnb-table" tabindex="0">{table}</div>'  # so that keys can scroll it


def _cell(text: str) -> str:
    first, _, small = text.partition("\n")
    below = f'<div class="llmnb-small">{_plain_html(small)}</div>' if small else ""
    narrow = ' class="llmnb-narrow"' if len(first) <= _NARROW_CHARS else ""
    return f"<td{narrow}>{_plain_html(first)}{below}</td>"


def _markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def line(cells: Iterable[str]) -> str:
        return f"| {' | '.join(cells)} |"

    def marked(cell: str) -> str:
        return _escaped(cell.replace("\n", " · ")).replace("|", "\\|")

    return "\n".join([line(map(marked, head)), line(["---"] * len(head)), *(line(map(marked, row)) for row in rows)])


def _plain_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [[clean(cell) for cell in line] for line in [head, *rows]]
    widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def note(text: str) -> str:
    """A line in small print; nothing where there is no text."""
    return f'<div class="llmnb-footer">{_plain_html(text)}</div>' if text else ""


def _plain_html(text: str) -> str:
    """Text as HTML in which two dollar signs are no formula to JupyterLab."""
    return escape(clean(text)).replace("$", "<span>$</span>")


def _escaped(text: str) -> str:
    return markdown_writer.escaped(clean(text))


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def framed(html: str) -> str:
    """The whole of what is shown, with its style."""
    begin = '<div class="llmnb llmnb-compare">'
    return f"{begin}{style.tag(css(), begin + html)}{html}</div>"
