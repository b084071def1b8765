"""tiktoken's vocabulary: used where it is on disk, downloaded only when asked for, and never waited for."""

from __future__ import annotations

import hashlib
import socket
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import tiktoken.load
from tiktoken_ext import openai_public

from llmnb.errors import LlmnbError
from llmnb.tokens import count_text, offline_counter, vocabulary
from llmnb.tokens.vocabulary import CL100K_BASE, Vocabulary

MODEL = "claude-sonnet-4-5"
MERGES = [b"he", b"ll", b"hell", b"hello"]
FILE = b"".join(
    b64encode(token) + f" {rank}\n".encode() for rank, token in enumerate([*map(bytes, zip(range(256))), *MERGES])
)


class Server(HTTPServer):
    """Serves the vocabulary, and counts how often."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.status, self.requests = FILE, 200, 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        self.send_response(self.server.status)
        self.send_header("content-length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    """A place to download from."""
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def tiny(server: Server) -> Vocabulary:
    """A small vocabulary at the server."""
    return replace(
        CL100K_BASE,
        url=f"http://127.0.0.1:{server.server_port}/tiny.tiktoken",
        sha256=hashlib.sha256(FILE).hexdigest(),
    )


@pytest.fixture(autouse=True)
def nothing_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """tiktoken's cache is an empty folder, and nothing is in memory."""
    cache = tmp_path / "tiktoken"
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(cache))
    monkeypatch.delenv("DATA_GYM_CACHE_DIR", raising=False)
    vocabulary.forget()
    yield cache
    vocabulary.forget()


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a connection fails the test."""

    def refused(*_: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


def test_it_is_the_one_tiktoken_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """Address, checksum and pattern are those of the installed tiktoken."""
    asked: list[object] = []
    monkeypatch.setattr(
        openai_public, "load_tiktoken_bpe", lambda url, expected_hash: asked.extend((url, expected_hash))
    )
    theirs = openai_public.cl100k_base()
    assert [*asked, theirs["pat_str"]] == [CL100K_BASE.url, CL100K_BASE.sha256, CL100K_BASE.pattern]


@pytest.mark.usefixtures("no_network")
def test_without_a_vocabulary_nothing_is_downloaded() -> None:
    """Counting goes on by characters, at once and offline."""
    counter, name = offline_counter(MODEL)
    assert name == "characters"
    assert counter.text("hello").tokens > 0
    assert count_text("hello", MODEL) > 0


def test_fetch_keeps_it_and_counting_uses_it(tiny: Vocabulary, server: Server, llmnb_home: Path) -> None:
    """It is kept in llmnb's folder, and downloaded once only unless asked for again."""
    path = vocabulary.fetch(tiny)
    assert path.parent == llmnb_home / "vocabulary"
    assert vocabulary.fetch(tiny) == path
    assert server.requests == 1
    count = vocabulary.load(tiny)
    assert count is not None
    assert count("hello hello") == 3  # hello, the space, hello
    vocabulary.fetch(tiny, again=True)
    assert server.requests == 2


@pytest.mark.usefixtures("no_network")
def test_one_that_tiktoken_downloaded_is_used(nothing_on_disk: Path) -> None:
    """The file that tiktoken itself keeps is found under tiktoken's own name."""
    theirs = Vocabulary("tiny", "https://example.org/tiny", hashlib.sha256(FILE).hexdigest(), CL100K_BASE.pattern)
    nothing_on_disk.mkdir()
    vocabulary.path_in(nothing_on_disk, theirs).write_bytes(FILE)
    assert tiktoken.load.read_file_cached(theirs.url, theirs.sha256) == FILE  # without a download
    count = vocabulary.load(theirs)
    assert count is not None
    assert count("hello") == 1
    assert vocabulary.loaded(theirs) is count


def test_a_damaged_one_is_none(tiny: Vocabulary, server: Server) -> None:
    """Bytes that are not the vocabulary are not used, and fetch replaces them."""
    path = vocabulary.fetch(tiny)
    path.write_bytes(FILE[:1000])
    assert vocabulary.load(tiny) is None
    assert vocabulary.fetch(tiny).read_bytes() == FILE
    assert server.requests == 2
    assert vocabulary.load(tiny) is not None


def test_something_else_than_the_vocabulary_is_not_kept(tiny: Vocabulary, server: Server, llmnb_home: Path) -> None:
    """A proxy's login page is no vocabulary."""
    server.body = b"<html>Please log in</html>"
    with pytest.raises(LlmnbError, match=r"not cl100k_base.*nothing was kept"):
        vocabulary.fetch(tiny)
    assert not list(llmnb_home.rglob("*.part"))
    assert vocabulary.on_disk(tiny) is None


def test_a_download_that_fails_says_what_to_do(tiny: Vocabulary, server: Server) -> None:
    """An error of the server, and no server at all."""
    server.status = 503
    with pytest.raises(LlmnbError, match=r"503.*estimated by their characters"):
        vocabulary.fetch(tiny)
    with pytest.raises(LlmnbError, match=r"cannot be fetched.*check the network"):
        vocabulary.fetch(replace(tiny, url="http://127.0.0.1:9/none"))


def test_a_folder_that_cannot_be_written(tiny: Vocabulary, llmnb_home: Path) -> None:
    """The error names the path."""
    llmnb_home.mkdir()
    (llmnb_home / "vocabulary").write_text("in the way")
    with pytest.raises(LlmnbError, match="cannot be written to"):
        vocabulary.fetch(tiny)


def test_an_empty_cache_folder_means_none(monkeypatch: pytest.MonkeyPatch, llmnb_home: Path) -> None:
    """TIKTOKEN_CACHE_DIR= switches tiktoken's cache off; only llmnb's folder is looked into."""
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "")
    assert vocabulary.folders() == [llmnb_home / "vocabulary"]


def test_long_texts_without_a_space_are_counted_in_pieces(tiny: Vocabulary) -> None:
    """A run that would take tiktoken minutes is cut."""
    vocabulary.fetch(tiny)
    count = vocabulary.load(tiny)
    assert count is not None
    with suppress(MemoryError):
        assert count("hello" * 60_000) == pytest.approx(60_000, rel=0.01)
