"""Which questions have another answer on another day, because the server looks at the world for it."""

from __future__ import annotations

from typing import Any, cast

HARMLESS_TOOLS = ("advisor_", "bash_", "browser_", "computer_", "memory_", "text_editor_", "tool_search_")
"""Beginnings of tool types that read nothing of the world by themselves: most of them are run by the caller. Any other
type may be run by the server (web search, code execution, …), and gives another answer on another day."""


def depends_on_the_world(body: dict[str, Any]) -> bool:
    """Whether tools that the server runs may answer differently on another day, or a container holds a state."""
    if body.get("container") or body.get("mcp_servers"):
        return True
    tools = body.get("tools")
    if not isinstance(tools, list):
        return False
    kinds = [cast("dict[str, Any]", tool).get("type") for tool in cast("list[Any]", tools) if isinstance(tool, dict)]
    return any(kind not in (None, "custom") and not str(kind).startswith(HARMLESS_TOOLS) for kind in kinds)
