"""A part is one generator: stepped by hand, and run by both drivers to the same effect."""

from __future__ import annotations

from typing import Any

import anthropic
import httpx2
import pytest
from anthropic import APIRequest
from anthropic._models import FinalRequestOptions

from llmnb.middleware.flow import CLIENT, Answer, Flow, Part, Pause, sending, tell_when_sent


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


class Asking(Part):
    """Asks the driver for everything but a request."""

    def flow(self, request: APIRequest) -> Flow:
        nothing = yield Pause(0.001)
        client = yield CLIENT
        response = yield Answer(
            httpx2.Response(200, json={"a": 1}, request=httpx2.Request("POST", "http://x")), request
        )
        assert nothing is None
        return client, response


def test_a_flow_can_ask_the_sync_driver_for_more() -> None:
    """A pause, a response made of an HTTP response, and the client."""
    with anthropic.Anthropic(api_key="k", base_url="http://one.example") as first:
        client = first.with_middleware(Outside()).with_middleware(Asking())
        assert _asked(client) is client
        copied = client.with_options(base_url="http://other.example")
        assert _asked(copied) is copied
    assert Asking().handle(a_request(), lambda request: request)[0] is None


def _asked(client: anthropic.Anthropic) -> object:
    found, response = client.post("/v1/messages", cast_to=dict, body={})
    assert type(response) is anthropic.APIResponse
    assert response.json() == {"a": 1}
    return found


async def test_a_flow_can_ask_the_async_driver_for_more() -> None:
    """The same."""
    async with anthropic.AsyncAnthropic(api_key="k") as plain:
        client = plain.with_middleware(Outside()).with_middleware(Asking())
        found, response = await client.post("/v1/messages", cast_to=dict, body={})
        assert found is client
        assert type(response) is anthropic.AsyncAPIResponse
        assert await response.json() == {"a": 1}


class Outside(Part):
    """Another part, outside of the one that asks."""

    def flow(self, request: APIRequest) -> Flow:
        return (yield request)


@pytest.mark.filterwarnings("ignore:llmnb failed:UserWarning")
def test_who_is_told_of_a_request_cannot_break_it() -> None:
    """What fails in the books while a request goes out is said, and the request goes out."""
    request = a_request()
    tell_when_sent(request, lambda: {}["missing"])
    assert sending(request) is request


class Picky(Recorded):
    """Has work to do on one address only."""

    def concerns(self, request: APIRequest) -> bool:
        return request.url == "/mine"


async def test_a_part_is_not_there_for_a_request_that_does_not_concern_it() -> None:
    """In both drivers."""
    part = Picky()

    async def call_next(request: APIRequest) -> Any:
        return request.url

    assert part.handle(a_request(), lambda request: request.url) == "/v1/messages"
    assert await part.handle_async(a_request(), call_next) == "/v1/messages"
    assert part.log == []
    assert part.handle(a_request().copy(url="/mine"), lambda request: request.url) == "</mine>"
    assert part.log == ["before", "finally", "after"]
