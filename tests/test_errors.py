"""The tree of errors: what may be caught as what, what each carries, and that each says what to do next."""

from __future__ import annotations

import inspect
import pickle
from decimal import Decimal

import pytest

from llmnb import errors
from llmnb.records import Usage

SAMPLES: list[tuple[errors.LlmnbError, type[Exception], str]] = [
    (errors.UnknownPrice("my-model", "anthropic"), LookupError, "llmnb prices --reprice"),
    (errors.UnknownModel("claude-sonet", ("claude-sonnet-5-5",)), LookupError, "claude-sonnet-5-5"),
    (errors.IncompleteReply("the stream ended early", partial="Hel"), errors.LlmnbError, "ended early"),
    (errors.BudgetExceeded("$0.01 is left", left=Decimal("0.01"), partial="Hel"), errors.LlmnbError, "left"),
    (errors.StoreBusy("locked", path="/x"), errors.StoreError, "locked"),
    (errors.StoreError("cannot write /x", path="/x"), errors.LlmnbError, "/x"),
    (errors.StoreReadOnly("newer", path="/x"), errors.StoreError, "newer"),
    (errors.CassetteError("there is no cassette /x: record one", path="/x", line=1), errors.LlmnbError, "record one"),
    (errors.ReplayMiss("no answer to this request", path="/x", differences=("a",)), LookupError, "no answer"),
    (errors.SettingsError("unknown", name="LLMNB_MODLE"), ValueError, "unknown"),
    (
        errors.ExtractionFailed("no Person: age", text="{}", errors=("age: missing",), attempts=1),
        errors.LlmnbError,
        "age",
    ),
    (
        errors.ToolLoopLimit("10 turns were not enough: raise max_turns", limit="max_turns", messages=[]),
        errors.LlmnbError,
        "raise max_turns",
    ),
    (errors.MissingKey(), errors.LlmnbError, "ANTHROPIC_API_KEY"),
    (errors.MissingExtra("llmnb demo", "all"), ImportError, "pip install 'llmnb[all]'"),
    (errors.InvalidRequest("max_tokens must be positive"), ValueError, "max_tokens"),
    (errors.ContextFull("undo() some turns", tokens=9, window_tokens=5), errors.InvalidRequest, "undo()"),
]


@pytest.mark.parametrize(("error", "base", "says"), SAMPLES, ids=lambda value: type(value).__name__)
def test_each_error_is_caught_as_what_it_is(error: errors.LlmnbError, base: type[Exception], says: str) -> None:
    """Every error is an LlmnbError and its natural built-in, and its message holds the way out."""
    assert isinstance(error, errors.LlmnbError)
    assert isinstance(error, base)
    assert says in str(error)


def test_samples_cover_every_error() -> None:
    """An error class that is added must be added to the samples above."""
    defined = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert defined == {type(error).__name__ for error, _, _ in SAMPLES} | {"LlmnbError"}


def test_the_docstring_draws_exactly_the_classes_there_are() -> None:
    """The tree at the top of the module names each class, and none that does not exist."""
    drawn = {line.split("── ")[1].split()[0] for line in (errors.__doc__ or "").splitlines() if "── " in line}
    assert drawn == {type(error).__name__ for error, _, _ in SAMPLES}


def test_errors_carry_their_facts() -> None:
    """A program reads attributes, not messages."""
    usage = Usage(input_tokens=3)
    incomplete = errors.IncompleteReply("cut", partial="Hel", usage=usage)
    assert (incomplete.partial, incomplete.usage) == ("Hel", usage)
    failed = errors.ExtractionFailed("no Person", text="{}", errors=("age: missing",), attempts=3)
    assert (failed.text, failed.errors, failed.attempts) == ("{}", ("age: missing",), 3)
    assert errors.UnknownModel("a", ("b",)).nearest == ("b",)
    assert errors.UnknownPrice("m", "p").provider == "p"
    assert errors.MissingExtra("x", "dashboard").extra == "dashboard"


def test_unknown_model_without_a_near_name_asks_no_question() -> None:
    """Where nothing is near the message does not pretend."""
    assert "Did you mean" not in str(errors.UnknownModel("zzz"))


def test_missing_key_says_that_the_demo_needs_none() -> None:
    """The newcomer without a key is shown the way to go on."""
    assert "llmnb demo" in str(errors.MissingKey())


@pytest.mark.parametrize("error", [sample[0] for sample in SAMPLES], ids=lambda value: type(value).__name__)
def test_errors_survive_pickling(error: errors.LlmnbError) -> None:
    """An error raised in a worker process arrives as it was, with its facts."""
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
