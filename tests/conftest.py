"""Every test has an llmnb home of its own, and no setting or key of the person who runs it."""

from __future__ import annotations

import ast
import gc
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import httpcore2
import hypothesis
import pytest

from llmnb import forks
from llmnb.places import PostgresPlace
from llmnb.simulator import Simulator
from llmnb.testing import serve_simulator

from .postgres_server import PostgresServer, binaries
from .redis_server import RedisServer

# the first example pays for the imports of what it tests, which on a cold disk takes longer than the 200 ms allowed
hypothesis.settings.register_profile("llmnb", deadline=None)
hypothesis.settings.load_profile("llmnb")

# certificates are read once, not for each of some thousand clients, none of which speaks TLS: 22 ms of CPU
httpcore2.default_ssl_context = cache(httpcore2.default_ssl_context)

if sys.version_info < (3, 11, 8):  # a finalizer that parses while Python makes a tree breaks that one: gh-106905
    _parse = ast.parse

    def _parsed(*arguments: Any, **options: Any) -> ast.AST:
        with suppress(SystemError):
            return _parse(*arguments, **options)
        return _parse(*arguments, **options)

    ast.parse = _parsed  # pytest does for every failure, and took its worker along, with all that it knew of them

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell: tests that press Ctrl-C hung
    signal.signal(signal.SIGINT, signal.default_int_handler)

ABSENT = str(Path(__file__).parent / "absent")
if ABSENT not in sys.path:  # here and in all processes that tests start
    sys.path.insert(0, ABSENT)
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (ABSENT, os.environ.get("PYTHONPATH"))))

MEMORY = Path("/dev/shm")
ROOM = 4 << 30
ENVIRONMENT = ("LLMNB_", "ANTHROPIC_", "OPENAI_", "GEMINI_", "GOOGLE_", "OLLAMA_")


def pytest_configure(config: pytest.Config) -> None:
    """Temporary files lie in memory where there is room: a new ledger waits 50 ms for a disk, and 6 ms there."""
    if not hasattr(config, "workerinput") and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
        folder = tempfile.mkdtemp(prefix="llmnb-", dir=MEMORY)
        os.chmod(folder, 0o711)  # PostgreSQL's user has a folder of its own in it
        os.environ["TMPDIR"] = tempfile.tempdir = folder  # and so it is in every process that tests start
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests that share something dear run in one process."""
    if config.option.dist == "loadgroup":
        from .order import Order

        return Order(config, log)
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """In every process alike."""
    elsewhere = [item.nodeid for item in items if item.get_closest_marker("browser") and "browser/" not in item.nodeid]
    assert not elsewhere, "`make test` looks for tests that drive a browser in tests/browser only"
    if len(items) > 1_000:
        from .order import sort

        sort(items)


def pytest_collection_finish() -> None:
    """What is there before the first test stays: to look through all of it took each `gc.collect()` half a second."""
    gc.collect()
    gc.freeze()


_numbers = count()


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the test's own. pytest's looks through those of all tests before for a number: 1.3 ms of CPU."""
    name = re.sub(r"\W", "_", request.node.name)[:30]
    folder = tmp_path_factory.getbasetemp() / f"{name}-{next(_numbers)}"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture(autouse=True)
def llmnb_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A fresh LLMNB_HOME for one test."""
    for name in list(os.environ):
        if name.startswith(ENVIRONMENT) and not name.startswith("LLMNB_TEST_"):
            monkeypatch.delenv(name)
    home = tmp_path / "llmnb-home"
    monkeypatch.setenv("LLMNB_HOME", str(home))
    yield home
    _close_files()


def _close_files() -> None:
    """Closes what the test left open; whoever uses it again opens it. Many systems allow a process 1,024 files."""
    if ledgers := sys.modules.get("llmnb.ledger.writer"):
        for ledger in forks.all_of(ledgers._ledgers):
            ledger.close()
    if caches := sys.modules.get("llmnb.cache.disk"):
        for cache in forks.all_of(caches._all):
            cache.close()


@pytest.fixture(scope="session")
def _postgres_of_the_run() -> Iterator[PostgresServer]:
    if binaries() is None:
        said = "postgres is not installed: apt-get install postgresql"
        pytest.fail(said) if os.environ.get("CI") == "true" else pytest.skip(said)
    pytest.importorskip("psycopg", reason="psycopg is not installed: pip install 'llmnb[postgres]'")
    server = PostgresServer()
    yield server
    server.remove()


@pytest.fixture
def postgres_server(_postgres_of_the_run: PostgresServer) -> PostgresServer:
    """A running PostgreSQL server; a test may stop it."""
    if not _postgres_of_the_run.is_up:
        _postgres_of_the_run.start()
    return _postgres_of_the_run


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Iterator[PostgresPlace]:
    """A database with nothing in it."""
    from llmnb.ledger.postgres.readers import close_idle

    url = postgres_server.new_database()
    yield PostgresPlace(url)
    close_idle()
    if postgres_server.is_up:
        postgres_server.drop(url)


@pytest.fixture(scope="session")
def _redis_of_the_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("redis-server is not installed: apt-get install redis-server")
        pytest.skip("redis-server is not installed: apt-get install redis-server")
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.kill()


@pytest.fixture
def redis_server(_redis_of_the_run: RedisServer) -> RedisServer:
    """A running, empty Redis server; a test may kill it."""
    if _redis_of_the_run._process is None:
        _redis_of_the_run.start()
    _redis_of_the_run.flush()
    return _redis_of_the_run


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """A simulated API in the environment."""
    with serve_simulator(environ=True) as simulator:
        yield simulator
        assert simulator.crashes == []
