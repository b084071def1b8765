"""What is asked, from Messages into chat completions; what cannot be said there is refused before it is sent.

What does nothing there is left out (`cache_control`: those providers cache by themselves), and so is thinking of
earlier turns, which they do not take back. What they would answer differently without a word is refused.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any, cast

from llmnb.errors import InvalidRequest
from llmnb.providers import signatures
from llmnb.providers.known import Endpoint
from llmnb.providers.strict_schema import all_required, is_strict

Json = dict[str, Any]

_NOT_THERE = (
    "container", "context_management", "diagnostics", "fallbacks", "inference_geo", "mcp_servers", "speed", "thread",
    "user_profile_id", "workspace_id",
)  # fmt: skip
_LEFT_OUT = ("cache_control",)
_TRANSLATED = (
    "max_tokens", "messages", "metadata", "output_config", "service_tier", "stop_sequences", "stream", "system",
    "thinking", "tool_choice", "tools", "top_k",
)  # fmt: skip
_MOST_STOPS = 4
_STAND_IN = {"google": {"thought_signature": "skip_thought_signature_validator"}}
"""Stands for the signature of a call whose own is lost (Google's guide "Thought signatures")."""

MARK = "_llmnb"
"""Under this name a translated body says what only the transport reads: it is never sent."""


def chat_request(body: Mapping[str, Any], endpoint: Endpoint) -> Json:
    """The body of a chat completion that asks what this Messages body asks.

    Raises:
        InvalidRequest: this provider cannot be asked for it.
    """
    return _Translation(body, endpoint).request()


class _Translation:
    def __init__(self, body: Mapping[str, Any], endpoint: Endpoint) -> None:
        self._body = body
        self._endpoint = endpoint
        self._abilities = endpoint.abilities

    def request(self) -> Json:
        body = self._body
        for name in _NOT_THERE:
            if body.get(name) is not None:
                raise self._refusal(f"{name}= is the Messages API's own")
        if not body.get("max_tokens"):
            raise self._refusal("it has no prewarming (max_tokens=0); its prompt cache works by itself")
        # extra_body may hold whatever the server takes besides
        known = {*_TRANSLATED, *_LEFT_OUT, *_NOT_THERE}
        asked: Json = {name: value for name, value in body.items() if name not in known}
        asked["messages"] = [*self._system(), *self._messages()]
        asked[self._abilities.max_tokens] = body["max_tokens"]
        if body.get("stream"):
            asked["stream"] = True
            if self._abilities.asks_for_usage:
                asked["stream_options"] = {"include_usage": True}
        self._add_tools(asked)
        self._add_settings(asked)
        self._add_output(asked)
        return asked

    def _refusal(self, why: str) -> InvalidRequest:
        return InvalidRequest(f"{self._endpoint.name} cannot be asked so: {why}. Nothing was sent.")

    # Settings ---------------------------------------------------------------------------------------------------------

    def _add_settings(self, asked: Json) -> None:
        body = self._body
        stops = body.get("stop_sequences")
        if stops:
            if len(stops) > _MOST_STOPS and self._abilities.max_tokens == "max_completion_tokens":
                raise self._refusal(f"it takes at most {_MOST_STOPS} stop_sequences, not {len(stops)}")
            asked["stop"] = list(stops)
        if body.get("top_k") is not None:
            if not self._abilities.top_k:
                raise self._refusal("it takes no top_k")
            asked["top_k"] = body["top_k"]
        if body.get("service_tier") is not None:
            asked["service_tier"] = {"standard_only": "default"}.get(body["service_tier"], body["service_tier"])
        if user := _dict(body.get("metadata")).get("user_id"):
            asked["safety_identifier" if self._endpoint.name == "openai" else "user"] = user
        self._add_effort(asked)

    def _add_effort(self, asked: Json) -> None:
        thinking = _dict(self._body.get("thinking"))
        effort = _dict(self._body.get("output_config")).get("effort")
        if thinking.get("budget_tokens") is not None:
            raise self._refusal("it takes no thinking budget: use effort=")
        if thinking.get("type") == "disabled":
            effort = "none"
        if effort is not None:
            asked.setdefault("reasoning_effort", effort)

    def _add_output(self, asked: Json) -> None:
        wanted = _dict(_dict(self._body.get("output_config")).get("format"))
        if not wanted:
            return
        if wanted.get("type") != "json_schema":
            raise self._refusal(f"output_config.format {wanted.get('type')!r} is unknown")
        schema = _dict(wanted.get("schema"))
        if self._abilities.all_required:
            schema = all_required(schema)
        described = {"name": "answer", "schema": schema, "strict": is_strict(schema)}
        asked["response_format"] = {"type": "json_schema", "json_schema": described}

    # Tools ------------------------------------------------------------------------------------------------------------

    def _add_tools(self, asked: Json) -> None:
        tools = [self._tool(_dict(tool)) for tool in self._body.get("tools") or ()]
        if not tools:
            return
        asked["tools"] = tools
        choice = _dict(self._body.get("tool_choice"))
        kind = choice.get("type", "auto")
        if kind == "tool":
            asked["tool_choice"] = {"type": "function", "function": {"name": choice.get("name")}}
        elif choice:
            asked["tool_choice"] = {"any": "required"}.get(kind, kind)
        if choice.get("disable_parallel_tool_use"):
            asked["parallel_tool_calls"] = False

    def _tool(self, tool: Json) -> Json:
        kind = tool.get("type")
        if kind not in (None, "custom"):
            raise self._refusal(
                f"the tool {kind!r} runs on Anthropic's side; give a function of your own that does the same"
            )
        function: Json = {"name": tool.get("name"), "parameters": tool.get("input_schema") or {"type": "object"}}
        if tool.get("description"):
            function["description"] = tool["description"]
        if tool.get("strict") and is_strict(_dict(tool.get("input_schema"))):
            function["strict"] = True
        return {"type": "function", "function": function}

    # Messages ---------------------------------------------------------------------------------------------------------

    def _system(self) -> list[Json]:
        system = self._body.get("system")
        text = system if isinstance(system, str) else "\n\n".join(_texts(system or ()))
        return [{"role": "system", "content": text}] if text else []

    def _messages(self) -> Iterable[Json]:
        for message in self._body["messages"]:
            role, content = message["role"], message["content"]
            if role == "assistant":
                yield self._answer(content)
            elif isinstance(content, str):
                yield {"role": role, "content": content}
            elif role == "system":
                yield {"role": role, "content": "\n\n".join(_texts(content))}
            else:
                yield from self._turn([_block(block) for block in content])

    def _turn(self, blocks: list[Json]) -> Iterable[Json]:
        """A turn of the user's: results of tools are messages of their own, and go first."""
        parts: list[Json] = []
        for block in blocks:
            if block.get("type") == "tool_result":
                text, images = self._result(block)
                if block.get("is_error") and not text.startswith("Error"):  # there is no field for it
                    text = f"Error: {text}"
                yield {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": text}
                parts += images
        parts += [self._part(block) for block in blocks if block.get("type") != "tool_result"]
        if parts:
            yield {"role": "user", "content": parts}

    def _result(self, block: Json) -> tuple[str, list[Json]]:
        """What a tool gave back: its text, and the images in it, which a tool's message cannot hold."""
        content = block.get("content") or ""
        if isinstance(content, str):
            return content, []
        parts = [self._part(_block(part)) for part in content]
        texts = [part["text"] for part in parts if part["type"] == "text"]
        others = [part for part in parts if part["type"] != "text"]
        if others:
            texts.append("(What the tool gave back besides text is in the next message.)")
        return "\n".join(texts), others

    def _part(self, block: Json) -> Json:
        kind = block.get("type")
        if kind == "text":
            return {"type": "text", "text": block["text"]}
        if kind == "image":
            return {"type": "image_url", "image_url": {"url": self._url(block, "an image")}}
        if kind == "document":
            return self._document(block)
        if kind == "search_result":
            return {"type": "text", "text": _titled(block.get("title"), "\n".join(_texts(block.get("content") or ())))}
        raise self._refusal(f"it takes no content of the type {kind!r}")

    def _document(self, block: Json) -> Json:
        source, title = _dict(block.get("source")), block.get("title")
        if _dict(block.get("citations")).get("enabled"):
            raise self._refusal("it gives no citations of documents")
        if source.get("type") == "text":
            return {"type": "text", "text": _titled(title, str(source.get("data")))}
        if source.get("type") == "content":
            content = source.get("content") or ""
            text = content if isinstance(content, str) else "\n".join(_texts(content))
            return {"type": "text", "text": _titled(title, text)}
        if source.get("type") != "base64":
            raise self._refusal(f"it takes no document by {source.get('type')}: give the file itself, as a Path")
        if not self._abilities.pdf:
            raise self._refusal("it takes no PDF; give its text, or images of its pages")
        name = str(title or "document.pdf")
        return {"type": "file", "file": {"filename": name, "file_data": self._url(block, "a document")}}

    def _url(self, block: Json, what: str) -> str:
        source = _dict(block.get("source"))
        if source.get("type") == "url":
            return str(source.get("url"))
        if source.get("type") != "base64":
            raise self._refusal(f"it takes no {what.split()[-1]} by {source.get('type')}: give the file itself")
        return f"data:{source.get('media_type')};base64,{source.get('data')}"

    def _answer(self, content: object) -> Json:
        """A turn of the model's."""
        if isinstance(content, str):
            return {"role": "assistant", "content": content}
        texts: list[str] = []
        calls: list[Json] = []
        for block in map(_block, cast("list[object]", content)):
            kind = block.get("type")
            if kind == "text":
                texts.append(str(block["text"]))
            elif kind == "tool_use":
                calls.append(self._call(block))
            elif kind not in ("thinking", "redacted_thinking"):
                raise self._refusal(f"it takes back no {kind!r} of an earlier turn")
        if self._abilities.thought_signatures:
            _sign(calls)
        message: Json = {"role": "assistant", "content": "".join(texts) or (None if calls else "")}
        return message | {"tool_calls": calls} if calls else message

    def _call(self, block: Json) -> Json:
        function = {"name": block.get("name"), "arguments": json.dumps(block.get("input"), ensure_ascii=False)}
        return {"id": block.get("id"), "type": "function", "function": function}


def _sign(calls: list[Json]) -> None:
    """Puts back what calls were signed with. Of calls side by side the first alone is, and has the stand-in."""
    signed = [(call, found) for call in calls if (found := signatures.of(call["id"]))]
    for call, found in signed or [(call, _STAND_IN) for call in calls[:1]]:
        call["extra_content"] = found


def _titled(title: object, text: str) -> str:
    return f'<document title="{title}">\n{text}\n</document>' if title else text


def _texts(blocks: Iterable[object]) -> list[str]:
    return [str(block["text"]) for block in map(_block, blocks) if block.get("type") == "text"]


def _block(block: object) -> Json:
    return {"type": "text", "text": block} if isinstance(block, str) else _dict(block)


def _dict(value: object) -> Json:
    return cast(Json, value) if isinstance(value, dict) else {}
