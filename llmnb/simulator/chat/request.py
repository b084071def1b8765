"""A chat completion request: what is refused about it, and what it asks in the words of the simulator's own head."""

from __future__ import annotations

import json
from typing import Any

from llmnb.simulator.api_error import ApiError
from llmnb.simulator.chat.models import BY_ID, ChatModel
from llmnb.simulator.json_value import Json, as_count, as_list, as_object, as_objects, as_text, text_of

ROLES = ("system", "developer", "user", "assistant", "tool")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
MAX_STOPS = 4
DEFAULT_MAX_TOKENS = 4_096


def refused(message: str, param: str | None = None, code: str | None = None) -> ApiError:
    """400, in OpenAI's words."""
    return ApiError("invalid_request_error", message, details={"param": param, "code": code})


def model_of(body: Json) -> ChatModel:
    """The model that is asked."""
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise refused("you must provide a model parameter")
    model = BY_ID.get(name)
    if model is None:
        message = f"The model `{name}` does not exist or you do not have access to it."
        raise ApiError("invalid_request_error", message, status=404, details={"param": None, "code": "model_not_found"})
    return model


def read_request(body: Json, model: ChatModel) -> Json:
    """The request as the simulator's own head takes one; ApiError when the endpoint would not take it."""
    _check_parameters(body, model)
    messages = as_list(body.get("messages"))
    if not messages:
        raise refused("Invalid 'messages': empty array. Expected an array with minimum length 1.", "messages")
    system, turns = _conversation(as_objects(messages))
    asked: Json = {"model": model.id, "messages": turns, "max_tokens": _max_tokens(body, model)}
    if system:
        asked["system"] = "\n\n".join(system)
    stop = body.get("stop")
    if stop:
        asked["stop_sequences"] = [stop] if isinstance(stop, str) else as_list(stop)
    if body.get("tools"):
        asked["tools"] = [_tool(at, tool) for at, tool in enumerate(as_objects(body["tools"]))]
        asked["tool_choice"] = _tool_choice(body.get("tool_choice"))
    if body.get("reasoning_effort") == "none":
        asked["thinking"] = {"type": "disabled"}
    schema = _schema(body, model)
    if schema is not None:
        asked["output_config"] = {"format": {"type": "json_schema", "schema": schema}}
    return asked


def _check_parameters(body: Json, model: ChatModel) -> None:
    if model.is_reasoning and body.get("max_tokens") is not None:
        raise refused(
            "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' "
            "instead.",
            "max_tokens",
            "unsupported_parameter",
        )
    if model.is_reasoning and body.get("temperature") not in (None, 1):
        raise refused(
            f"Unsupported value: 'temperature' does not support {body['temperature']} with this model. Only the "
            "default (1) value is supported.",
            "temperature",
            "unsupported_value",
        )
    if body.get("stream_options") is not None and not body.get("stream"):
        raise refused("The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options")
    effort = body.get("reasoning_effort")
    if effort is not None and effort not in EFFORTS:
        raise refused(f"Invalid value: '{effort}'. Supported values are: {', '.join(EFFORTS)}.", "reasoning_effort")
    if isinstance(body.get("stop"), list) and len(body["stop"]) > MAX_STOPS:
        raise refused("Invalid 'stop': array too long. Expected an array with maximum length 4.", "stop")


def _max_tokens(body: Json, model: ChatModel) -> int:
    limit = body.get("max_completion_tokens")
    limit = body.get("max_tokens") if limit is None else limit
    if limit is None:
        return min(DEFAULT_MAX_TOKENS, model.max_tokens)
    if not as_count(limit):
        raise refused(f"Invalid 'max_completion_tokens': {limit}. Expected a value >= 1.", "max_completion_tokens")
    if limit > model.max_tokens:
        raise refused(
            f"max_tokens is too large: {limit}. This model supports at most {model.max_tokens} completion tokens.",
            "max_tokens",
        )
    return int(limit)


# Messages -------------------------------------------------------------------------------------------------------------


def _conversation(messages: list[Json]) -> tuple[list[str], list[Json]]:
    """The system prompts, and the turns: tool messages that follow each other are one turn of the user's."""
    system: list[str] = []
    turns: list[Json] = []
    open_calls: set[str] = set()
    for at, message in enumerate(messages):
        role = message.get("role")
        if role not in ROLES:
            raise refused(f"Invalid value: '{role}'. Supported values are: {', '.join(ROLES)}.", f"messages[{at}].role")
        if role == "tool":
            uid = as_text(message.get("tool_call_id"))
            if uid not in open_calls:
                raise refused(
                    "Invalid parameter: messages with role 'tool' must be a response to a preceeding message with "
                    "'tool_calls'.",
                    f"messages[{at}].role",
                )
            open_calls.discard(uid)
            _add(turns, "user", [{"type": "tool_result", "tool_use_id": uid, "content": text_of(message["content"])}])
            continue
        if open_calls:
            raise refused(
                "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
                f"'tool_call_id'. The following tool_call_ids did not have response messages: {sorted(open_calls)}",
                f"messages[{at}].role",
            )
        if role in ("system", "developer"):
            system.append(text_of(message.get("content")))
        elif role == "user":
            _add(turns, "user", _user_blocks(at, message.get("content")))
        else:
            open_calls = {as_text(call.get("id")) for call in as_objects(message.get("tool_calls"))}
            _add(turns, "assistant", _assistant_blocks(message))
    return system, turns


def _add(turns: list[Json], role: str, blocks: list[Json]) -> None:
    if turns and turns[-1]["role"] == role:
        turns[-1]["content"] += blocks
    else:
        turns.append({"role": role, "content": blocks})


def _user_blocks(at: int, content: Any) -> list[Json]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    return [_part(f"messages[{at}].content[{place}]", part) for place, part in enumerate(as_objects(content))]


def _part(where: str, part: Json) -> Json:
    match part.get("type"):
        case "text":
            return {"type": "text", "text": as_text(part.get("text"))}
        case "image_url":
            return {"type": "image", "source": _source(as_text(as_object(part.get("image_url")).get("url")))}
        case "file":
            return {"type": "document", "source": _source(as_text(as_object(part.get("file")).get("file_data")))}
        case kind:
            raise refused(f"Invalid value: '{kind}'. Supported values are: 'text', 'image_url', 'file'.", where)


def _source(url: str) -> Json:
    if not url.startswith("data:"):
        return {"type": "url", "url": url}
    head, _, data = url.removeprefix("data:").partition(",")
    return {"type": "base64", "media_type": head.partition(";")[0], "data": data}


def _assistant_blocks(message: Json) -> list[Json]:
    text = text_of(message.get("content"))
    blocks: list[Json] = [{"type": "text", "text": text}] if text else []
    for call in as_objects(message.get("tool_calls")):
        function = as_object(call.get("function"))
        try:
            given: Any = json.loads(as_text(function.get("arguments")) or "{}")
        except ValueError:
            raise refused("Invalid 'tool_calls': arguments are not valid JSON.", "messages") from None
        blocks.append({"type": "tool_use", "id": call.get("id"), "name": function.get("name"), "input": given})
    return blocks


# Tools and schemas ----------------------------------------------------------------------------------------------------


def _tool(at: int, tool: Json) -> Json:
    function = as_object(tool.get("function"))
    if tool.get("type") != "function" or not function.get("name"):
        raise refused(f"Missing required parameter: 'tools[{at}].function.name'.", f"tools[{at}].function.name")
    schema = as_object(function.get("parameters")) or {"type": "object", "properties": dict[str, object]()}
    return {"name": function["name"], "description": as_text(function.get("description")), "input_schema": schema}


def _tool_choice(choice: Any) -> Json:
    if isinstance(choice, dict):
        return {"type": "tool", "name": as_object(as_object(choice).get("function")).get("name")}
    return {"type": {"required": "any", "none": "none"}.get(as_text(choice), "auto")}


def _schema(body: Json, model: ChatModel) -> Json | None:
    wanted = as_object(body.get("response_format"))
    if wanted.get("type") != "json_schema":
        return None
    if not model.takes_schema:
        raise refused(
            "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model.",
            "response_format",
        )
    described = as_object(wanted.get("json_schema"))
    if not described.get("name"):
        raise refused("Missing required parameter: 'response_format.json_schema.name'.", "response_format")
    schema = as_object(described.get("schema"))
    if described.get("strict"):
        _check_strict(schema, ())
    return schema


def _check_strict(schema: Json, where: tuple[str, ...]) -> None:
    """Strict schemas want closed objects with every property required, types everywhere, and nothing beside a $ref."""
    beside = sorted(set(schema) - {"$ref"}) if "$ref" in schema else [name for name in ("default",) if name in schema]
    wrong = None
    if "$ref" in schema and beside:
        wrong = f"$ref cannot have keywords {set(beside)}."
    elif beside:
        wrong = f"'{beside[0]}' is not permitted."
    elif not {"type", "anyOf", "$ref", "enum", "const"} & set(schema) or ("enum" in schema and "type" not in schema):
        wrong = "schema must have a 'type' key."
    if wrong:
        raise refused(f"Invalid schema for response_format: In context={where}, {wrong}", "response_format")
    if schema.get("type") == "object":
        if schema.get("additionalProperties") is not False:
            wrong = "'additionalProperties' is required to be supplied and to be false."
        elif set(as_list(schema.get("required"))) != set(as_object(schema.get("properties"))):
            wrong = "'required' is required to be supplied and to be an array including every key in properties."
        if wrong:
            raise refused(f"Invalid schema for response_format: In context={where}, {wrong}", "response_format")
    for key in ("properties", "$defs"):
        for name, part in as_object(schema.get(key)).items():
            _check_strict(as_object(part), (*where, key, name))
    if isinstance(schema.get("items"), dict):
        _check_strict(as_object(schema["items"]), (*where, "items"))
    for part in as_objects(schema.get("anyOf")):
        _check_strict(part, (*where, "anyOf"))
