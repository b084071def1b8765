"""How a part is written once and runs in sync and async clients: as a generator that yields what it needs.

A part yields the request it wants sent and receives the response; what goes wrong on the way is raised inside it, at
the `yield`, so that `try/finally` works as it reads:

    class Stopwatch(Part):
        def flow(self, request):
            started = time.perf_counter()
            response = yield request
            print(time.perf_counter() - started)
            return response

Tests step a flow by hand with `next`, `send` and `throw`; the only two drivers stand here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Generator
from typing import Any, TypeAlias

from anthropic import APIRequest, APIResponse, AsyncAPIResponse, AsyncCallNext, CallNext, Middleware

Response: TypeAlias = APIResponse[Any] | AsyncAPIResponse[Any]
Flow: TypeAlias = Generator[APIRequest, Any, Any]
"""Yields requests to send, receives a `Response` for each, returns the one that the caller shall get."""


class Part(Middleware):
    """One concern of the pipeline. Override `flow`; the base class runs it in both kinds of clients."""

    @abstractmethod
    def flow(self, request: APIRequest) -> Flow:
        """The part's work on one HTTP attempt."""

    def handle(self, request: APIRequest, call_next: CallNext) -> APIResponse[Any]:
        flow = self.flow(request)
        try:
            wanted = next(flow)
            while True:
                try:
                    response = call_next(wanted)
                except BaseException as error:
                    wanted = flow.throw(error)
                else:
                    wanted = flow.send(response)
        except StopIteration as stop:
            return stop.value

    async def handle_async(self, request: APIRequest, call_next: AsyncCallNext) -> AsyncAPIResponse[Any]:
        flow = self.flow(request)
        try:
            wanted = next(flow)
            while True:
                try:
                    response = await call_next(wanted)
                except BaseException as error:
                    wanted = flow.throw(error)
                else:
                    wanted = flow.send(response)
        except StopIteration as stop:
            return stop.value
