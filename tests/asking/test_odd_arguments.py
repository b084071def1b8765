"""What may be handed over by mistake: refused before anything is sent, with what to do instead; or simply taken."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import llmnb
from llmnb.errors import InvalidRequest
from llmnb.simulator import Simulator


@pytest.mark.parametrize(
    ("prompt", "options", "said"),
    [
        (pd.DataFrame({"a": ["x"]}), {}, r"cannot hold a DataFrame: llm\.map\(rows, template\) asks of each row"),
        (pd.Series(["x"]), {}, r"list\(series\) makes one prompt of all"),
        ({"x"}, {}, "cannot hold a set"),
        (["fine", None], {}, "cannot hold None:"),
        (5, {}, "cannot hold an int:"),
        ("half \ud83d", {}, "'\\\\ud83d', at position 5, which cannot be sent: text.encode"),
        ("x", {"system": "half \ud83d"}, "the system prompt holds half a character"),
        ({"type": "text", "text": "half \ud83d"}, {}, "a content block holds half a character"),
        ("x", {"system": [{"type": "text", "text": "half \ud83d"}]}, "the system prompt holds half a character"),
        ("x", {"model": "claude-sonnet-4-6", "temperature": "hot"}, "temperature must be a number, not 'hot'"),
        ("x", {"fresh": "no"}, "fresh must be True or False, not 'no'"),
        ("x", {"max_tokens": 10.5}, "whole number from 1, not 10.5"),
        ("x", {"max_tokens": True}, "whole number from 1, not True"),
        ("x", {"sample": np.float64(1.0)}, "from 0"),
    ],
    ids=[
        "frame",
        "series",
        "set",
        "None",
        "number",
        "surrogate",
        "system",
        "block",
        "systems",
        "hot",
        "fresh",
        "fraction",
        "bool",
        "float",
    ],
)
def test_refused(sim: Simulator, prompt: Any, options: dict[str, Any], said: str) -> None:
    """A frame would be asked as its column names, and be paid for."""
    with pytest.raises(InvalidRequest, match=said):
        llmnb.LLM()(prompt, **options)
    assert sim.requests == []


def test_texts_that_end_an_answer(sim: Simulator) -> None:
    """A text, or texts in whatever holds them, such as an array, which has no truth value; nothing else."""
    llm, sent = llmnb.LLM(cache=False), list[Any]()
    given: list[Any] = [np.array(["a", "b"]), ("a", "b"), pd.Series(["a"]), "a", np.array([], dtype=str), [], "", None]
    for stops in given:
        llm("Hi", stop_sequences=stops)
        sent.append(sim.requests[-1].body.get("stop_sequences"))
    assert sent == [["a", "b"], ["a", "b"], ["a"], ["a"], None, None, None, None]
    odd: list[Any] = [5, [1], np.array([1.5]), b"a"]
    for wrong in odd:
        with pytest.raises(InvalidRequest, match="a text or a list of texts"):
            llm("Hi", stop_sequences=wrong)


def test_numpys_whole_numbers_are_numbers(sim: Simulator) -> None:
    """As they come of a loop over an array."""
    llm = llmnb.LLM(max_tokens=np.int64(50))  # pyright: ignore[reportArgumentType]
    assert llm("Hi", sample=np.int32(1)).source == "live"  # pyright: ignore[reportArgumentType]
    assert sim.requests[0].body["max_tokens"] == 50
    assert llm("Hi", sample=1).source == "cache"
    sampling: Any = {"temperature": np.float32(0.5), "top_k": np.int64(5)}
    assert llm("Hi", model="claude-sonnet-4-6", **sampling).text
    assert (sim.requests[1].body["temperature"], sim.requests[1].body["top_k"]) == (0.5, 5)
    seconds: Any = np.int64(3)
    assert type(llmnb.Router(["a", "b"], first_token_s=seconds).first_token_s) is int
    turns: Any = np.int64(1)
    chat = llm.chat()
    chat("Hi")
    with pytest.raises(InvalidRequest, match="nothing to undo"):
        chat.undo(True)
    assert chat.undo(turns).messages == []


def test_what_only_looks_like_a_table(sim: Simulator) -> None:
    """Parts of a prompt of the user's own type are asked, whatever else it has."""

    class Report(list[str]):
        columns = 2
        to_dict = None

    llmnb.LLM()(Report(["a", "b"]))
    assert [block["text"] for block in sim.requests[0].body["messages"][0]["content"]] == ["a", "b"]


class Styled(llmnb.LLM):
    """One with something of its own."""

    def __init__(self, style: list[str], **options: Any) -> None:
        super().__init__("claude-haiku-5-5", **options)
        self.style = style


def test_a_pickled_llm_stays_what_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """The model that a setting named where it was made, and the class of the user's with what that added."""
    monkeypatch.setenv("LLMNB_MODEL", "claude-haiku-5-5")
    told = pickle.dumps(llmnb.LLM())
    monkeypatch.setenv("LLMNB_MODEL", "claude-opus-5-5")
    assert pickle.loads(told).model == "claude-haiku-5-5"
    styled = Styled(["short"], tag="t")
    for again in (pickle.loads(pickle.dumps(styled)), copy.deepcopy(styled)):
        assert (type(again), again.style, repr(again)) == (Styled, ["short"], repr(styled))
        assert again.style is not styled.style
    copied = copy.copy(styled)
    copied.style = ["long"]
    assert styled.style == ["short"]


@pytest.mark.parametrize("models", [[1, 2], [None]], ids=["numbers", "None"])
def test_a_router_of_no_names(models: Any) -> None:
    """It would fail at the first question only."""
    with pytest.raises(InvalidRequest, match="names of models"):
        llmnb.Router(models)
    with pytest.raises(InvalidRequest, match="number of seconds"):
        llmnb.Router(["a"], first_token_s="5")  # pyright: ignore[reportArgumentType]
    with pytest.raises(InvalidRequest, match="number of seconds"):
        llmnb.Router(["a"], first_token_s=True)


def test_an_llm_is_pickled_by_what_it_was_made_of(sim: Simulator) -> None:
    """For processes of a pool, which have the key in their environment; a copy is the same one, as nothing changes."""
    llm = llmnb.LLM(["claude-sonnet-5-5", "claude-haiku-5-5"], system="Be brief.", prompt_cache=None, tag="t")
    llm("Hi")
    again = pickle.loads(pickle.dumps(llm))
    assert repr(again) == repr(llm)
    assert again("Hi").source == "cache"
    assert copy.copy(llm) is copy.deepcopy({"llm": llm})["llm"] is llm
    with sim.client() as client:
        own = llmnb.LLM(client=client)
        assert copy.deepcopy(own) is own
        with pytest.raises(TypeError, match="Make the LLM where it is used"):
            pickle.dumps(own)


def test_a_copy_of_a_chat_is_a_fork(sim: Simulator) -> None:
    """It goes on by itself, and each counts what it cost itself; to another process a chat goes as a file."""
    chat = llmnb.LLM().chat()
    chat("Hi")
    for other in (copy.copy(chat), copy.deepcopy(chat)):
        other("And?")
        assert (len(other.messages), len(chat.messages)) == (4, 2)
        assert other.cost_usd != chat.cost_usd
    with pytest.raises(TypeError, match=r"Chat\.load"):
        pickle.dumps(chat)
    with pytest.raises(InvalidRequest, match="nothing to undo"):
        chat.undo("1")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("model", ["claude-sonnet-5-5", "openai:gpt-4o"])
def test_another_store_in_the_same_kernel(
    sim: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, model: str
) -> None:
    """Rows go to the store that is set when the LLM is made, also where nothing else has changed since the last one."""
    for name in ("one", "two"):
        monkeypatch.setenv("LLMNB_STORE_URL", f"sqlite:///{tmp_path}/{name}.db")
        llmnb.LLM(model)(name)
        assert len(llmnb.calls()) == 1


COUNTS: dict[str, Callable[[llmnb.LLM, Any], object]] = {
    "max_tokens": lambda llm, n: llm("Hi", max_tokens=n),
    "max_turns": lambda llm, n: llm("Hi", tools=[str.upper], max_turns=n),
    "concurrency": lambda llm, n: llm.map(["a"], "{{ value }}", concurrency=n),
    "retries of map": lambda llm, n: llm.map(["a"], "{{ value }}", retries=n),
    "retries of extract": lambda llm, n: llm.extract("7", int, retries=n),
    "retries of compare": lambda llm, n: llmnb.compare(["a", "b"], [llm], concurrency=n, retries=n, progress=False),
    "window_tokens": lambda llm, n: llm.chat(window_tokens=n),
    "tokens": lambda _, n: llmnb.set_budget(tokens=n, per="day"),
    "limit": lambda _, n: llmnb.calls(limit=n),
}


@pytest.mark.parametrize("what", COUNTS)
def test_every_count_takes_numpys_numbers_and_no_others(sim: Simulator, what: str) -> None:
    """Those of an array or a frame; a fraction, a truth value or a text is refused before anything is sent."""
    llm = llmnb.LLM()
    for wrong in (1.5, 2.0, np.float64(2.0), True, np.True_, "3", -1):
        with pytest.raises(InvalidRequest, match=f"{what.split()[0]}|concurrency"):
            COUNTS[what](llm, wrong)
    assert sim.requests == []
    COUNTS[what](llm, np.int64(20))


@pytest.mark.parametrize("where", ["project", "tag"])
def test_what_a_row_cannot_hold_is_refused_before_money_is_spent(sim: Simulator, where: str) -> None:
    """A list as project or tag: the call was paid for, and its row could not be written; numbers are text there."""
    wrong: Any = {where: ["a"]}
    with pytest.raises(InvalidRequest, match=rf"{where} must be a text, not \['a'\]"):
        llmnb.LLM()("Hi", **wrong)
    with pytest.raises(InvalidRequest, match=rf"{where} must be a text"):
        llmnb.wrap(sim.client(), **wrong)
    assert sim.requests == []
    year: Any = {where: np.int64(2026)}
    list(llmnb.LLM().stream("Hi", **year))
    llmnb.LLM()("Hello", **year)
    assert llmnb.calls(where=year)[where].tolist() == ["2026", "2026"]


def test_the_name_of_a_chat_is_a_text(sim: Simulator) -> None:
    """Also where it came as a number."""
    names: list[Any] = [7, ["a"]]
    assert llmnb.LLM().chat(name=names[0]).name == "7"
    with pytest.raises(InvalidRequest, match="the name of a chat must be a text"):
        llmnb.LLM().chat(name=names[1])


def test_a_client_is_wrapped_with_a_cache_that_there_is(sim: Simulator) -> None:
    """What is not understood is no yes."""
    wrong: Any = "yes"
    with pytest.raises(InvalidRequest, match="cache must be True, False or 'all'"):
        llmnb.wrap(sim.client(), cache=wrong)
