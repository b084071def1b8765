"""Tools of an MCP server through the SDK's helpers, with a real server in this process."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import pytest

import llmnb
from llmnb.errors import InvalidRequest
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer

mcp = pytest.importorskip("mcp", reason="mcp is not installed: pip install 'llmnb[mcp]'")


def server() -> Any:
    """A server with one tool."""
    made = importlib.import_module("mcp.server").MCPServer("demo", log_level="CRITICAL")

    @made.tool()
    def look(city: str) -> str:
        """Looks out of the window."""
        if city == "Nowhere":
            raise ValueError("no window there")
        return f"rain in {city}"

    return made


@pytest.mark.parametrize("helper", ["async_mcp_tool", "mcp_tool"])
async def test_tools_of_a_server(helper: str, sim: Simulator) -> None:
    """The SDK's async and sync helper alike: results and failures come back, and a call that blocks is refused."""
    from anthropic.lib.tools import mcp as helpers

    calls = [("look", {"city": city}) for city in ("Oslo", "Nowhere")]
    sim.script(Answer(tool_calls=calls), "It rains.")
    async with mcp.Client(server()) as client:
        listed = (await client.list_tools()).tools
        tools = [getattr(helpers, helper)(tool, client.session) for tool in listed]
        with pytest.raises(InvalidRequest, match="use await"):
            llmnb.LLM(tools=tools).ask("Umbrella?")
        reply = await llmnb.LLM(tools=tools).aask("Umbrella?")
    assert reply.text == "It rains."
    results = [(result.content, result.is_error) for _, result in reply.tool_results if result is not None]
    assert results[0] == ("rain in Oslo", False)
    assert results[1][1]
    assert len(sim.requests) == 2


SERVER = """
from mcp.server import MCPServer

made = MCPServer("demo", log_level="CRITICAL")

@made.tool()
def process() -> int:
    "Its number."
    import os
    return os.getpid()

made.run("stdio")
"""


async def test_tools_of_a_process(sim: Simulator) -> None:
    """A server that is a process of its own, as most are: started, asked over its pipes, and ended with the block."""
    from anthropic.lib.tools.mcp import async_mcp_tool

    sim.script(Answer(tool_calls=[("process", {})]), "Done.")
    started = mcp.StdioServerParameters(command=sys.executable, args=["-c", SERVER])
    async with mcp.stdio_client(started) as (read, write), mcp.ClientSession(read, write) as session:
        await session.initialize()
        tools = [async_mcp_tool(tool, session) for tool in (await session.list_tools()).tools]
        reply = await llmnb.LLM(tools=tools).aask("Who are you?")
    (_, result), *_ = reply.tool_results
    assert result is not None
    assert int(result.content) != os.getpid()
