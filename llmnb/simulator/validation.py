"""What the API refuses about a request, before anything is computed for it.

Messages follow the API's own wording as far as it is known from recordings and the SDK's documentation; a client should
tell errors apart by type, as with the real API.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from llmnb.simulator.api_error import invalid, not_found
from llmnb.simulator.catalog import BY_NAME, Model
from llmnb.simulator.json_value import Json, as_list, as_object, as_objects, as_text
from llmnb.simulator.message_rules import check_breakpoints, check_messages

FIELDS = frozenset(
    [
        "cache_control",
        "container",
        "diagnostics",
        "inference_geo",
        "max_tokens",
        "messages",
        "metadata",
        "model",
        "output_config",
        "service_tier",
        "speed",
        "stop_sequences",
        "stream",
        "system",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
        "top_p",
    ]
)
BETA_FIELDS = FIELDS | frozenset(
    [
        "betas",
        "billing_policy",
        "compaction",
        "context_management",
        "fallback_credit_token",
        "fallbacks",
        "mcp_servers",
        "output_format",
        "thread",
        "user_profile_id",
    ]
)
SAMPLING = ("temperature", "top_p", "top_k")
CHOICES = ("auto", "any", "tool", "none")
MIN_THINKING_TOKENS = 1024
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,128}")


def validate(body: Json, *, beta: bool = False) -> Model:
    """The model that a Messages request is for; ApiError when the API would not take the request."""
    model = find_model(body)
    for name in body:
        if name not in (BETA_FIELDS if beta else FIELDS):
            raise invalid(f"{name}: Extra inputs are not permitted")
    for check in _CHECKS:
        check(body, model)
    return model


def validate_count(body: Json) -> Model:
    """The model of a count_tokens request, which needs no max_tokens."""
    model = find_model(body)
    for check in (check_messages, _check_tools, _check_thinking_type):
        check(body, model)
    check_breakpoints(body)
    return model


def find_model(body: Json) -> Model:
    """The catalogue's entry for the request's model."""
    name = body.get("model")
    if name is None:
        raise invalid("model: Field required")
    if not isinstance(name, str):
        raise invalid("model: Input should be a valid string")
    if not name:
        raise invalid("model: String should have at least 1 character")
    model = BY_NAME.get(name)
    if model is None:
        raise not_found(f"model: {name}")
    return model


def _check_max_tokens(body: Json, model: Model) -> None:
    if "max_tokens" not in body:
        raise invalid("max_tokens: Field required")
    limit = body["max_tokens"]
    if not isinstance(limit, int) or isinstance(limit, bool):
        raise invalid("max_tokens: Input should be a valid integer")
    if limit < 0:
        raise invalid("max_tokens: Input should be greater than or equal to 0")
    if limit > model.max_tokens:
        raise invalid(
            f"max_tokens: {limit} > {model.max_tokens}, which is the maximum allowed number of output tokens "
            f"for {model.id}"
        )


def _check_prewarming(body: Json, model: Model) -> None:
    """What asks for output cannot go with max_tokens=0, which gives none."""
    del model
    if body["max_tokens"] != 0:
        return
    asked = {
        "stream": body.get("stream") is True,
        "thinking.type: enabled": as_object(body.get("thinking")).get("type") == "enabled",
        "output_config.format": as_object(body.get("output_config")).get("format") is not None,
        "tool_choice": as_object(body.get("tool_choice")).get("type") in ("tool", "any"),
    }
    for name, is_asked in asked.items():
        if is_asked:
            raise invalid(f"max_tokens: 0 cannot be combined with {name}, which requires output")


def _check_sampling(body: Json, model: Model) -> None:
    given = [name for name in SAMPLING if body.get(name) is not None]
    if not given:
        return
    if not model.takes_sampling:
        raise invalid(f"`{given[0]}` is deprecated for this model.")
    temperature = body.get("temperature")
    if isinstance(temperature, (int, float)) and not 0 <= temperature <= 1:
        raise invalid("temperature: range: 0..1")
    if {"temperature", "top_p"} <= set(given) and model.generation >= (4, 5):
        raise invalid("`temperature` and `top_p` cannot both be specified for this model. Please use only one.")


def _check_thinking_type(body: Json, model: Model) -> None:
    thinking = body.get("thinking")
    if thinking is None:
        return
    kind = as_object(thinking).get("type")
    if kind not in ("enabled", "adaptive", "disabled", "between_tools"):
        raise invalid(
            "thinking: Input tag found using 'type' does not match any of the expected tags: "
            "'adaptive', 'between_tools', 'disabled', 'enabled'"
        )
    if kind not in model.thinking_types:
        hint = ' Use "thinking.type.adaptive" and "output_config.effort" to control thinking behavior.'
        if kind == "disabled":
            hint = " Thinking cannot be turned off on this model; leave `thinking` out."
        raise invalid(
            f'"thinking.type.{kind}" is not supported for this model.{hint if model.generation > (4, 5) else ""}'
        )


def _check_thinking(body: Json, model: Model) -> None:
    _check_thinking_type(body, model)
    thinking = as_object(body.get("thinking"))
    if thinking.get("type") != "enabled":
        return
    budget = thinking.get("budget_tokens")
    if not isinstance(budget, int):
        raise invalid("thinking.enabled.budget_tokens: Field required")
    if budget < MIN_THINKING_TOKENS:
        raise invalid(f"thinking.enabled.budget_tokens: Input should be greater than or equal to {MIN_THINKING_TOKENS}")
    if budget >= body["max_tokens"]:
        raise invalid("`max_tokens` must be greater than `thinking.budget_tokens`.")
    if as_object(body.get("tool_choice")).get("type") in ("any", "tool"):
        raise invalid("Thinking may not be enabled when tool_choice forces tool use.")
    if body.get("temperature") not in (None, 1):
        raise invalid("`temperature` may only be set to 1 when thinking is enabled.")


def _check_output_config(body: Json, model: Model) -> None:
    config = as_object(body.get("output_config"))
    effort = config.get("effort")
    if effort is not None and not model.efforts:
        raise invalid("This model does not support the effort parameter.")
    if effort is not None and effort not in model.efforts:
        levels = ", ".join(sorted(model.efforts))
        raise invalid(f"This model does not support effort level '{effort}'. Supported levels: {levels}.")
    output_format = config.get("format")
    if output_format is None:
        return
    if as_object(output_format).get("type") != "json_schema":
        raise invalid("output_config.format.type: Input should be 'json_schema'")
    if not isinstance(as_object(output_format).get("schema"), dict):
        raise invalid("output_config.format.schema: Field required")
    check_strict(as_object(as_object(output_format).get("schema")), "output_config.format.schema")


def check_strict(schema: Json, where: str) -> None:
    """Structured outputs want closed objects: `additionalProperties: false` on each."""
    if schema.get("type") == "object" and schema.get("additionalProperties") is not False:
        raise invalid(f"{where}: For 'object' type, 'additionalProperties' must be explicitly set to false")
    for key in ("properties", "$defs", "definitions"):
        for name, part in as_object(schema.get(key)).items():
            check_strict(as_object(part), f"{where}.{key}.{name}")
    if isinstance(schema.get("items"), dict):
        check_strict(as_object(schema["items"]), f"{where}.items")
    for key in ("anyOf", "allOf", "oneOf"):
        for part in as_objects(schema.get(key)):
            check_strict(part, f"{where}.{key}")


def _check_tools(body: Json, model: Model) -> None:
    del model
    tools = body.get("tools")
    if tools is not None and not isinstance(tools, list):
        raise invalid("tools: Input should be a valid list")
    names: list[str] = []
    for at, tool in enumerate(as_objects(tools)):
        if tool.get("type") in (None, "custom"):
            _check_custom_tool(at, tool)
        names.append(as_text(tool.get("name")))
    if len(set(names)) < len(names):
        raise invalid("tools: Tool names must be unique.")
    _check_tool_choice(body, names)


def _check_custom_tool(at: int, tool: Json) -> None:
    name, schema = tool.get("name"), tool.get("input_schema")
    if not isinstance(name, str):
        raise invalid(f"tools.{at}.custom.name: Field required")
    if not _TOOL_NAME.fullmatch(name):
        raise invalid(f"tools.{at}.custom.name: String should match pattern '^[a-zA-Z0-9_-]{{1,128}}$'")
    if not isinstance(schema, dict):
        raise invalid(f"tools.{at}.custom.input_schema: Field required")
    if as_object(schema).get("type") != "object":
        raise invalid(f"tools.{at}.custom.input_schema.type: Input should be 'object'")
    if tool.get("strict"):
        check_strict(as_object(schema), f"tools.{at}.custom.input_schema")


def _check_tool_choice(body: Json, names: list[str]) -> None:
    choice = body.get("tool_choice")
    if choice is None:
        return
    kind = as_object(choice).get("type")
    if kind not in CHOICES:
        raise invalid(
            "tool_choice: Input tag found using 'type' does not match any of the expected tags: "
            "'auto', 'any', 'tool', 'none'"
        )
    if not names:
        raise invalid("tool_choice: tool_choice may only be specified while providing tools")
    wanted = as_object(choice).get("name")
    if kind == "tool" and wanted not in names:
        raise invalid(f"tool_choice: Tool '{wanted}' not found in provided tools")


def _check_stop_sequences(body: Json, model: Model) -> None:
    del model
    for at, sequence in enumerate(as_list(body.get("stop_sequences"))):
        if not isinstance(sequence, str):
            raise invalid(f"stop_sequences.{at}: Input should be a valid string")
        if not sequence.strip():
            raise invalid("stop_sequences: each stop sequence must contain non-whitespace")


def _check_system(body: Json, model: Model) -> None:
    del model
    system = body.get("system")
    if system is not None and not isinstance(system, (str, list)):
        raise invalid("system: Input should be a valid string or list of text blocks")
    for at, part in enumerate(as_objects(system)):
        if part.get("type") != "text":
            raise invalid(f"system.{at}.type: Input should be 'text'")
        if not as_text(part.get("text")):
            raise invalid("system: text content blocks must be non-empty")


def _check_speed(body: Json, model: Model) -> None:
    if body.get("speed") == "fast" and not model.fast:
        raise invalid(f"speed: 'fast' is not supported for {model.id}.")


def _check_breakpoints(body: Json, model: Model) -> None:
    del model
    check_breakpoints(body)


_CHECKS: tuple[Callable[[Json, Model], None], ...] = (
    _check_max_tokens,
    _check_prewarming,
    check_messages,
    _check_system,
    _check_sampling,
    _check_thinking,
    _check_output_config,
    _check_tools,
    _check_stop_sequences,
    _check_speed,
    _check_breakpoints,
)
