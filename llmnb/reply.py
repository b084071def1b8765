"""The answer to one question: its text, what it used and cost, and the SDK's message it came in."""

from __future__ import annotations

import html
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from llmnb.events import Done, ToolCall, ToolResult
from llmnb.records import UNPRICED, Call, Cost, PromptCacheUse, Source, Status, Usage
from llmnb.unread import Unread
from llmnb.views import views

if TYPE_CHECKING:
    from anthropic.types import Message

    from llmnb.cost_table import CostTable
    from llmnb.routing import Route

_SHOWN_CHARS = 60


@dataclass(frozen=True, slots=True)
class Figures:
    """What an answer used and cost; see the attributes of `Reply`."""

    usage: Usage
    cost: Cost = UNPRICED
    call: Call | None = None
    prompt_cache: PromptCacheUse = field(default_factory=PromptCacheUse)


class Reply:
    """An answer. `str(reply)` is its text; in a notebook it renders as Markdown. It cannot be changed."""

    __slots__ = ("_between", "_figures", "_message", "_route", "_shown_in", "_turns", "_worked_out")

    def __init__(
        self,
        message: Message,
        usage: Usage,
        cost: Cost = UNPRICED,
        call: Call | None = None,
        shown_in: str | None = None,
        prompt_cache: PromptCacheUse | None = None,
    ) -> None:
        self._message: Message | Unread = message
        self._shown_in = shown_in
        self._figures: Figures | None = Figures(usage, cost, call, prompt_cache or PromptCacheUse())
        self._worked_out: Callable[[], Figures] | None = None
        self._route: Route | None = None
        self._turns: tuple[Reply, ...] = ()
        self._between: tuple[dict[str, Any], ...] = ()

    @classmethod
    def of(
        cls,
        message: Message | Unread,
        worked_out: Callable[[], Figures],
        shown_in: str | None = None,
        turns: tuple[Reply, ...] = (),
        between: tuple[dict[str, Any], ...] = (),
    ) -> Reply:
        """An answer whose figures are worked out when somebody asks for one, once.

        Of a loop with tools, `turns` are the answers it took and `between` what was said before the last one.
        """
        reply = cls.__new__(cls)
        reply._message, reply._shown_in, reply._figures, reply._worked_out = message, shown_in, None, worked_out
        reply._turns, reply._between, reply._route = turns, between, None
        return reply

    def routed(self, route: Route) -> Reply:
        """The same, once it is known how it was come by."""
        self._route = route
        return self

    def __reduce__(self) -> tuple[object, ...]:
        return _again, (self.message, self.figures, self.shown_in, self._turns, self._between)

    @property
    def message(self) -> Message:
        """The SDK's `Message`, exactly as the API sent it."""
        message = self._message
        if isinstance(message, Unread):
            self._message = message = message.message()
        return message

    @property
    def route(self) -> Route | None:
        """Which models were asked, and why this one answered; None where there was one only (see `Router`)."""
        return self._turns[-1].route if self._route is None and self._turns else self._route

    @property
    def shown_in(self) -> str | None:
        """The run of the cell in which it was shown live, if it was."""
        return self._shown_in

    @property
    def figures(self) -> Figures:
        """Usage, cost, row and prompt cache together."""
        worked_out = self._worked_out  # before the look at what it gave: another thread may be done with it by then
        if self._figures is None:
            assert worked_out is not None
            self._figures = worked_out()
            self._worked_out = None
        return self._figures

    @property
    def usage(self) -> Usage:
        """Its tokens, in disjoint classes; of an answer from the cache those it took when it was asked."""
        return self.figures.usage

    @property
    def cost(self) -> Cost:
        """What it cost, as the ledger has it; unpriced when no price is known."""
        return self.figures.cost

    @property
    def call(self) -> Call | None:
        """Its row of the ledger; None when the books could not be kept."""
        return self.figures.call

    @property
    def prompt_cache(self) -> PromptCacheUse:
        """What the API's prompt cache did: breakpoints, tokens read and written, dollars saved or lost, and why it was
        missed if it was."""
        return self.figures.prompt_cache

    @property
    def turns(self) -> tuple[Reply, ...]:
        """The answers that a loop with tools took, this one's text the last; each with its own usage and cost.

        The usage and cost of this reply are those of all of them. Without tools it is the only one.
        """
        return self._turns or (self,)

    @property
    def between(self) -> list[dict[str, Any]]:
        """What was said between the question and the last answer of a loop with tools: calls and results, as the SDK's
        messages; empty without tools."""
        return [*self._between]

    @property
    def tool_results(self) -> list[tuple[ToolCall, ToolResult | None]]:
        """The tools that were called, in order, each with what it gave: those that ran here, over all turns."""
        return list(_tools(self._between))

    @property
    def text(self) -> str:
        """The text of the answer, without thinking."""
        if isinstance(unread := self._message, Unread):
            return unread.text
        return "".join(block.text for block in self.message.content if block.type == "text")

    @property
    def thinking(self) -> str:
        """The model's summarised reasoning; empty when there was none, or the API kept it hidden."""
        return "".join(block.thinking for block in self.message.content if block.type == "thinking")

    @property
    def model(self) -> str:
        """The model that answered, which can differ from the one that was asked."""
        return self._message.model

    @property
    def stop_reason(self) -> str | None:
        """Why the model stopped: end_turn, max_tokens, stop_sequence, refusal, …"""
        return self._message.stop_reason

    @property
    def truncated(self) -> bool:
        """Whether the answer stopped at max_tokens or at the end of the context window."""
        return self.stop_reason in ("max_tokens", "model_context_window_exceeded")

    @property
    def refused(self) -> bool:
        """Whether the API's safety classifiers stopped the answer."""
        return self.stop_reason == "refusal"

    @property
    def status(self) -> Status:
        """How the call ended: "ok", or for a part of an answer (`llmnb.last()`) cancelled, truncated or error."""
        if self.call is not None:
            return self.call.status
        return "ok" if self.stop_reason else "truncated"

    @property
    def cost_usd(self) -> Decimal | None:
        """Dollars, exact to the nano-dollar; None when no price is known for the model."""
        return self.cost.usd

    def costs(self) -> CostTable:
        """What it cost, line by line: tokens of each class × their rate = dollars. Exact; it renders as a table."""
        from llmnb.cost_table import CostTable

        return CostTable.of(self)

    @property
    def source(self) -> Source:
        """Where the answer came from: "live" from the API, "cache" from disk, "replay" from a recording."""
        if self._turns:
            known: list[Source] = [turn.source for turn in self._turns]
            return "live" if "live" in known else known[-1]
        return "live" if self.call is None else self.call.source

    @property
    def latency_ms(self) -> float | None:
        """Milliseconds from the request to the end of the answer; of a loop, the sum of its turns without the tools."""
        if self._turns:
            known = [turn.latency_ms for turn in self._turns if turn.latency_ms is not None]
            return sum(known) if known else None
        return None if self.call is None else self.call.latency_ms

    @property
    def ttft_ms(self) -> float | None:
        """Milliseconds from the request to the first token; None when the answer came in one piece."""
        if self._turns:
            return self._turns[0].ttft_ms
        return None if self.call is None else self.call.ttft_ms

    @property
    def request_id(self) -> str | None:
        """The API's id of the request, which its support asks for."""
        told = None if self.call is None else self.call.request_id
        return told or getattr(self.message, "_request_id", None)

    def done(self) -> Done:
        """The `Done` event that ends a stream of this answer."""
        extra: dict[str, Any] = getattr(self.message.usage, "model_extra", None) or {}
        return Done(
            model=self.model,
            usage=self.usage,
            cost_usd=self.cost_usd,
            stop_reason=self.stop_reason,
            source=self.source,
            latency_ms=self.latency_ms,
            ttft_ms=self.ttft_ms,
            saved_usd=self._saved().usd,
            status=self.status,
            prompt_cache=self.prompt_cache,
            turns=len(self.turns),
            # said by llmnb itself, in the place of who counts them only at the end
            input_estimated=bool(extra.get("estimated")),
        )

    def _saved(self) -> Cost:
        rows = [turn.call for turn in self.turns]
        known = [row.saved_nanousd for row in rows if row is not None and row.saved_nanousd is not None]
        return Cost(sum(known)) if len(known) == len(rows) else UNPRICED

    # How it is shown --------------------------------------------------------------------------------------------------

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        text = " ".join(self.text.split())
        shown = text if len(text) <= _SHOWN_CHARS else f"{text[: _SHOWN_CHARS - 1]}…"
        return f"<Reply {shown!r} {self._facts()}>"

    def _repr_markdown_(self) -> str:
        return self._repr_mimebundle_()["text/markdown"]

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        del include, exclude  # IPython filters the bundle itself
        plain = {"text/plain": self.text or repr(self), "text/markdown": self._plain_markdown()}
        return plain | views.bundle(self.text, thinking=self.thinking, done=self.done(), tools=self.tool_results)

    def _mime_(self) -> tuple[str, str]:
        """How marimo shows it."""
        return "text/html", self._repr_mimebundle_()["text/html"]

    def _ipython_display_(self) -> None:
        if self.shown_in is not None and self.shown_in == running_cell() and is_cell_result():
            if not is_in_kernel():
                sys.stdout.write(f"{self!r}\n")  # after the "Out[1]: " that IPython has written by now
            return  # it stands right above, live
        raise NotImplementedError  # IPython goes on to _repr_mimebundle_

    def _plain_markdown(self) -> str:
        """The text with HTML shown instead of run, and images as links: a model's text is no place for either."""
        safe = html.escape(self.text, quote=False).replace("&gt;", ">").replace("![", "[")
        note = self._note()
        return f"{safe}\n\n*{note}*" if note else safe

    def _facts(self) -> str:
        cost = "unpriced" if self.cost_usd is None else f"${self.cost_usd:.6f}"
        tokens = f"{self.usage.total_input_tokens:,} in, {self.usage.output_tokens:,} out"
        turns = f"{len(self._turns)} turns, " if self._turns else ""
        note = self._note()
        return f"{self.model}, {turns}{tokens}, {cost}" + (f", {note}" if note else "")

    def _note(self) -> str:
        if self.refused:
            return "refused: stop_reason is refusal"
        if self.truncated:
            return f"cut off: stop_reason is {self.stop_reason}"
        if self.status != "ok":
            return f"cut off: the call was {self.status}"
        return "" if self.text else f"no text: stop_reason is {self.stop_reason}"


def _again(
    message: Message,
    figures: Figures,
    shown_in: str | None,
    turns: tuple[Reply, ...],
    between: tuple[dict[str, Any], ...],
) -> Reply:
    return Reply.of(message, lambda: figures, shown_in, turns, between)


def _tools(messages: Iterable[dict[str, Any]]) -> Iterator[tuple[ToolCall, ToolResult | None]]:
    blocks = [block for message in messages for block in message["content"]]
    results = {block["tool_use_id"]: block for block in blocks if block["type"] == "tool_result"}
    for block in blocks:
        if block["type"] == "tool_use":
            given = results.get(block["id"])
            yield ToolCall(block["id"], block["name"], block["input"]), None if given is None else _result(block, given)


def _result(call: dict[str, Any], block: dict[str, Any]) -> ToolResult:
    content: Any = block.get("content", "")
    text = (
        content
        if isinstance(content, str)
        else "\n".join(str(part.get("text", f"[{part['type']}]")) for part in content)
    )
    return ToolResult(call["id"], call["name"], text, bool(block.get("is_error")))


def running_cell() -> str | None:
    """A name for this run of the running cell; None where there is no IPython."""
    shell = _shell()
    if shell is None:
        return None
    try:
        return str(shell.kernel.get_parent()["header"]["msg_id"])
    except (AttributeError, KeyError, TypeError):  # no kernel: a terminal
        return str(shell.execution_count)


def is_cell_result() -> bool:
    """Whether IPython is showing the value of a cell's last line, rather than what `display()` was given."""
    hook: Any = getattr(_shell(), "displayhook", None)
    # ipykernel's hook holds a message while it is at work, IPython's says so from version 9 on
    return bool(getattr(hook, "is_active", False) or getattr(hook, "msg", None)) or _is_running(hook)


def is_in_kernel() -> bool:
    """Whether the shell is a notebook's, and not a terminal's."""
    return getattr(_shell(), "kernel", None) is not None


def _is_running(hook: object) -> bool:
    frame = inspect.currentframe() if hook is not None else None
    while frame is not None and not (frame.f_code.co_name == "__call__" and frame.f_locals.get("self") is hook):
        frame = frame.f_back
    return frame is not None


def _shell() -> Any:
    """The running IPython shell, or None; IPython is not imported for it."""
    ipython = sys.modules.get("IPython")
    return None if ipython is None else ipython.get_ipython()
