"""Asks a chat in the background, on llmnb's loop thread, while a view shows the answer and the kernel stays free."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from llmnb.asking.runner import loop_thread
from llmnb.errors import InvalidRequest
from llmnb.events import StreamEvent
from llmnb.interrupts import STOPPED, Cancelled
from llmnb.views import View

if TYPE_CHECKING:
    from llmnb.asking.turns import Turn
    from llmnb.chat import Chat


class BackgroundAsker:
    """One question to `chat` at a time. The methods may be called from any thread."""

    def __init__(self, chat: Chat) -> None:
        self.chat = chat
        self._lock = threading.Lock()
        self._busy = False
        self._task: asyncio.Task[None] | None = None

    @property
    def busy(self) -> bool:
        """Whether an answer is on its way."""
        return self._busy

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The questions and answers of the chat."""
        return self.chat._turns  # pyright: ignore[reportPrivateUsage]

    def ask(self, prompt: Any, view: View, *, kept: int | None = None, fresh: bool = False) -> None:
        """Begins to ask. An answer that comes to its end takes the place of all turns but the first `kept`.

        `fresh` asks again what is on disk.

        `view.open` is called here, the rest on the loop thread; `view.close` gets any error, and is called last.

        Raises:
            InvalidRequest: the question cannot be asked, or an answer is on its way.
        """
        question, content = self.chat._ready(prompt, {"fresh": fresh})  # pyright: ignore[reportPrivateUsage]
        with self._lock:
            if self._busy:
                raise InvalidRequest("this chat is still answering: wait for it, or stop it")
            self._busy, self._task = True, None
        view.open(question.plan.model, self.stop)
        events = self.chat._astream(  # pyright: ignore[reportPrivateUsage]
            question, content, kept=kept, on_loop_thread=True
        )

        def begin() -> None:
            self._task = asyncio.get_running_loop().create_task(self._show(events, view))

        loop_thread().call(begin)

    def stop(self) -> None:
        """Ends the answer, if one is on its way."""
        loop_thread().call(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _show(self, events: AsyncGenerator[StreamEvent], view: View) -> None:
        error: BaseException | None = None
        try:
            async with aclosing(events):
                async for event in events:
                    view.show(event)
        except asyncio.CancelledError:
            error = Cancelled(STOPPED)
        except Exception as failure:
            error = failure
        self._busy = False
        view.close(error)
