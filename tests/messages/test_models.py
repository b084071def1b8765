"""What is known of models by their generation."""

from __future__ import annotations

import pytest
from anthropic._constants import MODEL_NONSTREAMING_TOKENS
from anthropic.types import ModelParam

from llmnb.errors import UnknownModel
from llmnb.messages import models
from llmnb.simulator.catalog import MODELS


@pytest.mark.parametrize("model", [model for model in MODELS if model.max_tokens], ids=lambda model: model.id)
def test_agrees_with_the_simulator(model: object) -> None:
    """Sampling, prefill and thinking facts agree with the simulator, which was written from the API's guide apart."""
    facts = models.facts(model.id)  # type: ignore[attr-defined]
    assert facts.takes_sampling == model.takes_sampling  # type: ignore[attr-defined]
    assert facts.takes_prefill == model.takes_prefill  # type: ignore[attr-defined]
    assert facts.takes_thinking_budget == ("enabled" in model.thinking_types)  # type: ignore[attr-defined]
    assert facts.takes_adaptive_thinking == ("adaptive" in model.thinking_types)  # type: ignore[attr-defined]
    assert facts.cache_minimum_tokens == model.cache_minimum_tokens  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "limit"),
    [
        ("claude-sonnet-5-5", 128_000),
        ("claude-opus-4-8", 128_000),
        ("claude-sonnet-4-6", 128_000),
        ("claude-haiku-4-5-20251001", 64_000),
        ("claude-opus-4-5", 64_000),
        ("claude-opus-4-1-20250805", 32_000),
        ("claude-opus-4-20250514", 32_000),
        ("claude-sonnet-4-20250514", 64_000),
        ("claude-3-7-sonnet-20250219", 64_000),
        ("claude-3-5-haiku-latest", 8_192),
        ("claude-3-opus-20240229", 4_096),
        ("claude-9-nova", 128_000),
        ("gpt-oss-120b", None),
    ],
)
def test_output_limits(name: str, limit: int | None) -> None:
    """The documented output limit is found by generation, and not guessed for names that say nothing."""
    assert models.facts(name).max_output_tokens == limit


@pytest.mark.parametrize(
    ("name", "minimum"),
    [
        ("claude-haiku-5-5", 512),
        ("claude-sonnet-5", 1_024),
        ("us.anthropic.claude-opus-4-7-v1:0", 2_048),
        ("claude-opus-4-1-20250805", 1_024),
        ("claude-mythos-preview", 2_048),
        ("claude-mythos-5", 512),
        ("claude-3-7-sonnet-20250219", 1_024),
        ("claude-3-5-haiku-latest", 2_048),
        ("claude-haiku-4-5", 4_096),
        ("claude-9-nova", 512),
        ("claude-5-nova", 4_096),
        ("gpt-oss-120b", 4_096),
    ],
)
def test_cache_minimums(name: str, minimum: int) -> None:
    """The documented minimum of the prompt cache; the highest there is for names that say nothing."""
    assert models.facts(name).cache_minimum_tokens == minimum


@pytest.mark.parametrize(
    "name",
    [
        "us.anthropic.claude-opus-4-6-v1:0",
        "claude-opus-4-6@20260205",
        "anthropic/claude-opus-4.6",
        "claude-opus-4-6-20260205",
        "global.anthropic.claude-opus-4-6-20260205-v1:0",
    ],
)
def test_reads_every_providers_spelling(name: str) -> None:
    """One model is recognised in the spellings of Bedrock, Vertex, OpenRouter and with a date."""
    facts = models.facts(name)
    assert (facts.family, facts.version) == ("opus", (4, 6))


def test_unknown_models_get_safe_defaults() -> None:
    """A name that says nothing is refused nothing, and asks for the moderate default of tokens."""
    facts = models.facts("my-own-finetune")
    assert facts.default_max_tokens == 8_192
    assert facts.takes_sampling
    assert facts.takes_prefill
    assert facts.thinking_can_be_off


def test_default_max_tokens_is_the_smaller_of_limit_and_8192() -> None:
    """An old model's own limit wins over the default."""
    assert models.facts("claude-3-opus-20240229").default_max_tokens == 4_096
    assert models.facts("claude-sonnet-5-5").default_max_tokens == 8_192


@pytest.mark.parametrize(
    ("name", "can"),
    [
        ("claude-opus-5-5", False),
        ("claude-sonnet-5-5", False),
        ("claude-fable-5", False),
        ("claude-mythos-5-2", False),
        ("claude-mythos-preview", False),
        ("claude-haiku-5-5", True),
        ("claude-opus-5", True),
        ("claude-opus-4-6", True),
    ],
)
def test_where_thinking_can_be_off(name: str, can: bool) -> None:
    """Thinking cannot be switched off on the families whose documentation says so."""
    assert models.facts(name).thinking_can_be_off is can


def test_nonstreaming_limit_is_the_sdks_own() -> None:
    """Our limit is exactly where the SDK begins to refuse, and the SDK's lower ones are honoured."""
    import anthropic

    limit = models.nonstreaming_limit("claude-sonnet-5-5")
    with anthropic.Anthropic(api_key="k") as client:
        client._calculate_nonstreaming_timeout(limit, None)
        with pytest.raises(ValueError, match="Streaming is required"):
            client._calculate_nonstreaming_timeout(limit + 1, None)
    name, lower = next(iter(MODEL_NONSTREAMING_TOKENS.items()))
    assert models.nonstreaming_limit(name) == lower


def test_known_names_come_from_the_sdk() -> None:
    """The names offered as a hint are those of the installed SDK."""
    assert "claude-sonnet-5-5" in models.known_names()
    assert "claude-sonnet-5-5" in str(ModelParam)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("claude-sonet-5-5", "claude-sonnet-5-5"),
        ("sonnet-5.5", "claude-sonnet-5-5"),
        ("Claude Opus 5.5", "claude-opus-5-5"),
    ],
)
def test_nearest(typed: str, meant: str) -> None:
    """A misspelled or abbreviated name finds the model that was meant."""
    assert models.nearest(typed)[0] == meant


def test_no_hint_for_a_known_name() -> None:
    """Who is refused a model that exists is not told it does not."""
    assert models.hint("claude-opus-5-5") is None
    assert "claude-opus-5-5" in (models.hint("claude-opuss-5-5") or "")


@pytest.mark.parametrize("name", ["", "   ", "claude sonnet"])
def test_impossible_names(name: str) -> None:
    """A name no model can have is refused at once."""
    with pytest.raises(UnknownModel):
        models.check_name(name)


def test_a_model_that_is_no_text() -> None:
    """Anything but a string is a type error, with an example."""
    with pytest.raises(TypeError, match="claude-"):
        models.check_name(5)
