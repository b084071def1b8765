"""Redis as the place of the cache: the contract against a real server, and what it says without one."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

import llmnb
from llmnb.cache.backends import Item
from llmnb.cache.redis import RedisBackend
from llmnb.errors import MissingExtra
from llmnb.testing import serve_simulator

from ..redis_server import RedisServer
from .backend_contract import BackendContract, Make


class TestRedis(BackendContract):
    """A server keeps the contract."""

    freed_within_s = 5.0

    @pytest.fixture
    def make(self, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Make:
        monkeypatch.setattr("llmnb.cache.redis._CLAIM_MS", 500)
        return lambda: RedisBackend(redis_server.url)


def test_other_keys_of_the_server_are_left_alone(redis_server: RedisServer) -> None:
    """A server may hold other things, too."""
    import redis

    with redis.Redis.from_url(redis_server.url) as client:
        client.set("theirs", "x")
        client.set("llmnb:9:a", "another version's")
        backend = RedisBackend(redis_server.url)
        backend.put([Item("a", b"x")])
        assert backend.claim("a")
        assert list(backend.names()) == ["a"]
        backend.delete(list(backend.names()))
        assert sorted(client.keys()) == [b"llmnb:1::asking:a", b"llmnb:9:a", b"theirs"]
        backend.release(["a"])
        assert sorted(client.keys()) == [b"llmnb:9:a", b"theirs"]


def test_a_claim_can_only_be_released_by_its_holder(redis_server: RedisServer) -> None:
    """One whose time ran out, and that somebody else has by now, stays theirs."""
    one, other = RedisBackend(redis_server.url), RedisBackend(redis_server.url)
    assert one.claim("a")
    assert not other.claim("a")
    other.release(["a"])
    other.renew(["a"])
    assert not other.claim("a")
    one.release(["a"])
    assert other.claim("a")


def test_the_password_is_never_shown() -> None:
    """In no message."""
    assert RedisBackend("redis://me:secret@cache.example:6379/2").where == "redis://cache.example:6379/2"


def test_a_server_that_is_gone_is_an_error_at_once() -> None:
    """The cache then goes on without it."""
    with pytest.raises(Exception, match="refused"):
        RedisBackend("redis://127.0.0.1:1/0").get("a")


def test_without_its_client_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra has a name."""
    real = builtins.__import__

    def refuse(name: str, *args: Any, **named: Any) -> Any:
        if name == "redis":
            raise ImportError(name)
        return real(name, *args, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    monkeypatch.setitem(__import__("sys").modules, "redis", None)
    with pytest.raises(MissingExtra, match=r"pip install 'llmnb\[redis\]'"):
        RedisBackend("redis://x")


def test_what_is_looked_at_and_taken_along_is_the_same_in_a_server(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """`llmnb.cache` on Redis: entries, show, export, clear by model and all, import; asked again it costs nothing."""
    monkeypatch.setenv("LLMNB_CACHE_URL", redis_server.url)
    with serve_simulator(environ=True) as simulator:
        for model in ("claude-sonnet-5-5", "claude-haiku-5-5"):
            llmnb.LLM(model, display="none")("Hi")
            llmnb.LLM(model, display="none")("Long " * 3_000)
        assert (
            llmnb.cache.stats().answers == len(llmnb.cache.entries()) == llmnb.cache.export(tmp_path / "a.jsonl") == 4
        )
        assert llmnb.cache.clear(model="claude-haiku-5-5") == 2
        key = llmnb.cache.entries().key[0]
        assert llmnb.cache.show(key[:10]).message["model"] == "claude-sonnet-5-5"
        assert (llmnb.cache.clear(key), llmnb.cache.clear()) == (1, 1)
        assert list(RedisBackend(redis_server.url).names()) == []
        assert llmnb.cache.import_(tmp_path / "a.jsonl").added == 4
        assert llmnb.LLM("claude-haiku-5-5", display="none")("Long " * 3_000).source == "cache"
        assert len(simulator.requests) == 4
