"""Conversations: what they remember, what a failure leaves, and what comes back from a file."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import gc
import json
import os
import stat
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import anthropic
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

import llmnb
from llmnb.chat import Chat, named
from llmnb.errors import IncompleteReply, InvalidRequest
from llmnb.events import Done, Text, ToolResult
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer
from llmnb.simulator.fault import Fault
from llmnb.testing import serve_simulator
from llmnb.trouble import LlmnbWarning


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """A simulated API in the environment that answers with an echo."""
    with serve_simulator(environ=True) as simulator:
        simulator.rule(lambda request: f"echo {request.prompt}")
        yield simulator
        assert simulator.crashes == []


@pytest.fixture(autouse=True)
def _no_named_chats() -> Iterator[None]:
    """Each test is a kernel of its own."""
    named._named.clear()
    yield
    named._named.clear()


def said(chat: Chat) -> list[str]:
    """The conversation as short texts."""
    return [message["role"][0] + ":" + _text(message["content"]) for message in chat.messages]


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "|".join(block.get("text", block["type"]) for block in content)


def look(city: str) -> str:
    """Looks out of the window."""
    return f"rain in {city}"


OSLO = Answer(text="Let me see.", tool_calls=[("look", {"city": "Oslo"})])


# Remembering ----------------------------------------------------------------------------------------------------------


def test_remembers(sim: Simulator) -> None:
    """Each question is sent with everything said before."""
    chat = llmnb.LLM(system="Be brief.").chat()
    assert chat("Hi").text == "echo Hi"
    chat.ask("And?")
    assert said(chat) == ["u:Hi", "a:echo Hi", "u:And?", "a:echo And?"]
    assert [_text(message["content"]) for message in sim.requests[1].body["messages"]] == ["Hi", "echo Hi", "And?"]
    assert sim.requests[1].body["system"] == "Be brief."


async def test_all_four_ways_remember(sim: Simulator) -> None:
    """ask, aask, stream and astream leave the same conversation behind."""
    chat = llmnb.LLM().chat()
    chat("1")
    await chat.aask("2")
    events = list(chat.stream("3"))
    aevents = [event async for event in chat.astream("4")]
    assert isinstance(events[-1], Done)
    assert isinstance(aevents[-1], Done)
    assert said(chat) == [f"{role}:{echo}{n}" for n in range(1, 5) for role, echo in (("u", ""), ("a", "echo "))]


def test_thinking_is_kept_with_its_signature(sim: Simulator) -> None:
    """Thinking blocks go back to the model that wrote them, exactly as they came."""
    sim.script(Answer(text="Yes.", thinking="Hm."))
    chat = llmnb.LLM(thinking=True).chat()
    reply = chat("Really?")
    chat("Why?")
    sent = sim.requests[1].body["messages"][1]["content"]
    assert sent[0] == {"type": "thinking", "thinking": "Hm.", "signature": reply.message.content[0].signature}  # type: ignore[union-attr]
    assert chat.messages[1]["content"] == sent


def test_another_model_does_not_get_foreign_thinking(sim: Simulator) -> None:
    """A question to another model goes without the first one's thinking, which it could not read; the chat keeps it."""
    sim.script(Answer(text="Yes.", thinking="Hm."))
    chat = llmnb.LLM(thinking=True).chat()
    chat("Really?")
    chat("Why?", model="claude-opus-5-5")
    assert [block["type"] for block in sim.requests[1].body["messages"][1]["content"]] == ["text"]
    assert [block["type"] for block in chat.messages[1]["content"]] == ["thinking", "text"]  # type: ignore[union-attr, index]


def test_messages_are_a_copy(sim: Simulator) -> None:
    """Changing what `messages` gave does not change the chat."""
    chat = llmnb.LLM().chat()
    chat(["Hi"])
    chat.messages[0]["content"][0]["text"] = "changed"  # type: ignore[index]
    chat.messages.clear()
    assert said(chat) == ["u:Hi", "a:echo Hi"]


def test_system_of_the_chat(sim: Simulator) -> None:
    """The chat's system prompt wins over the LLM's, and a call's over both."""
    chat = llmnb.LLM(system="of the llm").chat(system="of the chat")
    chat("1")
    chat("2", system="of the call")
    assert [request.body["system"] for request in sim.requests] == ["of the chat", "of the call"]


def test_rows_carry_the_chat(sim: Simulator) -> None:
    """Ledger rows carry the chat's name; chats without one are told apart, too."""
    llm = llmnb.LLM()
    for chat in (llm.chat(name="review"), llm.chat(), llm.chat()):
        chat("Hi")
    names = list(llmnb.calls()["chat"])
    assert "review" in names
    assert len(set(names)) == 3


# Failing --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["ask", "stream", "aask", "astream"])
@pytest.mark.parametrize("kind", ["status", "truncate", "error_event"])
def test_a_failed_call_leaves_the_chat_as_it_was(sim: Simulator, way: str, kind: str) -> None:
    """Whatever fails, the conversation is what it was, and goes on; what was billed is counted."""
    chat = llmnb.LLM(max_tokens=60_000).chat()
    chat("Hi")
    before, spent = said(chat), chat.usage
    sim.script(Answer(text="one two three four", deltas=4, fault=Fault(kind, status=400)))
    with pytest.raises((anthropic.APIError, IncompleteReply)):
        _ask(chat, way)
    assert said(chat) == before
    assert (chat.usage.output_tokens > spent.output_tokens) is (kind != "status")
    assert chat("Still there?").text == "echo Still there?"


def _ask(chat: Chat, way: str) -> Any:
    async def drain() -> list[Any]:
        return [event async for event in chat.astream("fail")]

    if way == "ask":
        return chat("fail")
    if way == "stream":
        return list(chat.stream("fail"))
    return asyncio.run(chat.aask("fail") if way == "aask" else drain())


def test_refused_before_sending(sim: Simulator) -> None:
    """A prompt or an option that cannot work changes nothing, and is refused before a stream is begun."""
    chat = llmnb.LLM().chat()
    for ask in (chat, chat.stream, chat.astream):
        with pytest.raises(InvalidRequest):
            ask("")
        with pytest.raises(InvalidRequest):
            ask("Hi", temperature=1)
    assert sim.requests == []
    assert said(chat) == []


@pytest.mark.parametrize("way", ["close", "garbage"])
def test_leaving_a_stream_early(sim: Simulator, way: str) -> None:
    """A stream that is left before its end is no turn, and frees the chat."""
    sim.script(Answer(text="word " * 500, deltas=500, delta_delay_s=0.01))
    chat = llmnb.LLM().chat()
    stream = chat.stream("Hi")
    next(stream)
    if way == "close":
        stream.close()
    del stream
    gc.collect()
    assert said(chat) == []
    assert chat.usage.output_tokens > 0
    chat("Again")
    assert said(chat) == ["u:Again", "a:echo Again"]


def test_left_at_done_is_a_turn(sim: Simulator) -> None:
    """Who stops reading at `Done` has the whole answer, so it is remembered."""
    chat = llmnb.LLM().chat()
    for event in chat.stream("Hi"):
        if isinstance(event, Done):
            break
    assert said(chat) == ["u:Hi", "a:echo Hi"]


def test_one_question_at_a_time(sim: Simulator) -> None:
    """While a chat answers it takes no other question and no undo; a fork does."""
    chat = llmnb.LLM().chat()
    chat("Hi")
    stream = chat.stream("Slow")
    next(stream)
    for busy in (lambda: chat("2"), lambda: list(chat.stream("2")), chat.undo, chat.clear):
        with pytest.raises(InvalidRequest, match="still answering"):
            busy()
    assert chat.fork()("Meanwhile").text == "echo Meanwhile"
    stream.close()
    assert chat("2").text == "echo 2"


def test_refusal_is_no_turn(sim: Simulator) -> None:
    """A refused turn is returned and billed, but not remembered: the API would refuse every later one."""
    chat = llmnb.LLM().chat()
    chat("Hi")
    sim.script(Answer(refusal="cyber"))
    reply = chat("Bad thing")
    assert reply.refused
    assert said(chat) == ["u:Hi", "a:echo Hi"]
    assert chat.usage == chat.usage + llmnb.Usage()
    assert chat("Good thing").text == "echo Good thing"


@pytest.mark.parametrize(
    "blocks",
    [[], [{"type": "text", "text": ""}], [{"type": "thinking", "thinking": "Hm", "signature": "s"}]],
    ids=["nothing", "empty-text", "thinking-only"],
)
def test_answers_the_api_would_not_take_back(sim: Simulator, blocks: list[dict[str, Any]]) -> None:
    """An answer without content is no turn; the next question works, and the same one asked afresh."""
    chat = llmnb.LLM().chat()
    sim.script(Answer(blocks=blocks, stop_reason="max_tokens"))
    chat("Hi")
    assert said(chat) == []
    assert chat("Hi", fresh=True).text == "echo Hi"


def test_trailing_thinking_is_cut(sim: Simulator) -> None:
    """An answer cut off while thinking again keeps its text; a message must not end with thinking."""
    chat = llmnb.LLM().chat()
    thinking = {"type": "thinking", "thinking": "Hm", "signature": "s"}
    sim.script(Answer(blocks=[thinking, {"type": "text", "text": "So"}, thinking], stop_reason="max_tokens"))
    chat("Hi")
    assert said(chat) == ["u:Hi", "a:thinking|So"]


# Costs ----------------------------------------------------------------------------------------------------------------


def test_costs_are_those_of_the_ledger(sim: Simulator) -> None:
    """Usage and cost are the sum of the chat's rows, undone turns included; a fork begins at 0."""
    chat = llmnb.LLM().chat(name="sum")
    assert chat.cost_usd == Decimal(0)
    chat("1")
    chat("2")
    chat.undo()
    frame = llmnb.calls(where={"chat": "sum"})
    assert chat.cost_usd == Decimal(int(frame["cost_nanousd"].sum())) / 10**9
    assert chat.usage.output_tokens == int(frame["output_tokens"].sum()) == sim.billed().output_tokens
    fork = chat.fork()
    assert fork.cost_usd == Decimal(0)
    assert said(fork) == said(chat)


def test_retried_calls_count_once(sim: Simulator) -> None:
    """Attempts of one call are one call."""
    sim.fail("overloaded", times=2, retry_after_ms=1)
    chat = llmnb.LLM().chat()
    chat("Hi")
    assert chat.usage.output_tokens == sim.billed().output_tokens
    assert chat.unpriced_calls == 0


def test_unpriced_calls(sim: Simulator) -> None:
    """Calls without a price are missing from the cost, and counted."""
    sim.script(Answer(text="Hi", model="claude-nova-9"))
    chat = llmnb.LLM().chat()
    chat("1")
    assert (chat.cost_usd, chat.unpriced_calls) == (None, 1)
    assert "unpriced" in repr(chat)
    chat("2")
    assert chat.cost_usd is not None
    assert chat.cost_usd > 0
    assert chat.unpriced_calls == 1


# Going back and on ----------------------------------------------------------------------------------------------------


def test_undo(sim: Simulator) -> None:
    """Undo forgets whole turns, several at once, and no more than there are."""
    chat = llmnb.LLM().chat()
    for n in range(4):
        chat(str(n))
    assert said(chat.undo()) == ["u:0", "a:echo 0", "u:1", "a:echo 1", "u:2", "a:echo 2"]
    assert said(chat.undo(2)) == ["u:0", "a:echo 0"]
    for turns in (2, 0, -1):
        with pytest.raises(InvalidRequest, match="nothing to undo"):
            chat.undo(turns)
    with pytest.raises(InvalidRequest, match="from 1 to 1, as this chat has 1 turn, not 2"):
        chat.undo(2)
    assert said(chat.clear()) == []
    with pytest.raises(InvalidRequest, match="no turn yet"):
        chat.undo()


def test_fork(sim: Simulator) -> None:
    """A fork goes its own way from the same beginning."""
    chat = llmnb.LLM().chat(system="s")
    chat("1")
    fork = chat.fork(name="other")
    fork("2")
    chat("3")
    assert said(fork) == ["u:1", "a:echo 1", "u:2", "a:echo 2"]
    assert said(chat) == ["u:1", "a:echo 1", "u:3", "a:echo 3"]
    assert fork.system == "s"
    with pytest.raises(InvalidRequest, match="already"):
        chat.fork(name="other")


def test_named_chats_continue(sim: Simulator) -> None:
    """A name finds the conversation of the same kernel again, also from a new LLM, whose settings it takes."""
    llmnb.LLM().chat(name="review")("1")
    chat = llmnb.LLM("claude-opus-5-5").chat(name="review", system="New.")
    chat("2")
    assert said(chat)[:2] == ["u:1", "a:echo 1"]
    assert (sim.requests[1].body["model"], sim.requests[1].body["system"]) == ("claude-opus-5-5", "New.")
    assert llmnb.LLM().chat() is not llmnb.LLM().chat()


def test_empty_name() -> None:
    """An empty name is refused."""
    with pytest.raises(InvalidRequest, match="name"):
        llmnb.LLM().chat(name=" ")


def test_repr(sim: Simulator) -> None:
    """The repr has name, model, length and cost."""
    chat = llmnb.LLM().chat(name="review")
    chat("Hi")
    assert repr(chat) == f"<Chat 'review' with claude-sonnet-5-5: 1 turn, ${chat.cost_usd:.6f}>"


# On disk --------------------------------------------------------------------------------------------------------------


def test_save_and_load(sim: Simulator, tmp_path: Path) -> None:
    """A loaded chat says, costs and asks the same as the saved one."""
    llm = llmnb.LLM("claude-haiku-5-5", system="Be brief.", max_tokens=77, effort="low", project="p")
    chat = llm.chat(name="review")
    chat(["Hi", {"type": "image", "source": {"type": "url", "url": "https://example.org/æ.png"}}])
    chat("And?")
    path = chat.save(tmp_path / "c.json")
    loaded = Chat.load(path)
    assert loaded.messages == chat.messages
    assert (loaded.name, loaded.usage, loaded.cost_usd) == ("review", chat.usage, chat.cost_usd)
    loaded("More")
    body = sim.requests[-1].body
    assert (body["model"], body["system"], body["max_tokens"]) == ("claude-haiku-5-5", "Be brief.", 77)
    assert body["output_config"] == {"effort": "low"}
    assert len(body["messages"]) == 5
    assert llm.chat(name="review") is loaded
    assert loaded.cost_usd is not None
    assert chat.cost_usd is not None
    assert loaded.cost_usd > chat.cost_usd


def test_models_that_stand_in_for_each_other_are_saved(sim: Simulator, tmp_path: Path) -> None:
    """All of them, and how one is chosen; a file of before has one model."""
    router = llmnb.Router(["claude-opus-5-5", "claude-sonnet-5-5"], policy="cheapest", first_token_s=9, on_refusal=True)
    chat = llmnb.LLM(router).chat()
    chat("Hi")
    loaded = llmnb.Chat.load(chat.save(tmp_path / "chat.json"))
    assert loaded.llm.router is not None
    assert loaded.llm.router.arguments == router.arguments
    assert loaded("And?").route is not None
    saved = json.loads((tmp_path / "chat.json").read_text())
    del saved["router"]
    (tmp_path / "chat.json").write_text(json.dumps(saved))
    before = llmnb.Chat.load(tmp_path / "chat.json")
    assert (before.llm.router, before.llm.model) == (None, "claude-opus-5-5")


def test_load_with_another_llm(sim: Simulator, tmp_path: Path) -> None:
    """An LLM given to load answers from then on."""
    chat = llmnb.LLM().chat(system="s")
    chat("Hi")
    loaded = Chat.load(chat.save(tmp_path / "c.json"), llm=llmnb.LLM("claude-opus-5-5"))
    loaded("More")
    assert (sim.requests[-1].body["model"], sim.requests[-1].body["system"]) == ("claude-opus-5-5", "s")


def test_the_file_holds_no_secret(sim: Simulator, tmp_path: Path) -> None:
    """Keys, headers and extra bodies are not saved, and only the owner can read the file."""
    llm = llmnb.LLM(
        client=sim.client(), extra_headers={"x-key": "sk-hidden-1"}, metadata={"user_id": "hidden-2"}, timeout=9
    )
    chat = llm.chat()
    chat("Hi")
    path = chat.save(tmp_path / "c.json")
    content = path.read_text()
    assert "hidden" not in content
    assert sim.api_key not in content
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_saving_is_all_or_nothing(sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that fails leaves the old file as it was, and no other file."""
    chat = llmnb.LLM().chat()
    chat("Hi")
    path = chat.save(tmp_path / "c.json")
    before = path.read_bytes()
    chat("More")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        chat.save(path)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir() if entry.name != "llmnb-home"] == ["c.json"]


def test_what_json_cannot_hold(sim: Simulator, tmp_path: Path) -> None:
    """A block that JSON cannot hold is refused by the save, and no file is left."""
    chat = llmnb.LLM().chat()
    source = {"type": "base64", "media_type": "application/pdf", "data": tmp_path / "a.pdf"}
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.7")
    chat([{"type": "document", "source": source}])
    with pytest.raises(InvalidRequest, match="cannot be saved"):
        chat.save(tmp_path / "c.json")
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 3}, "newer llmnb"),
        ({"format": "other"}, "no saved chat"),
        ({"messages": [{"role": "assistant", "content": "x"}] * 2}, "not by the user"),
        ({"messages": []}, "0 messages, but 1 answers"),
        ({"messages": [{"role": "user", "content": ""}, {"role": "assistant", "content": [{}]}]}, "no content"),
        ({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": [5]}]}, "no content block"),
        ({"models": None}, "'models' is a NoneType"),
        ({"usage": {"input_tokens": 1, "estimated": "x", "sql": 5}}, ""),
        ({"model": 5}, "'model' is a int"),
        ({"cost_nanousd": "free"}, "'cost_nanousd'"),
    ],
)
def test_damaged_files(sim: Simulator, tmp_path: Path, change: dict[str, Any], said: str) -> None:
    """A file of a newer version, of something else, or damaged anywhere is refused by name."""
    chat = llmnb.LLM().chat()
    chat("Hi")
    path = chat.save(tmp_path / "c.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    if not said:
        assert Chat.load(path).usage.input_tokens == 1  # unknown fields of the future are left out
        return
    with pytest.raises(InvalidRequest, match=said) as caught:
        Chat.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b"[" * 100_000])
def test_no_chat_at_all(tmp_path: Path, content: bytes) -> None:
    """Any other file is refused with a sentence."""
    (tmp_path / "c.json").write_bytes(content)
    with pytest.raises(InvalidRequest, match="no saved chat"):
        Chat.load(tmp_path / "c.json")


def test_missing_file(tmp_path: Path) -> None:
    """A missing file is the system's own error."""
    with pytest.raises(FileNotFoundError):
        Chat.load(tmp_path / "c.json")


def test_a_file_cannot_bring_headers(sim: Simulator, tmp_path: Path) -> None:
    """Settings that are never saved are not read either: a file from elsewhere cannot redirect requests."""
    chat = llmnb.LLM().chat()
    chat("Hi")
    path = chat.save(tmp_path / "c.json")
    data = json.loads(path.read_text())
    data["options"] = {"extra_headers": {"x-evil": "1"}, "client": "x", "max_tokens": 9}
    path.write_text(json.dumps(data))
    loaded = Chat.load(path)
    loaded("More")
    assert "x-evil" not in sim.requests[-1].headers
    assert sim.requests[-1].body["max_tokens"] == 9


# Any order ------------------------------------------------------------------------------------------------------------


class Conversations(RuleBasedStateMachine):
    """Any order of asking, with tools and without, failing, undoing, forking, saving, held against a plain list."""

    chats = Bundle("chats")

    def __init__(self) -> None:
        super().__init__()
        self.settings = pytest.MonkeyPatch()
        # of a loaded chat, too: an answer that was left early may have come whole by then, and would be found again
        self.settings.setenv("LLMNB_CACHE", "off")
        self.serving = serve_simulator(environ=True)
        self.sim = self.serving.__enter__()
        self.sim.rule(lambda request: f"echo {request.prompt}")
        self.all: list[tuple[Chat, list[tuple[str, int]]]] = []  # each question, and how often tools were called

    def teardown(self) -> None:
        self.serving.__exit__(None, None, None)
        self.settings.undo()
        assert self.sim.crashes == []

    @rule(target=chats)
    def new(self) -> int:
        return self._add(llmnb.LLM(max_tokens=60_000).chat(), [])

    @rule(chat=chats, text=st.text(min_size=1).filter(str.strip), blocks=st.booleans())
    def ask(self, chat: int, text: str, blocks: bool) -> None:
        made, model = self.all[chat]
        made([text] if blocks else text)
        model.append((text, 0))

    @rule(chat=chats, text=st.text(min_size=1).filter(str.strip), loops=st.integers(1, 2), way=st.sampled_from("as"))
    def use_tools(self, chat: int, text: str, loops: int, way: str) -> None:
        made, model = self.all[chat]
        self.sim.script(*[OSLO] * loops, f"echo {text}")
        made(text, tools=[look]) if way == "a" else list(made.stream(text, tools=[look]))
        model.append((text, loops))

    @rule(chat=chats, loops=st.integers(0, 2), ends=st.sampled_from(["truncate", "status", "refusal", "limit", "left"]))
    def fail_with_tools(self, chat: int, loops: int, ends: str) -> None:
        made = self.all[chat][0]
        last = Answer(refusal=True) if ends == "refusal" else Answer(text="one two three", deltas=3)
        if ends in ("truncate", "status"):
            last = Answer(text="one two three four", deltas=4, fault=Fault(ends, status=400, after_events=3))
        if ends == "limit":
            last = OSLO
        self.sim.script(*[OSLO] * loops, last)
        if ends == "left":
            stream, results = made.stream("fails", tools=[look]), 0
            while not isinstance(event := next(stream), Text) or results < loops:
                results += isinstance(event, ToolResult)
            stream.close()
        elif ends == "refusal":
            assert made("fails", tools=[look]).refused
        else:
            with pytest.raises((anthropic.APIError, IncompleteReply, llmnb.ToolLoopLimit)):
                made("fails", tools=[look], max_turns=loops + 1)

    @rule(chat=chats, kind=st.sampled_from(["status", "truncate", "drop", "error_event"]), events=st.integers(0, 5))
    def fail(self, chat: int, kind: str, events: int) -> None:
        # an error before any content is repeated, and then does not fail
        fault = Fault(kind, status=400, after_events=events or int(kind == "error_event"))
        self.sim.script(Answer(text="one two three four five six", deltas=6, fault=fault))
        with pytest.raises((anthropic.APIError, IncompleteReply)):
            self.all[chat][0]("this fails")

    @rule(chat=chats, events=st.integers(0, 3))
    def leave(self, chat: int, events: int) -> None:
        if events:
            self.sim.script(Answer(text="one two three four five six", deltas=6))
        stream = self.all[chat][0].stream("left early")
        for _ in range(events):
            next(stream)
        stream.close()

    @rule(chat=chats)
    def refuse(self, chat: int) -> None:
        self.sim.script(Answer(refusal=True))
        assert self.all[chat][0]("refused").refused

    @precondition(lambda self: any(model for _, model in self.all))
    @rule(chat=chats, turns=st.integers(1, 3))
    def undo(self, chat: int, turns: int) -> None:
        made, model = self.all[chat]
        if turns > len(model):
            with pytest.raises(InvalidRequest):
                made.undo(turns)
        else:
            made.undo(turns)
            del model[-turns:]

    @rule(target=chats, chat=chats)
    def fork(self, chat: int) -> int:
        made, model = self.all[chat]
        return self._add(made.fork(), list(model))

    @rule(target=chats, chat=chats)
    def save_and_load(self, chat: int) -> int:
        made, model = self.all[chat]
        path = made.save(Path(os.environ["LLMNB_HOME"]).parent / "chat.json")
        loaded = Chat.load(path)
        assert loaded.messages == made.messages
        assert (loaded.usage, loaded.cost_usd) == (made.usage, made.cost_usd)
        return self._add(loaded, list(model))

    @invariant()
    def every_chat_is_what_its_list_says(self) -> None:
        for made, model in self.all:
            wanted: list[str] = []
            for text, loops in model:
                wanted += [text, *["Let me see.|tool_use", "tool_result"] * loops, f"echo {text}"]
            messages = made.messages
            assert [message["role"] for message in messages] == ["user", "assistant"] * (len(wanted) // 2)
            assert [_text(message["content"]) for message in messages] == wanted

    def _add(self, chat: Chat, model: list[tuple[str, int]]) -> int:
        self.all.append((chat, model))
        return len(self.all) - 1


TestConversations = Conversations.TestCase
TestConversations.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)


# Tools ----------------------------------------------------------------------------------------------------------------


def kinds(chat: Chat) -> list[str]:
    """The conversation by the kinds of its blocks."""
    return [
        message["role"][0] + ":" + "|".join(block["type"] for block in message["content"])
        if isinstance(message["content"], list)
        else message["role"][0]
        for message in chat.messages
    ]


LOOP = ["u", "a:text|tool_use", "u:tool_result", "a:text"]


def test_a_turn_with_tools_is_remembered_whole(sim: Simulator) -> None:
    """Calls and results are part of the history, and sent again as they were; a chat's tools are for every turn."""
    sim.script(OSLO, "It rains.", "You are welcome.")
    chat = llmnb.LLM().chat(tools=[look])
    assert len(chat("Umbrella?").turns) == 2
    assert kinds(chat) == LOOP
    chat("Thanks")
    assert sim.requests[2].body["messages"][:4] == chat.messages[:4]
    assert sim.requests[2].body["tools"][0]["name"] == "look"
    assert chat.usage.total_input_tokens == sim.billed().input_tokens
    chat.undo(2)
    assert chat.messages == []


def test_earlier_tools_are_told_of_but_not_called(sim: Simulator) -> None:
    """A question without tools after one with them still tells the API of those that the history speaks of."""
    sim.script(OSLO, "It rains.", "You are welcome.")
    chat = llmnb.LLM().chat()
    chat("Umbrella?", tools=[look])
    chat("Thanks")
    body = sim.requests[2].body
    assert (body["tools"][0]["name"], body["tool_choice"]) == ("look", {"type": "none"})


@pytest.mark.parametrize("at", [0, 1])
@pytest.mark.parametrize(
    "ends",
    [
        Answer(refusal=True),
        Answer(fault=Fault("truncate")),
        Answer(fault=Fault("status", status=400, error_type="invalid_request_error")),
        Answer(blocks=[{"type": "tool_use", "id": "toolu_x", "name": "look", "input": {}}], stop_reason="max_tokens"),
    ],
    ids=["refusal", "truncate", "refused", "max_tokens"],
)
def test_a_loop_that_does_not_end_leaves_the_chat_as_it_was(sim: Simulator, at: int, ends: Answer) -> None:
    """Refused, broken off or cut in a call, at whatever turn: no call without its result is remembered."""
    chat = llmnb.LLM(display="print").chat(tools=[look])
    chat("Hi")
    before = chat.messages
    sim.script(*[OSLO] * at, ends)
    with contextlib.suppress(IncompleteReply, anthropic.APIError):
        chat("Umbrella?")
    assert chat.messages == before
    sim.script("Well.")
    chat("And now?")
    assert len(chat.messages) == 4


def test_a_loop_at_its_limit_leaves_the_chat_as_it_was(sim: Simulator) -> None:
    """What was said is in the error; asking again with a higher limit goes on from there and is remembered."""
    sim.script(OSLO, "It rains.")
    chat = llmnb.LLM().chat(tools=[look])
    with pytest.raises(llmnb.ToolLoopLimit):
        chat("Umbrella?", max_turns=1)
    assert chat.messages == []
    chat("Umbrella?")
    assert kinds(chat) == LOOP
    assert len(sim.requests) == 2


def test_text_before_a_call_that_was_cut_off_stays(sim: Simulator) -> None:
    """The API would refuse a call without its result, so that is left out, and the text before it is kept."""
    call = {"type": "tool_use", "id": "toolu_x", "name": "look", "input": {}}
    sim.script(Answer(blocks=[{"type": "text", "text": "Let me"}, call], stop_reason="max_tokens"), "Well.")
    chat = llmnb.LLM().chat(tools=[look])
    chat("Umbrella?")
    chat("Go on")
    assert said(chat) == ["u:Umbrella?", "a:Let me", "u:Go on", "a:Well."]


def test_thinking_in_a_loop_goes_back_with_its_signature(sim: Simulator) -> None:
    """Within the loop and after it thinking is sent as it came; to another model it is not sent at all."""
    sim.script(
        Answer(thinking="Hm.", text="Let me see.", tool_calls=[("look", {"city": "Oslo"})]), "It rains.", "Good."
    )
    chat = llmnb.LLM("claude-sonnet-5-5").chat(tools=[look])
    chat("Umbrella?")
    assert sim.requests[1].body["messages"][1]["content"][0]["signature"]
    chat("Sure?", model="claude-opus-5-5")
    assert [block["type"] for block in sim.requests[2].body["messages"][1]["content"]] == ["text", "tool_use"]
    assert kinds(chat)[1] == "a:thinking|text|tool_use"


def test_turns_with_tools_survive_the_disk(sim: Simulator, tmp_path: Path) -> None:
    """Saved and loaded, a conversation goes on with its results and the definitions of its tools."""
    sim.script(OSLO, "It rains.", "Sure.")
    chat = llmnb.LLM().chat()
    chat("Umbrella?", tools=[look])
    loaded = Chat.load(chat.save(tmp_path / "c.json"))
    assert loaded.messages == chat.messages
    loaded("Sure?")
    assert sim.requests[2].body["tools"][0]["name"] == "look"
    assert "rain in Oslo" in loaded._repr_mimebundle_()["text/html"]


def test_files_of_the_first_version_are_read(sim: Simulator, tmp_path: Path) -> None:
    """They had two messages a turn, and nothing about tools."""
    chat = llmnb.LLM().chat()
    chat("Hi")
    data = json.loads(chat.save(tmp_path / "c.json").read_text())
    for name in ("lengths", "definitions", "left_out", "summary"):
        del data[name]
    (tmp_path / "old.json").write_text(json.dumps({**data, "version": 1}))
    assert Chat.load(tmp_path / "old.json").messages == chat.messages


# The context window ---------------------------------------------------------------------------------------------------

LONG = "word " * 400  # about 400 tokens


def filled(sim: Simulator, **settings: Any) -> Chat:
    """A chat of five turns of some 400 tokens each, whose window of 3,000 the next question overfills."""
    chat = llmnb.LLM(max_tokens=100, prompt_cache=None).chat(window_tokens=20_000, **settings)
    for number in range(5):
        sim.script(f"Answer {number}.")
        chat(f"{number} {LONG}")
    chat.guard = dataclasses.replace(chat.guard, window_tokens=2_500)
    sim.requests.clear()
    return chat


def test_a_full_window_is_an_error_before_anything_is_sent(sim: Simulator) -> None:
    """The error counts, and says what can be done; with room again the chat goes on."""
    chat = filled(sim)
    before = chat.messages
    with pytest.raises(llmnb.ContextFull, match=r'when_full = "trim"') as caught:
        chat(LONG)
    assert caught.value.window_tokens == 2_500 < caught.value.tokens + 100
    assert sim.requests == []
    assert chat.messages == before
    assert chat.undo(3)("Hi").text


@pytest.mark.parametrize("way", ["ask", "aask", "stream", "astream"])
@pytest.mark.parametrize("policy", ["trim", "compact"])
def test_turns_make_room(sim: Simulator, policy: Any, way: str) -> None:
    """The oldest turns go, whole, said in a warning; a summary is asked for once, booked, and sent in their place."""
    chat = filled(sim, when_full=policy)
    if policy == "compact":
        sim.script("We counted.")
    sim.script("Done.", "And done.")
    with pytest.warns(LlmnbWarning, match=r"the context window of 2,500 tokens is full: the oldest \d turns are"):
        asked_in(way, chat, LONG)
    sent = sim.requests[-1].body["messages"]
    assert sent[:-1] == chat.sent_messages[: len(sent) - 1]
    assert len(sent) < 11
    assert len(chat.messages) == 12
    chat("Again")  # room was made for more than one question
    assert chat.sent_messages[: len(sent)] == sent
    if policy == "compact":
        assert _text(sent[1]["content"]) == "We counted."
        assert len(sim.requests) == 3
        assert list(llmnb.calls()["tag"].dropna()) == ["compaction"]
    assert chat.usage.total_input_tokens == sim.billed().input_tokens


def asked_in(way: str, chat: Chat, prompt: str) -> None:
    """Asks in one of the four ways."""

    async def events() -> None:
        async for _ in chat.astream(prompt):
            pass

    match way:
        case "ask":
            chat(prompt)
        case "aask":
            asyncio.run(chat.aask(prompt))
        case "stream":
            list(chat.stream(prompt))
        case _:
            asyncio.run(events())


def test_a_turn_with_tools_goes_whole(sim: Simulator) -> None:
    """No result is sent without its call, wherever the cut falls."""

    def read(page: int) -> str:
        """Reads a page."""
        return f"{page} {LONG}"

    llm = llmnb.LLM(max_tokens=100, prompt_cache=None)
    chat = llm.chat(tools=[read], when_full="trim", window_tokens=20_000)
    for page in range(6):
        sim.script(Answer(text="Wait.", tool_calls=[("read", {"page": page})]), "Read.")
        chat("Umbrella?")
    chat.guard = dataclasses.replace(chat.guard, window_tokens=3_500)
    with pytest.warns(LlmnbWarning, match="the oldest"):
        chat("Thanks")
    assert sim.requests[-1].body["messages"][0]["content"] == "Umbrella?"


def test_what_can_never_fit_is_said_so(sim: Simulator) -> None:
    """A question that is longer than the window by itself is refused under every policy, and nothing is left out."""
    chat = filled(sim, when_full="trim")
    with pytest.raises(llmnb.ContextFull, match="this question is too long"):
        chat(LONG * 10)
    assert chat.sent_messages == chat.messages


def test_what_was_left_out_comes_back_with_undo(sim: Simulator, tmp_path: Path) -> None:
    """Forks and files know what is sent; when turns behind a summary are undone, what is left is sent whole again."""
    chat = filled(sim, when_full="compact")
    sim.script("We counted.", "Done.")
    with pytest.warns(LlmnbWarning):
        chat(LONG)
    left_out = chat.sent_messages
    assert chat.fork().sent_messages == left_out == Chat.load(chat.save(tmp_path / "c.json")).sent_messages
    chat.undo(5)
    assert chat.sent_messages == chat.messages


def test_unknown_policies_are_refused() -> None:
    """They are named."""
    with pytest.raises(InvalidRequest, match="error, trim, compact"):
        llmnb.LLM().chat(when_full="cut")  # type: ignore[arg-type]


# To be read -----------------------------------------------------------------------------------------------------------


def test_exports_hold_the_whole_conversation(sim: Simulator, tmp_path: Path) -> None:
    """More turns than a cell shows, with tools and their results; the page stands alone; the files are the owner's."""
    chat = llmnb.LLM().chat(tools=[look])
    sim.script(OSLO, "It rains.")
    chat("Umbrella?")
    for number in range(21):
        chat(f"Question {number}")
    markdown = chat.export(tmp_path / "c.md").read_text()
    assert markdown == chat.to_markdown()
    assert '**⚙ look(city="Oslo"): done**\n\n```text\nrain in Oslo\n```\n\nIt rains.' in markdown
    page = chat.export(tmp_path / "c.html").read_text()
    assert page.startswith("<!doctype html>")
    assert page.count('<details class="llmnb-turn" open>') == 22
    for text in ("Umbrella?", "Question 20", "rain in Oslo"):
        assert text in markdown
        assert text in page
    assert stat.S_IMODE((tmp_path / "c.html").stat().st_mode) == 0o600
    with pytest.raises(InvalidRequest, match="writes \\.md or \\.html"):
        chat.export(tmp_path / "c.pdf")
