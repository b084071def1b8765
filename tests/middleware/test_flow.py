"""A part is one generator: stepped by hand, and run by both drivers to the same effect."""

from __future__ import annotations

from typing import Any

import pytest
from anthropic import APIRequest
from anthropic._models import FinalRequestOptions

from llmnb.middleware.flow import Flow, Part


class Recorded(Part):
    """Notes what happens to it, sends twice when told to, and can answer something else."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def flow(self, request: APIRequest) -> Flow:
        self.log.append("before")
        try:
            first = yield request
        except ValueError as error:
            self.log.append(f"caught {error}")
            first = yield request.copy(url="/second")
        finally:
            self.log.append("finally")
        self.log.append("after")
        return f"<{first}>"


def a_request() -> APIRequest:
    return APIRequest(options=FinalRequestOptions(method="post", url="/v1/messages", json_data={}), cast_to=object)


def test_a_flow_can_be_stepped_by_hand() -> None:
    """No client and no server are needed to test what a part does."""
    request = a_request()
    flow = Recorded().flow(request)
    assert next(flow) is request
    with pytest.raises(StopIteration) as stop:
        flow.send("answer")
    assert stop.value.value == "<answer>"


def test_the_sync_driver_sends_what_the_flow_yields() -> None:
    """The answer of the chain goes in, what the flow returns comes out."""
    part = Recorded()
    assert part.handle(a_request(), lambda request: request.url) == "</v1/messages>"
    assert part.log == ["before", "finally", "after"]


async def test_the_async_driver_does_the_same() -> None:
    """One generator, two drivers, one behaviour."""
    part = Recorded()

    async def call_next(request: APIRequest) -> Any:
        return request.url

    assert await part.handle_async(a_request(), call_next) == "</v1/messages>"
    assert part.log == ["before", "finally", "after"]


def fails_first(request: APIRequest) -> Any:
    if request.url == "/v1/messages":
        raise ValueError("no")
    return request.url


async def test_errors_are_raised_inside_the_flow_which_may_send_again() -> None:
    """What call_next raises appears at the yield, in both drivers."""
    sync_part, async_part = Recorded(), Recorded()

    async def call_next(request: APIRequest) -> Any:
        return fails_first(request)

    assert sync_part.handle(a_request(), fails_first) == "</second>"
    assert await async_part.handle_async(a_request(), call_next) == "</second>"
    assert sync_part.log == async_part.log == ["before", "caught no", "finally", "after"]


@pytest.mark.parametrize("error", [KeyError("key"), KeyboardInterrupt(), SystemExit()])
async def test_an_error_the_flow_does_not_catch_comes_out_as_it_went_in(error: BaseException) -> None:
    """The very same object, so that SDK errors and Ctrl-C stay what they are."""

    def call_next(request: APIRequest) -> Any:
        raise error

    with pytest.raises(type(error)) as caught:
        Recorded().handle(a_request(), call_next)
    assert caught.value is error
