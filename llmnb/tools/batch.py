"""The calls of one turn, run side by side: each checked, approved, timed, and answered whatever happens.

The SDK's own tool runner is not used here: it runs the tools of a turn one after another, tells nobody when one begins
or ends, and has no timeout, no ceiling on time or dollars and no memory of what has run. The tools are the SDK's or
plain functions all the same.

A function that is not async runs in a thread of its own. Python cannot end a thread: when the time is up, or somebody
stops the loop, the loop goes on at once and the function runs to its end unheard; only the journal is told what it
gave, so that a loop that begins again does not run it again. An async one is cancelled.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import inspect
import threading
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from llmnb.asking.shape import Misfit
from llmnb.events import NOT_APPROVED, Approval, ToolCall, ToolResult
from llmnb.tools.journal import Journal
from llmnb.tools.results import Content, content_of_result, limited, text_of_result
from llmnb.tools.tool import Tool
from llmnb.tools.toolbox import Toolbox

_ERROR_CHARS = 10_000


@dataclass(frozen=True, slots=True)
class Ran:
    """A call and what came of it: `content` as the API takes it."""

    call: ToolCall
    content: Content
    is_error: bool = False
    duration_ms: float | None = None

    def block(self) -> dict[str, Any]:
        """The `tool_result` for the model."""
        made: dict[str, Any] = {"type": "tool_result", "tool_use_id": self.call.id, "content": self.content}
        return {**made, "is_error": True} if self.is_error else made

    def event(self) -> ToolResult:
        """The same for whoever watches."""
        text = text_of_result(self.content)
        return ToolResult(self.call.id, self.call.name, text, self.is_error, self.duration_ms)


class Batch:
    """The calls of one turn. `run` runs them, once; `ran` are their results so far."""

    def __init__(
        self, calls: Sequence[ToolCall], box: Toolbox, journal: Journal | None, deadline: float | None
    ) -> None:
        self._calls = calls
        self._box = box
        self._journal = journal
        self._deadline = deadline
        self._ran: dict[int, Ran] = {}
        self._news: asyncio.Queue[Approval | int] = asyncio.Queue()
        self.out_of_time = False

    @property
    def ran(self) -> list[Ran]:
        """What has been answered so far, in the order of the calls."""
        return [self._ran[at] for at in sorted(self._ran)]

    async def run(self) -> AsyncGenerator[ToolResult | Approval]:
        """Runs all of them; gives each result as it comes. Ends early, `out_of_time`, at the deadline of the loop."""
        if self._journal is not None:
            await asyncio.to_thread(self._journal.settle)
        tasks = [asyncio.create_task(self._answer(at, call)) for at, call in enumerate(self._calls)]
        try:
            while len(self._ran) < len(self._calls) or not self._news.empty():
                news = await self._next_news(tasks)
                if news is None:
                    return
                yield news if isinstance(news, Approval) else self._ran[news].event()
        finally:
            for task in tasks:
                task.cancel()

    async def _next_news(self, tasks: Sequence[asyncio.Task[None]]) -> Approval | int | None:
        left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
        try:
            return await asyncio.wait_for(self._news.get(), left)
        except TimeoutError:
            self.out_of_time = True
            return None

    # One call ---------------------------------------------------------------------------------------------------------

    async def _answer(self, at: int, call: ToolCall) -> None:
        try:
            ran = await self._answered(call)
        except Exception as error:  # of our own; the others shall not wait for ever
            ran = Ran(call, _told(error), is_error=True)
        self._ran[at] = ran
        self._news.put_nowait(at)

    async def _answered(self, call: ToolCall) -> Ran:
        tool = self._box.tools.get(call.name)
        if tool is None:
            known = ", ".join(self._box.tools) or "none"
            return Ran(call, f"There is no tool {call.name!r}. The tools are: {known}.", is_error=True)
        try:
            arguments = tool.checked(call.input)
        except Misfit as misfit:
            wrong = "\n".join(misfit.errors)
            return Ran(call, f"The arguments do not fit {tool.name}, which was not run:\n{wrong}", is_error=True)
        kept = None if self._journal is None else self._journal.find(call, tool)
        if kept is not None:
            return Ran(call, kept)
        if (refused := await self._refused(call)) is not None:
            return Ran(call, refused, is_error=True)
        return await self._run(call, tool, arguments)

    async def _run(self, call: ToolCall, tool: Tool, arguments: Any) -> Ran:
        began = time.perf_counter()
        timeout = self._box.tool_timeout_s
        try:
            value = await _in_time(_begun(tool, self._heard_out(call, tool), arguments), timeout)
            ran = value if isinstance(value, Ran) else self._finish(call, tool, value)
        except _OutOfTime:
            told = f"{tool.name} took longer than {timeout:g} s and was given up."
            return Ran(call, told, is_error=True, duration_ms=_since(began))
        except Exception as error:
            return Ran(call, _told(error), is_error=True, duration_ms=_since(began))
        return replace(ran, duration_ms=_since(began))

    def _heard_out(self, call: ToolCall, tool: Tool) -> Callable[[Any], Any]:
        """The tool's function, kept in the journal by the thread it runs in: somebody else may have given it up."""

        @functools.wraps(tool.call)
        def called(arguments: Any) -> Any:
            value = tool.call(arguments)
            return value if inspect.isawaitable(value) else self._finish(call, tool, value)

        return called

    def _finish(self, call: ToolCall, tool: Tool, value: Any) -> Ran:
        content = content_of_result(value)
        if self._journal is not None:
            self._journal.keep(call, tool, content)
        return Ran(call, content)

    async def _refused(self, call: ToolCall) -> str | None:
        """Why a person does not let it run, or None."""
        approve = self._box.approve
        if approve is None:
            return None
        said: Any = await (self._asked(call) if approve is True else _called(approve, call))
        if isinstance(said, str) and said:
            return f"{NOT_APPROVED}: {said}"
        return None if said is True else f"{NOT_APPROVED}. It was not run."

    async def _asked(self, call: ToolCall) -> bool:
        loop = asyncio.get_running_loop()
        answered: asyncio.Future[bool] = loop.create_future()

        def answer(yes: bool) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(lambda: answered.done() or answered.set_result(yes))

        self._news.put_nowait(Approval(call, answer))
        return await answered


class _OutOfTime(Exception):  # noqa: N818 - it says what happened
    """A tool took too long; told apart from a TimeoutError of its own."""


async def _in_time(running: asyncio.Future[Any], limit_s: float | None) -> Any:
    # not wait_for: it waits for what it cancels, which may take its time
    running.add_done_callback(_heard)
    try:
        await asyncio.wait([running], timeout=limit_s)
        if not running.done():
            raise _OutOfTime
    finally:
        if not running.done():
            running.cancel()
    return running.result()


def _heard(running: asyncio.Future[Any]) -> None:
    """What was given up may still fail; nobody needs to be told."""
    if not running.cancelled():
        running.exception()


def _begun(tool: Tool, call: Callable[[Any], Any], arguments: Any) -> asyncio.Future[Any]:
    if tool.is_async:
        return asyncio.ensure_future(tool.call(arguments))
    if tool.in_worker:
        from anyio.to_thread import run_sync

        return asyncio.ensure_future(run_sync(call, arguments, abandon_on_cancel=True))
    return asyncio.ensure_future(_called(call, arguments))


async def _called(function: Callable[[Any], Any], argument: Any) -> Any:
    """What a function of any kind gives; one that is not async is called in a thread of its own."""
    if inspect.iscoroutinefunction(function):
        return await function(argument)
    value = await _in_thread(function, argument)
    return await value if inspect.isawaitable(value) else value


def _in_thread(function: Callable[[Any], Any], argument: Any) -> asyncio.Future[Any]:
    """Calls the function in a daemon thread: a pool's would keep the process from ending while one hangs."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Any] = loop.create_future()
    context = contextvars.copy_context()

    def end(value: Any, error: BaseException | None) -> None:
        if result.done():
            return
        if error is None:
            result.set_result(value)
        else:
            result.set_exception(error)

    def run() -> None:
        value, failed = None, None
        try:
            value = context.run(function, argument)
        except BaseException as error:
            # neither may end the loop that it is told to: what a thread raises is the tool's failure
            failed = error if isinstance(error, Exception) else RuntimeError(f"{type(error).__name__}: {error}")
            if isinstance(error, StopIteration):
                failed = RuntimeError(repr(error))
        with suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(end, value, failed)

    threading.Thread(target=run, name=f"llmnb-tool-{getattr(function, '__name__', 'call')}", daemon=True).start()
    return result


def _told(error: Exception) -> Content:
    content = getattr(error, "content", None)
    if type(error).__name__ == "ToolError" and content is not None:  # the SDK's way to say what the model should see
        return content_of_result(content)
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return limited(text if len(text) <= _ERROR_CHARS else f"{text[:_ERROR_CHARS]}…")


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1000
