"""The name of a question: the same for the same question, another one for any other."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmnb import keys
from llmnb.asking.content import content_of
from llmnb.keys import request_key

BODY: dict[str, Any] = {
    "model": "claude-sonnet-5-5",
    "max_tokens": 100,
    "system": [{"type": "text", "text": "Be brief."}],
    "tools": [{"name": "f", "input_schema": {"type": "object", "properties": {"cache_control": {"type": "string"}}}}],
    "messages": [
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"cache_control": "x"}}],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "done"}]},
                {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "long"}]}},
            ],
        },
    ],
}

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
bodies = st.dictionaries(
    st.sampled_from(["model", "messages", "system", "tools", "thinking", "a", "temperature"]) | st.text(max_size=5),
    values,
    max_size=5,
)


def shuffled(value: Any, draw: Callable[[list[Any]], list[Any]]) -> Any:
    """The same JSON with the keys of every object in another order."""
    if isinstance(value, dict):
        return {name: shuffled(value[name], draw) for name in draw(list(value))}
    return [shuffled(item, draw) for item in value] if isinstance(value, list) else value


@given(bodies, st.data())
def test_the_order_of_keys_does_not_matter(body: dict[str, Any], data: st.DataObject) -> None:
    """At any depth."""
    other = shuffled(body, lambda names: data.draw(st.permutations(names)))
    assert request_key(other) == request_key(body)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in a JSON document."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, part in items:
        yield (*path, name)
        yield from places(part, (*path, name))


def replaced(value: Any, path: tuple[Any, ...], part: Any) -> Any:
    """A copy with one value exchanged."""
    whole = copy.deepcopy(value)
    inner = whole
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = part
    return whole


@given(bodies, values, st.data())
def test_every_other_value_gives_another_key(body: dict[str, Any], value: Any, data: st.DataObject) -> None:
    """Wherever it stands, unless the place is one of the documented exceptions."""
    ways = list(places(body))
    if not ways:
        return
    path = data.draw(st.sampled_from(ways))
    other = replaced(body, path, value)
    ignored = path[0] in keys.IGNORED_FIELDS or "cache_control" in path
    same = json.dumps(other, sort_keys=True) == json.dumps(body, sort_keys=True)
    if not ignored and "cache_control" not in json.dumps(value):
        assert (request_key(other) == request_key(body)) is same


@given(bodies, st.sampled_from(sorted(keys.IGNORED_FIELDS)), values)
def test_the_ignored_fields_are_ignored(body: dict[str, Any], name: str, value: Any) -> None:
    """Streaming, metadata, diagnostics and top-level cache_control leave the key as it is."""
    assert request_key({**body, name: value}) == request_key(body)


BREAKPOINTS: list[tuple[Any, ...]] = [
    ("system", 0), ("tools", 0), ("messages", 1, "content", 0), ("messages", 2, "content", 0),
    ("messages", 2, "content", 0, "content", 0), ("messages", 2, "content", 1),
    ("messages", 2, "content", 1, "source", "content", 0),
]  # fmt: skip


@pytest.mark.parametrize("path", BREAKPOINTS, ids=str)
def test_a_breakpoint_does_not_change_the_key(path: tuple[Any, ...]) -> None:
    """Wherever the API takes one."""
    marked = replaced(BODY, (*path, "cache_control"), {"type": "ephemeral", "ttl": "1h"})
    assert request_key(marked) == request_key(BODY)


@pytest.mark.parametrize(
    "path",
    [
        ("messages", 1, "content", 0, "input", "cache_control"),
        ("tools", 0, "input_schema", "properties", "cache_control"),
        ("messages", 2, "content", 1, "metadata"),
        ("messages", 0, "stream"),
    ],
    ids=str,
)
def test_a_name_alone_is_no_reason_to_ignore_a_value(path: tuple[Any, ...]) -> None:
    """A tool's argument may be called cache_control, with breakpoints elsewhere or without."""
    changed = replaced(BODY, path, {"type": "other"})
    assert request_key(changed) != request_key(BODY)
    marked = replaced(changed, ("system", 0, "cache_control"), {"type": "ephemeral"})
    assert request_key(marked) == request_key(changed)


AROUND: list[dict[str, Any]] = [
    {"provider": "aws.bedrock"},
    {"base_url": "https://gateway.example"},
    {"path": "/v1/messages?beta=true"},
    {"query": {"beta": "true"}},
    {"sample": 1},
    {"headers": {"anthropic-beta": "a"}},
    {"headers": {"anthropic-version": "2023-06-01"}},
    {"headers": {"x-gateway-model": "other"}},
]


def test_what_is_around_the_body_counts() -> None:
    """Provider, address, query, sample and the headers that change an answer: each gives a key of its own."""
    found = {request_key(BODY), *(request_key(BODY, **around) for around in AROUND)}
    assert len(found) == 1 + len(AROUND)


def test_headers_that_say_who_asks_do_not_count() -> None:
    """Keys, cookies, traces and the transport's own; nor does the order of betas, or the case of a name."""
    asks = {
        "Authorization": "Bearer s",
        "x-api-key": "k",
        "X-Stainless-Retry-Count": "1",
        "Content-Type": "a",
        "x": None,
    }
    assert request_key(BODY, headers=asks) == request_key(BODY)
    assert keys.telling_headers({"Anthropic-Beta": "b, a,b"}) == {"anthropic-beta": "a,b"}
    assert request_key(BODY, base_url="https://api.anthropic.com/") == request_key(BODY)


def test_the_key_is_the_same_in_another_process_and_will_be_tomorrow() -> None:
    """It depends on nothing but its arguments. A change here makes every cache in the world start anew: see VERSION."""
    assert request_key(BODY) == "bb93668884a0b88d2b5f1df57769f22b67d4b682"
    code = f"from llmnb.keys import request_key; print(request_key({BODY!r}))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == request_key(BODY)


def test_keys_load_nothing_heavy() -> None:
    """Neither the SDK nor anything else is needed for one."""
    code = "import sys, llmnb.keys; print([m for m in ('anthropic', 'diskcache', 'pydantic') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


class _Sent(Exception):  # noqa: N818
    pass


def sent(**arguments: Any) -> Any:
    """The body that the SDK makes of these arguments of `messages.create`, as middleware sees it."""
    seen: list[Any] = []

    def look(request: Any, call_next: Any) -> Any:
        seen.append(request.json)
        raise _Sent

    with anthropic.Anthropic(api_key="k", middleware=[look]) as client, pytest.raises(_Sent):
        client.messages.create(**{"model": "m", "max_tokens": 1, **arguments})
    return seen[0]


def test_generators_and_extra_body_give_the_key_of_what_is_sent(tmp_path: Path) -> None:
    """What is lazy was read by then, and what came by the side door is in the body."""
    message = {"role": "user", "content": "x"}
    plain = request_key(sent(messages=[message], stop_sequences=["a"]))
    assert request_key(sent(messages=(item for item in [message]), stop_sequences=iter(["a"]))) == plain
    assert request_key(sent(messages=[message], stop_sequences=["a"], stream=True)) == plain
    hot = request_key(sent(messages=[message], stop_sequences=["a"], extra_body={"temperature": 1.0}))
    assert hot != plain
    assert hot == request_key({**sent(messages=[message], stop_sequences=["a"]), "temperature": 1.0})


def test_files_are_in_the_key_by_what_is_in_them(tmp_path: Path) -> None:
    """The same picture from another place is the same question; another picture is another."""
    red, copied, blue = (tmp_path / name for name in ("a.gif", "b.gif", "c.gif"))
    red.write_bytes(b"GIF89a" + b"\1" * 20)
    copied.write_bytes(red.read_bytes())
    blue.write_bytes(b"GIF89a" + b"\2" * 20)

    def key(path: Path) -> str:
        return request_key({"messages": [{"role": "user", "content": content_of([path, "What is this?"])}]})

    assert key(red) == key(copied) != key(blue)


def test_what_json_cannot_hold_is_refused() -> None:
    """The caller then asks without the cache."""
    with pytest.raises(TypeError):
        request_key({"messages": [object()]})
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="Circular"):
        request_key({"messages": loop})
    assert request_key({"messages": ["\ud800"]}) != request_key({"messages": ["\ud801"]})
