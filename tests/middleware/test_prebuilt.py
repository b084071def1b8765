"""Requests that are sent without being built anew: neither the server nor the user can tell them from the SDK's own."""

from __future__ import annotations

import asyncio
import logging
import runpy
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anthropic
import httpx2
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import llmnb
from llmnb.middleware import known_sdk, prebuilt
from llmnb.middleware.prebuilt import PrebuiltPart

from .wire import Wire, wire

PLAIN = {"model": "claude-sonnet-5-5", "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}]}
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # to load certificates takes longer than all that is tested
Client = Any


class Idle(anthropic.Middleware):
    """What is there anyway: with any middleware the SDK sends a header of its own."""

    def handle(self, request: Any, call_next: Any) -> Any:
        return call_next(request)

    async def handle_async(self, request: Any, call_next: Any) -> Any:
        return await call_next(request)


# What is asked --------------------------------------------------------------------------------------------------------

QUESTIONS = st.fixed_dictionaries(
    {},
    optional={
        "messages": st.sampled_from(("Hi", "sjø \U0001f30a", "\ud800", "x" * 3_000)).map(
            lambda text: [{"role": "user", "content": text}]
        ),
        "max_tokens": st.sampled_from((1, 20_000)),
        "system": st.just("Short."),
        "stream": st.just(True),
        "extra_headers": st.sampled_from(
            (
                {"x-a": "1", "x-b": "2"},
                {"x-b": "2", "x-a": "1"},
                {"anthropic-beta": "one,two"},
                {"X-Stainless-Retry-Count": "7"},
                {"Cookie": "mine=1"},
                {"x-ø": "1"},
                {"x-value": "ø"},
                {"User-Agent": anthropic.omit},
                {"Idempotency-Key": "mine"},
            )
        ),
        "extra_query": st.just({"q": "1 +"}),
        "extra_body": st.sampled_from(({"temperature": 0.5}, {"metadata": {"user_id": "u"}})),
        "timeout": st.sampled_from((30, 30.0, httpx2.Timeout(31), httpx2.Timeout(31.0, connect=2), None)),
    },
)
WAYS = st.sampled_from(("create", "create", "create", "raw", "streaming", "beta", "count"))
ANSWERS = st.lists(st.sampled_from(("cookie", "fails", "hangs up", "refuses", "moved", "ok")), max_size=3)


def _hook(request: httpx2.Request) -> None:
    request.headers["x-hooked"] = str(len(request.headers))


async def _ahook(request: httpx2.Request) -> None:
    _hook(request)


def _hooked(client: Client) -> None:
    hook: Any = _ahook if isinstance(client, anthropic.AsyncAnthropic) else _hook
    client._client.event_hooks = {"request": [hook], "response": []}


def _prepared(client: Client) -> None:
    def add(request: httpx2.Request) -> None:
        request.headers["x-prepared"] = "1"

    async def aadd(request: httpx2.Request) -> None:
        add(request)

    client._prepare_request = aadd if isinstance(client, anthropic.AsyncAnthropic) else add


def _set(name: str, value: Any) -> Callable[[Client], None]:
    return lambda client: setattr(client, name, value)


CHANGES: dict[str, Callable[[Client], object]] = {
    "api_key": _set("api_key", "another"),
    "auth_token": _set("auth_token", "token"),
    "no credentials": _set("api_key", None),
    "timeout": _set("timeout", 77.0),
    "timeout of ints": _set("timeout", 77),
    "idempotency header": _set("_idempotency_header", "Idempotency-Key"),
    "base_url": lambda client: setattr(client, "base_url", f"{str(client.base_url).rstrip('/')}/under"),
    "default header": lambda client: client._custom_headers.update({"x-default": "1"}),
    "default query": lambda client: client._custom_query.update({"d": "1"}),
    "header of http": lambda client: client._client.headers.update({"x-http": "1"}),
    "cookie": lambda client: client._client.cookies.set("mine", "1"),
    "cookie of another": lambda client: client._client.cookies.set("theirs", "1", domain="example.org"),
    "params of http": lambda client: setattr(client._client, "params", {"p": "1"}),
    "auth of http": lambda client: setattr(client._client, "auth", ("me", "secret")),
    "hook": _hooked,
    "no redirects": lambda client: setattr(client._client, "follow_redirects", False),
    "_prepare_request": _prepared,
}
STEPS = st.lists(
    st.one_of(st.tuples(WAYS, QUESTIONS, ANSWERS), st.sampled_from(sorted(CHANGES)).map(lambda name: (name,))),
    min_size=2,
    max_size=6,
)
TWICE: list[Any] = [("create", {}, []), ("create", {}, []), ("create", {}, ["fails", "cookie"]), ("create", {}, [])]


# What comes of it -----------------------------------------------------------------------------------------------------


def _call(client: Client, way: str) -> Callable[..., Any]:
    return {
        "create": client.messages.create,
        "raw": client.messages.with_raw_response.create,
        "streaming": client.messages.with_streaming_response.create,
        "beta": client.beta.messages.create,
        "count": client.messages.count_tokens,
    }[way]


def _asked(way: str, question: dict[str, Any]) -> dict[str, Any]:
    asked = {**PLAIN, **question}
    if way == "count":
        asked.pop("max_tokens"), asked.pop("stream", None)
    return asked


def _of_request(request: httpx2.Request) -> Any:
    return request.method, str(request.url), request.headers.raw, request.read(), request.extensions


def _of_http(http: httpx2.Response) -> Any:
    """All that a user can see of a response which has been read."""
    return (
        type(http),
        http.status_code,
        http.reason_phrase,
        http.headers.raw,
        http.http_version,
        http.is_closed,
        http.is_stream_consumed,
        http.num_bytes_downloaded,
        http.elapsed.total_seconds() > 0,
        sorted(http.extensions),
        http.default_encoding,
        [_of_http(before) for before in http.history],
        _of_request(http.request),
        str(http.url),
        http.content if hasattr(http, "_content") else None,
    )


def _of_answer(answer: Any, read: list[Any]) -> Any:
    if isinstance(answer, anthropic.APIResponse | anthropic.AsyncAPIResponse):
        kind = type(answer), answer._cast_to, answer.retries_taken, answer.request_id, answer.workspace_id
        return *kind, _of_http(answer.http_response), read
    if isinstance(answer, anthropic.Stream | anthropic.AsyncStream):
        return type(answer), read, _of_http(answer.response)
    return type(answer), answer.model_dump(), getattr(answer, "_request_id", None)


def _of_error(error: BaseException) -> Any:
    response = getattr(error, "response", None)
    request = getattr(error, "request", None)
    return (
        type(error),
        str(error),
        type(error.__cause__),
        request and _of_request(request),
        response and _of_http(response),
    )


def _ask(client: Client, way: str, question: dict[str, Any]) -> Any:
    try:
        answer = _call(client, way)(**_asked(way, question))
        if way == "streaming":
            with answer as opened:
                return _of_answer(opened, [opened.read()])
        if isinstance(answer, anthropic.APIResponse) and not question.get("stream"):
            return _of_answer(answer, [answer.parse().model_dump()])
        if isinstance(answer, anthropic.APIResponse):
            return _of_answer(answer, [list(answer.parse())])
        return _of_answer(answer, list(answer) if isinstance(answer, anthropic.Stream) else [])
    except Exception as error:
        return _of_error(error)


async def _aask(client: Client, way: str, question: dict[str, Any]) -> Any:
    try:
        if way == "streaming":
            async with _call(client, way)(**_asked(way, question)) as opened:
                return _of_answer(opened, [await opened.read()])
        answer = await _call(client, way)(**_asked(way, question))
        if isinstance(answer, anthropic.AsyncAPIResponse) and not question.get("stream"):
            return _of_answer(answer, [(await answer.parse()).model_dump()])
        if isinstance(answer, anthropic.AsyncAPIResponse):
            return _of_answer(answer, [[event async for event in await answer.parse()]])
        read = [event async for event in answer] if isinstance(answer, anthropic.AsyncStream) else []
        return _of_answer(answer, read)
    except Exception as error:
        return _of_error(error)


def _jar(client: Client) -> Any:
    return sorted((cookie.domain, cookie.path, cookie.name, cookie.value) for cookie in client._client.cookies.jar)


def _new(url: str, kind: Any, http: Any) -> Client:
    return kind(base_url=url, api_key="key", http_client=http(verify=NO_TLS), default_headers={"x-mine": "ever"})


def _one_run(server: Wire, steps: list[Any], dress: Callable[[Client], Client]) -> Any:
    told: list[Any] = []
    server.heard, server.answers = [], type(server.answers)()
    with _new(server.url, anthropic.Anthropic, anthropic.DefaultHttpxClient) as plain:
        client = dress(plain)
        for step in steps:
            if len(step) == 1:
                CHANGES[step[0]](client)
            else:
                server.answers.extend(step[2])
                told.append((_ask(client, step[0], step[1]), _jar(client)))
                server.answers.clear()
    return told, server.heard


async def _one_arun(server: Wire, steps: list[Any], dress: Callable[[Client], Client]) -> Any:
    told: list[Any] = []
    server.heard, server.answers = [], type(server.answers)()
    async with _new(server.url, anthropic.AsyncAnthropic, anthropic.DefaultAsyncHttpxClient) as plain:
        client = dress(plain)
        for step in steps:
            if len(step) == 1:
                CHANGES[step[0]](client)
            else:
                server.answers.extend(step[2])
                told.append((await _aask(client, step[0], step[1]), _jar(client)))
                server.answers.clear()
    return told, server.heard


def idle(client: Client) -> Client:
    """The SDK's own doing."""
    return client.copy(middleware=[Idle()])


# The tests ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[Wire]:
    """One for all."""
    with wire() as running:
        yield running


@pytest.fixture(autouse=True)
def _sdk_of_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("anthropic._base_client.INITIAL_RETRY_DELAY", 0.0001)
    monkeypatch.setattr("anthropic._base_client.BaseClient._idempotency_key", lambda client: "the key")


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The requests that were answered and had not been built by the SDK."""
    built: list[Any] = []
    facts = prebuilt._facts

    def answered(http: httpx2.Response, asked: Any) -> Any:
        built.append(asked)
        return facts(http, asked)

    monkeypatch.setattr(prebuilt, "_facts", answered)
    return built


EXAMPLES = settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


@example(TWICE)
@example([*TWICE, ("cookie",), *TWICE, ("hook",), *TWICE, ("auth of http",), *TWICE])
@example([*TWICE, ("create", {"stream": True}, []), ("raw", {}, ["moved", "cookie"]), ("raw", {}, ["moved"]), *TWICE])
@given(STEPS)
@EXAMPLES
def test_nobody_can_tell(server: Wire, steps: list[Any]) -> None:
    """Every byte that the server hears and all that the user is given are as without, whatever happens in between."""
    told, heard = _one_run(server, steps, idle)
    our_told, our_heard = _one_run(server, steps, llmnb.wrap)
    assert our_heard == heard
    assert our_told == told


@example([*TWICE, ("cookie",), *TWICE, ("hook",), *TWICE, ("raw", {}, ["moved", "cookie"]), ("raw", {}, ["moved"])])
@given(STEPS)
@settings(EXAMPLES, max_examples=4)
def test_nobody_can_tell_of_async_clients(server: Wire, steps: list[Any]) -> None:
    """The same over asyncio."""
    told, heard = asyncio.run(_one_arun(server, steps, idle))
    our_told, our_heard = asyncio.run(_one_arun(server, steps, llmnb.wrap))
    assert our_heard == heard
    assert our_told == told


@pytest.mark.soak
@given(STEPS)
@settings(EXAMPLES, max_examples=1_000)
def test_nobody_can_tell_for_long(server: Wire, steps: list[Any]) -> None:
    """The same, of many more runs."""
    assert _one_run(server, steps, llmnb.wrap) == _one_run(server, steps, idle)


def test_the_way_is_taken(server: Wire, direct: list[Any]) -> None:
    """What is like a request before it is not built by the SDK: creates, streams, retries and asks of `LLM`."""
    _one_run(server, [*TWICE, ("create", {"stream": True}, []), ("raw", {}, []), ("raw", {}, [])], llmnb.wrap)
    assert len(direct) == 7  # the first of a client is let pass; the third was sent again
    asyncio.run(_one_arun(server, TWICE, llmnb.wrap))
    assert len(direct) == 7 + 4
    with _new(server.url, anthropic.Anthropic, anthropic.DefaultHttpxClient) as plain:
        llm = llmnb.LLM("claude-sonnet-5-5", client=plain, cache=False)
        assert [llm.ask(f"Hi {number}").text for number in range(3)] == ["sjø"] * 3
    assert len(direct) == 11 + 2


class Mine(anthropic.Anthropic):
    """A client of the user's own."""


class Http(httpx2.Client):
    """An HTTP client of the user's own."""

    def build_request(self, *args: Any, **options: Any) -> httpx2.Request:
        return super().build_request(*args, **options)


def _asks(client: Client, times: int = 3) -> None:
    for _ in range(times):
        client.messages.create(**PLAIN)


@pytest.mark.parametrize(
    "options",
    [
        {"credentials": lambda *, force_refresh=False: anthropic.AccessToken("token", None)},
        {"http_client": Http(verify=NO_TLS)},
        {"default_query": {"q": "1"}},
        {"default_headers": {"cookie": "a=1"}},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_is_not_plain_goes_the_way_of_the_sdk(server: Wire, options: dict[str, Any], direct: list[Any]) -> None:
    """Credentials that change, HTTP clients that build requests themselves, queries, headers that each request has."""
    key = {} if "credentials" in options else {"api_key": "key"}
    with anthropic.Anthropic(base_url=server.url, **key, **options) as plain:
        _asks(llmnb.wrap(plain))
    assert direct == []


def test_a_class_of_ones_own_goes_the_way_of_the_sdk(server: Wire, direct: list[Any]) -> None:
    """It may do anything."""
    with _new(server.url, Mine, anthropic.DefaultHttpxClient) as plain:
        _asks(llmnb.wrap(plain))
    assert direct == []


@pytest.mark.parametrize(
    "name",
    [
        "anthropic.Anthropic._prepare_options",
        "anthropic._base_client.BaseClient._build_request",
        "httpx2._client.BaseClient.build_request",
    ],
)
def test_replaced_methods_are_called(
    server: Wire, name: str, direct: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever hooks into the SDK or httpx2 sees every request, also one that comes after others."""
    with _new(server.url, anthropic.Anthropic, anthropic.DefaultHttpxClient) as plain:
        client = llmnb.wrap(plain)
        _asks(client)
        assert len(direct) == 2
        seen: list[Any] = []
        path, _, method = name.rpartition(".")
        module, _, owner = path.rpartition(".")
        original = getattr(getattr(sys.modules[module], owner), method)

        def replaced(*args: Any, **options: Any) -> Any:
            seen.append(args)
            return original(*args, **options)

        monkeypatch.setattr(name, replaced)
        _asks(client)
        assert len(seen) == 3
        monkeypatch.undo()


@pytest.mark.parametrize("kind", [anthropic.Anthropic, anthropic.AsyncAnthropic], ids=["sync", "async"])
def test_the_installed_sdk_is_known(kind: Any) -> None:
    """Else all goes its way: see what it changed of the code left out, mend the shortcuts, add the fingerprint."""
    assert known_sdk.known(kind) is not None, f"not known: {known_sdk.fingerprint(kind)}"


@pytest.fixture
def _found_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As if another SDK had been there from the start."""
    known_sdk.known.cache_clear()
    yield
    monkeypatch.undo()
    known_sdk.known.cache_clear()


@pytest.mark.usefixtures("_found_anew")
@pytest.mark.parametrize("name", ["_process_response", "_prepare_request", "platform_headers"])
def test_an_sdk_that_does_more_is_left_to_itself(name: str, direct: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not known, or gone by that name, is not cut short."""
    owner: Any = next(kind for kind in anthropic.Anthropic.__mro__ if name in vars(kind))
    original = vars(owner)[name]

    def newer(self: Any, *args: Any, sent_at: float = 0, **options: Any) -> Any:
        return original(self, *args, **options)

    newer.__module__ = original.__module__
    monkeypatch.setattr(owner, name, newer)
    seen: list[httpx2.Request] = []
    _asks(_over(seen))
    assert (len(seen), direct) == (3, [])
    monkeypatch.delattr(owner, name)
    known_sdk.known.cache_clear()
    assert known_sdk.known(anthropic.Anthropic) is None


def test_a_helper_of_the_sdk_may_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then clients are wrapped and asked as ever."""
    monkeypatch.delattr("anthropic._utils._json.openapi_dumps")
    monkeypatch.delattr("anthropic._constants.RAW_RESPONSE_HEADER")
    assert runpy.run_path(prebuilt.__file__)["PrebuiltPart"]


def _over(seen: list[httpx2.Request], **options: Any) -> Client:
    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={"type": "message", "content": [], "usage": {}})

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    return llmnb.wrap(
        anthropic.Anthropic(**{"base_url": "http://there", "api_key": "key", **options}, http_client=http)
    )


def test_a_key_set_while_a_thread_learns_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made with the old one is not kept for the new one."""
    seen: list[httpx2.Request] = []
    client = _over(seen)
    _asks(client, 1)
    built, go, told = threading.Event(), threading.Event(), prebuilt._told

    def slow(request: httpx2.Request) -> Any:
        if threading.current_thread() is thread and not built.is_set():
            built.set()
            assert go.wait(60)
        return told(request)

    monkeypatch.setattr(prebuilt, "_told", slow)
    thread = threading.Thread(target=_asks, args=(client, 1))
    thread.start()
    assert built.wait(60)
    client.api_key = "new"
    _asks(client, 1)
    go.set()
    thread.join()
    _asks(client, 2)
    assert [request.headers["authorization"] for request in seen[-2:]] == ["Bearer new"] * 2


def test_a_timeout_that_is_changed_counts(direct: list[Any]) -> None:
    """The object is the same, what it says is not."""
    seen: list[httpx2.Request] = []
    client, timeout = _over(seen), httpx2.Timeout(30.0)
    for read in (30.0, 30.0, 30.0, 5.0):
        timeout.read = read
        client.messages.create(**PLAIN, timeout=timeout)
    assert [request.extensions["timeout"]["read"] for request in seen] == [30.0, 30.0, 30.0, 5.0]
    assert len(direct) == 3


@pytest.mark.parametrize("option", ["api_key", "default_headers"])
def test_texts_that_are_written_anew_are_never_kept(option: str, direct: list[Any]) -> None:
    """A key may be an object that looks up what it is when it is written."""

    class Rotating(str):
        def __format__(self, spec: str) -> str:
            return f"k{len(seen)}"

    seen: list[httpx2.Request] = []
    value: Any = Rotating("x")
    _asks(_over(seen, **{option: value if option == "api_key" else {"x-a": value}}))
    assert direct == []
    assert option != "api_key" or len({request.headers["authorization"] for request in seen}) == 3


def test_a_header_that_becomes_a_query_is_one() -> None:
    """The same words at another place."""
    seen: list[httpx2.Request] = []
    client = _over(seen, default_headers={"a": "1"})
    _asks(client)
    client._custom_headers, client._custom_query = {}, {"a": "1"}
    _asks(client, 1)
    assert str(seen[-1].url).endswith("?a=1")


@pytest.mark.parametrize(
    "name",
    [
        "anthropic._base_client.platform_headers",
        "anthropic._base_client.openapi_dumps",
        "httpx2._client.Request",
        "httpx2.Request.__init__",
    ],
)
def test_replaced_functions_are_called(name: str, direct: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when that was done after requests were learned."""
    client = _over([])
    _asks(client)
    path, _, last = name.rpartition(".")
    original = getattr(httpx2.Request if path == "httpx2.Request" else sys.modules[path], last)

    class Replaced(httpx2.Request):
        """Somebody's own."""

    def replaced(*args: Any, **options: Any) -> Any:
        return original(*args, **options)

    monkeypatch.setattr(name, Replaced if last == "Request" else replaced)
    _asks(client, 1)
    assert len(direct) == 2


def test_what_is_logged_is_logged(server: Wire, caplog: pytest.LogCaptureFixture) -> None:
    """The SDK and httpx2 say of every request what they say of the first, at every level."""
    for level in (logging.DEBUG, logging.INFO):
        with _new(server.url, anthropic.Anthropic, anthropic.DefaultHttpxClient) as plain:
            client = llmnb.wrap(plain)
            _asks(client, 2)
            said: list[list[str]] = []
            for _ in range(2):
                caplog.clear()
                with caplog.at_level(level):
                    _asks(client, 1)
                said.append(
                    [record.msg for record in caplog.records if record.name.startswith(("anthropic", "httpx2"))]
                )
            assert said[0] == said[1]
            assert any("HTTP Request" in line for line in said[0])
            assert any("Request options" in line for line in said[0]) == (level == logging.DEBUG)


def test_a_transport_of_ones_own_sees_every_request(direct: list[Any]) -> None:
    """As tests of users have it."""
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(200, json={"type": "message", "content": [], "usage": {}})

    http = httpx2.Client(transport=httpx2.MockTransport(answer))
    _asks(llmnb.wrap(anthropic.Anthropic(base_url="http://there", api_key="key", http_client=http)))
    assert len(seen) == 3
    assert len(direct) == 2
    assert len({str(request.headers.raw) for request in seen}) == 1


def test_streams_are_alike(server: Wire, direct: list[Any]) -> None:
    """The SDK gives each a mark of its own for the timeout that nobody set."""
    with _new(server.url, anthropic.Anthropic, anthropic.DefaultHttpxClient) as plain:
        client = llmnb.wrap(plain)
        for _ in range(20):
            list(client.messages.create(**PLAIN, stream=True))
    assert len(direct) == 19


def test_requests_that_are_never_alike_are_soon_let_be(server: Wire, direct: list[Any]) -> None:
    """To learn takes longer than to send; what is alike goes on as before."""
    with _new(server.url, anthropic.Anthropic, anthropic.DefaultHttpxClient) as plain:
        client = llmnb.wrap(plain)
        for number in range(30):
            client.messages.create(**PLAIN, extra_headers={"x-trace": str(number)})
        assert len(direct) < 20


def test_middleware_of_the_user_inside_is_run(server: Wire, direct: list[Any]) -> None:
    """What is added to a wrapped client stands inside of it, and sees every request."""
    with _new(server.url, anthropic.Anthropic, anthropic.DefaultHttpxClient) as plain:
        seen: list[Any] = []

        class Looks(Idle):
            def handle(self, request: Any, call_next: Any) -> Any:
                seen.append(request)
                return call_next(request)

        _asks(llmnb.wrap(plain).with_middleware(Looks()))
    assert len(seen) == 3
    assert direct == []


def test_a_copy_with_another_key_sends_that(server: Wire) -> None:
    """`with_options` shares the parts with the client that it is made of, and nothing that was learned."""
    with _new(server.url, anthropic.Anthropic, anthropic.DefaultHttpxClient) as plain:
        client = llmnb.wrap(plain)
        _asks(client)
        server.heard = []
        _asks(client.with_options(api_key="another", timeout=5))
        _asks(client, 1)
    assert [b"Bearer another" in request for request in server.heard] == [True, True, True, False]


def test_the_part_is_there_once() -> None:
    """However often a client is wrapped."""
    with anthropic.Anthropic(api_key="key") as plain:
        twice = llmnb.wrap(llmnb.wrap(plain))
        assert isinstance(twice.middleware[-1], PrebuiltPart)
        assert sum(isinstance(part, PrebuiltPart) for part in twice.middleware) == 1
