"""`Estimate`: what a call would read, write and cost, said before it is sent, and how well that is known."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from html import escape

from llmnb.records import Breakpoint

_COUNTED = {
    "count_tokens": "by the API (count_tokens)",
    "cl100k_base": "offline, with tiktoken's cl100k_base",
    "characters": "offline, by characters",
}


@dataclass(frozen=True, slots=True)
class CacheEstimate:
    """What the prompt cache makes of a call: `tokens` of its input stand before the last breakpoint.

    `breakpoints` are those that would be set now, by `prompt_cache` and by the caller. `written_usd` is what the first
    call costs, which writes all of `tokens`; `read_usd` what each costs that finds them. `held_tokens` should be in the
    API's cache at this moment, so that the call would cost `now_usd`. All hold a typical answer, or the input alone
    where none is known, and are None when unpriced. `ttl` is that of the last breakpoint. `is_marked` is False when
    there would be no breakpoint, and this is what one where it fits best would do.
    """

    tokens: int
    ttl: str
    written_usd: Decimal | None
    read_usd: Decimal | None
    is_marked: bool
    breakpoints: tuple[Breakpoint, ...] = ()
    held_tokens: int = 0
    now_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class KeptAnswer:
    """An answer that is in the response cache: `model` gave it at `created`, and its tokens are as billed then."""

    model: str
    created: datetime
    input_tokens: int
    output_tokens: int


class Sheet:
    """What is told line by line, as a table in a notebook and as text elsewhere."""

    __slots__ = ()

    @property
    def title(self) -> str:
        """What it is of."""
        raise NotImplementedError

    def lines(self) -> list[tuple[str, str, str]]:
        """What it says: what, how much, and how that is known."""
        raise NotImplementedError

    def __repr__(self) -> str:
        rows = self.lines()
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        lines = [f"{what.ljust(widths[0])}  {much.rjust(widths[1])}  {how}" for what, much, how in rows]
        return "\n".join([self.title, *lines])

    def _repr_pretty_(self, printer: object, cycle: bool) -> None:
        del cycle
        printer.text(repr(self))  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        del include, exclude  # IPython filters the bundle itself
        return {"text/plain": repr(self), "text/markdown": self._markdown(), "text/html": self._html()}

    def _markdown(self) -> str:
        rows = [(self.title, "", ""), ("---", "---:", "---"), *self.lines()]
        return "\n".join("| " + " | ".join(_safe(cell) for cell in row) + " |" for row in rows)

    def _html(self) -> str:
        caption = f'<caption style="text-align: left">{_html(self.title)}</caption>'
        rows = "".join(f"<tr>{_cells(row)}</tr>" for row in self.lines())
        return f"<table>{caption}<tbody>{rows}</tbody></table>"


@dataclass(frozen=True, slots=True, repr=False)
class Estimate(Sheet):
    """Tokens and dollars of a call that was not sent.

    `input_tokens` is the best guess, and nine of ten calls lie within the relative `error` of it; `complete` is False
    when the request refers to what cannot be counted (a thread, a file, a container), and it is the least then.
    `counted_by` is `count_tokens`, `cl100k_base` or `characters`, `calibrated_on` how many billed calls it was
    corrected with.

    `output_tokens` is a typical answer: the median of the `history_calls` newest answers of this model in `project`
    (None: in all projects), and `output_low` and `output_high` the tenths at both ends. Without any they are None.
    `max_tokens` is the most that can come.

    `cost_usd` is a typical answer without any cache, `cost_low_usd` to `cost_high_usd` the range for eight of ten, and
    `cost_most_usd` what `max_tokens` of output would cost. All are exact Decimals; None where the price or, for
    `cost_usd`, a typical answer is not known. Tools that the model runs on the server, and turns of tools here, come on
    top. `cache` is what the prompt cache would make of it, None where nothing is long enough for the model's.

    A question that is in the response cache costs nothing: `kept` is the answer it would get, all costs are 0, and
    `fresh` is the estimate of asking it again.
    """

    model: str
    input_tokens: int
    max_tokens: int
    counted_by: str
    error: float
    complete: bool = True
    calibrated_on: int = 0
    output_tokens: int | None = None
    output_low: int | None = None
    output_high: int | None = None
    history_calls: int = 0
    project: str | None = None
    cost_usd: Decimal | None = None
    cost_low_usd: Decimal | None = None
    cost_high_usd: Decimal | None = None
    cost_most_usd: Decimal | None = None
    input_cost_usd: Decimal | None = None
    price_id: str | None = None
    cache: CacheEstimate | None = None
    kept: KeptAnswer | None = None
    fresh: Estimate | None = None

    @property
    def input_tokens_most(self) -> int:
        """The input tokens that nine of ten such calls stay under."""
        return round(self.input_tokens * (1 + self.error))

    # How it is shown --------------------------------------------------------------------------------------------------

    @property
    def title(self) -> str:
        """The model."""
        return self.model

    def lines(self) -> list[tuple[str, str, str]]:
        """What it says: what, how much, and how that is known."""
        if self.kept is not None:
            return [self._input_row(), *self._kept_rows(self.kept)]
        return [self._input_row(), self._output_row(), *self._cost_rows(), *self._cache_rows()]

    def _kept_rows(self, kept: KeptAnswer) -> list[tuple[str, str, str]]:
        since = f"{kept.created:%Y-%m-%d %H:%M}"
        again = [] if self.fresh is None else self.fresh._cost_rows()
        return [
            ("output", f"{kept.output_tokens:,} tokens", "as they came"),
            ("cost", dollars(Decimal(0)), f"it is in the response cache since {since}: nothing would be sent"),
            *(("asked again", much, f"with fresh=True; {how}") for _, much, how in again),
        ]

    def _input_row(self) -> tuple[str, str, str]:
        how = _COUNTED.get(self.counted_by, self.counted_by)
        if self.calibrated_on:
            how += f", corrected with {self.calibrated_on:,} billed calls"
        about = f"{'' if self.counted_by == 'count_tokens' else '≈ '}{self.input_tokens:,} tokens"
        if not self.complete:
            return ("input", f"at least {about}", f"{how}; what the request refers to is not counted")
        return ("input", about, f"±{self.error:.0%}: {how}")

    def _output_row(self) -> tuple[str, str, str]:
        if self.output_tokens is None:
            return ("output", f"at most {self.max_tokens:,} tokens", f"no answers of {self.model} on the books yet")
        where = f"in project {self.project}" if self.project else "in all projects"
        known = f"{self.output_low:,}-{self.output_high:,} in eight of ten of {self.history_calls:,} calls {where}"
        return ("output", f"≈ {self.output_tokens:,} tokens", f"{known}; at most {self.max_tokens:,}")

    def _cost_rows(self) -> list[tuple[str, str, str]]:
        if self.cost_most_usd is None:
            return [("cost", "unpriced", f"no price is known for {self.model}")]
        most = f"at most {dollars(self.cost_most_usd)}"
        if self.cost_usd is None:
            return [("cost", most, f"{dollars(self.input_cost_usd)} of it for the input")]
        span = f"{dollars(self.cost_low_usd)}-{dollars(self.cost_high_usd)}"
        return [("cost", f"≈ {dollars(self.cost_usd)}", f"{span}; {most}")]

    def _cache_rows(self) -> list[tuple[str, str, str]]:
        if (cache := self.cache) is None:
            return []
        where = ", ".join(dict.fromkeys(point.place for point in cache.breakpoints))
        how = f"{cache.tokens:,} tokens for {cache.ttl}{f' ({where})' if where else ''}"
        how += "" if cache.is_marked else ", if a breakpoint were set"
        if cache.read_usd is None or cache.written_usd is None:
            return [("with the prompt cache", "unpriced", how)]
        what = "with the prompt cache" if self.output_tokens is not None else "input with the prompt cache"
        if cache.held_tokens and cache.is_marked:
            there = f"{cache.held_tokens:,} tokens should be in it now; the first time ≈ {dollars(cache.written_usd)}"
            return [(what, f"≈ {dollars(cache.now_usd)}", f"{there}; {how}")]
        return [(what, f"≈ {dollars(cache.read_usd)}", f"the first time ≈ {dollars(cache.written_usd)}; {how}")]


def dollars(usd: Decimal | None) -> str:
    """Dollars to three digits that count, and at least cents."""
    if usd is None:
        return "unpriced"
    if not usd:
        return "$0.00"
    places = max(2, 2 - usd.adjusted())
    return f"${usd:,.{places}f}"


def _safe(cell: str) -> str:
    return escape(" ".join(cell.split()), quote=False).replace("|", r"\|").replace("$", r"\$")


def _html(cell: str) -> str:
    # one element per dollar sign: a page-wide typesetter would take the text between two of them for math
    return escape(cell).replace("$", "<span>$</span>")


def _cells(row: tuple[str, str, str]) -> str:
    what, much, how = map(_html, row)
    return f'<th style="text-align: left">{what}</th><td>{much}</td><td style="text-align: left">{how}</td>'
