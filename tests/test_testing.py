"""llmnb.testing and the pytest fixture, as users have them."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import anthropic
import pytest

from llmnb.simulator import Clock
from llmnb.testing import serve_simulator

from . import processes

ASK = {"model": "claude-sonnet-5-5", "max_tokens": 100, "messages": [{"role": "user", "content": "Say hi"}]}


def test_serve_simulator_serves_and_stops() -> None:
    """A simulator in a block: real clients talk to it, options and clock go through."""
    with serve_simulator(3, Clock.frozen(5.0), tokens_per_second=None, first_token_s=0.0) as sim:
        with sim.client() as client:
            assert client.messages.create(**ASK).stop_reason == "end_turn"
        assert (sim.seed, sim.clock.now()) == (3, 5.0)
    with pytest.raises(TypeError, match="tokens_per_minute"), serve_simulator(tokens_per_minute=1):
        pass


async def test_the_async_client() -> None:
    """The async client points there too."""
    with serve_simulator() as sim:
        async with sim.async_client() as client:
            assert (await client.messages.create(**ASK)).content


def test_environ_points_any_client_at_it_and_puts_back_what_was_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """With environ=True a client made without arguments finds the simulator; afterwards nothing is left."""
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://before.example")
    with serve_simulator(environ=True) as sim:
        assert sim.environ() == {name: os.environ[name] for name in sim.environ()}
        assert {"ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_KEY"} <= sim.environ().keys()
        with anthropic.Anthropic() as client:
            client.messages.create(**ASK)
        assert len(sim.requests) == 1
    assert os.environ["ANTHROPIC_BASE_URL"] == "http://before.example"
    assert "ANTHROPIC_API_KEY" not in os.environ


def test_the_fixture_in_a_users_test_run(tmp_path: Path) -> None:
    """The plugin gives `llmnb_simulator`, with the environment set for the test."""
    test = """
        import anthropic

        def test_it(llmnb_simulator):
            llmnb_simulator.script("scripted")
            with anthropic.Anthropic() as client:
                message = client.messages.create(
                    model="claude-sonnet-5-5", max_tokens=9, messages=[{"role": "user", "content": "x"}]
                )
            assert message.content[0].text == "scripted"
    """
    (tmp_path / "test_users.py").write_text(textwrap.dedent(test))
    command = ["-m", "pytest", "-q", "-p", "llmnb.simulator.pytest_plugin", "-p", "no:cacheprovider"]
    environment = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = processes.run([*command, str(tmp_path)], env=environment, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_plugin_and_simulator_import_nothing_heavy() -> None:
    """The plugin loads no asyncio and no SDK; the simulator itself never loads the SDK."""
    probe = """
        import sys, pytest
        before = set(sys.modules)
        import llmnb.simulator.pytest_plugin, llmnb.testing
        new = {name.partition(".")[0] for name in set(sys.modules) - before}
        assert new <= {"llmnb"} | set(sys.stdlib_module_names), new
        assert "llmnb.simulator.server" not in sys.modules
        from llmnb.testing import serve_simulator
        with serve_simulator():
            pass
        for name in ("anthropic", "httpx2", "pydantic", "pandas", "genai_prices"):
            assert name not in sys.modules, name
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(probe)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
