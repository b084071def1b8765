"""`%%llm`, `%llm_model` and `%llm_cost` in a real IPython shell against the simulator."""

from __future__ import annotations

import atexit
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from IPython.core.completer import provisionalcompleter
from IPython.core.interactiveshell import InteractiveShell
from IPython.terminal.interactiveshell import TerminalInteractiveShell
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import start_new_kernel

import llmnb
from llmnb.asking import recent
from llmnb.chat import named
from llmnb.errors import InvalidRequest
from llmnb.reply import Reply
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer
from llmnb.testing import serve_simulator

PNG = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de")


@dataclass
class Guess:
    """A type to be asked for."""

    number: int


@pytest.fixture
def sim() -> Iterator[Simulator]:
    """A simulated API in the environment that answers with an echo."""
    with serve_simulator(environ=True) as simulator:
        simulator.rule(lambda request: f"echo {request.prompt}")
        yield simulator
        assert simulator.crashes == []


@pytest.fixture
def shell(sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    """A shell with the extension, in which answers are not shown; no named chats, no last answer."""
    monkeypatch.setenv("LLMNB_DISPLAY", "none")
    monkeypatch.setenv("LLMNB_MODEL", "claude-sonnet-5-5")  # so that %llm_model is undone
    named._named.clear()
    recent.forget()
    made = InteractiveShell.instance()
    made.run_line_magic("load_ext", "llmnb")
    yield made
    atexit.unregister(made.atexit_operations)
    made.run_line_magic("unload_ext", "llmnb")
    made.atexit_operations()
    InteractiveShell.clear_instance()
    named._named.clear()


def run(shell: InteractiveShell, cell: str) -> Any:
    """Run a cell; its value."""
    result = shell.run_cell(cell, store_history=True)
    result.raise_error()
    return result.result


def refused(shell: InteractiveShell, cell: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Run a cell that must fail with one line; the line."""
    capsys.readouterr()
    result = shell.run_cell(cell)
    assert not result.success
    said = capsys.readouterr()
    lines = [line for line in (said.err + said.out).splitlines() if line.strip()]
    assert len(lines) == 1, lines
    return lines[0]


def completions(shell: InteractiveShell, typed: str) -> set[str]:
    """What IPython offers at the end of a text, as front ends ask for it."""
    with provisionalcompleter():
        return {found.text for found in shell.Completer.completions(typed, len(typed))}


# %%llm ----------------------------------------------------------------------------------------------------------------


def test_ask(shell: InteractiveShell, sim: Simulator) -> None:
    """The body is the prompt with its fields replaced; the value is the reply, and -o keeps it."""
    shell.user_ns["name"] = "World"
    value = run(shell, "%%llm -o r --max-tokens 1_000 --tag t\nHi {{ name }}, {x} 100% $y '\"\n")
    assert isinstance(value, Reply)
    assert shell.user_ns["r"] is value
    assert value.text == "echo Hi World, {x} 100% $y '\"\n"[:-1]
    (request,) = sim.requests
    assert request.body["max_tokens"] == 1000
    (row,) = llmnb.calls().to_dict("records")
    assert (row["tag"], row["model"]) == ("t", "claude-sonnet-5-5")


@settings(
    max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(st.text(st.sampled_from("{}%$'\"\\ \n\t!?;ab{{}}é🎉"), min_size=1, max_size=40).filter(str.strip))
def test_the_body_arrives_as_it_was_typed(shell: InteractiveShell, sim: Simulator, body: str) -> None:
    """IPython, the magic and llmnb change no character of a body, but for empty lines at its end."""
    sim.reset()
    shell.run_cell_magic("llm", "--raw --fresh", body + "\n")
    assert sim.requests[-1].body["messages"] == [{"role": "user", "content": body.rstrip("\n")}]


PIECES = st.one_of(
    st.sampled_from([
        "{{ name }}", "{{name}}", "{{ row['k'] }}", "{{", "}}", "{", "}", "%", "%%", "%s", "%(name)s", "%time", "$",
        "$name", "${name}", "'", '"', '"' * 3, "\\", "\\n", "{name}", "{{ 1 + 1 }}", "{{ name() }}", "{{}}", "!ls", "?",
        "??", "# x", "--model", "-o", "\t", "\n", "\n%%llm", "\n%cd /", "é", "🎉", "f'{name}'", "{% if x %}", "{# c #}",
        "  ",
    ]),
    st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="{}"), max_size=5),
)  # fmt: skip


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(st.lists(PIECES, min_size=1, max_size=12).filter(lambda pieces: "".join(pieces).strip()))
def test_only_fields_of_a_body_are_replaced(shell: InteractiveShell, sim: Simulator, pieces: list[str]) -> None:
    """A whole cell as a person types it: IPython's own syntax, braces, %, $ and quotes in the body mean nothing."""
    name, value = "{{ row }} %s $HOME", "'\"\\"
    shell.user_ns |= {"name": name, "row": {"k": value}}
    body = re.sub(r"(?m)^[ \t]+$", "", "".join(pieces))  # IPython empties lines that only seem to be
    wanted = re.sub(r"\{\{ ?name ?\}\}", lambda found: name, re.sub(r"\{\{ row\['k'\] \}\}", lambda found: value, body))
    sim.reset()
    shell.run_cell("%%llm --display none --fresh\n" + body).raise_error()
    assert sim.requests[-1].body["messages"] == [{"role": "user", "content": wanted.rstrip("\n")}]


def test_options(shell: InteractiveShell, sim: Simulator, tmp_path: Path) -> None:
    """Model, system, effort and files go into the request; values may be quoted, and IPython expands {variables}."""
    picture = tmp_path / "a plot.png"
    picture.write_bytes(PNG)
    shell.user_ns |= {"guide": "Be brief.", "picture": str(picture)}
    run(shell, '%%llm --model=claude-opus-5-5 -s guide --effort low -i "{picture}" -i "{picture}"\nWhat is this?')
    body = sim.requests[0].body
    assert (body["model"], body["system"], body["output_config"]) == ("claude-opus-5-5", "Be brief.", {"effort": "low"})
    assert [block["type"] for block in body["messages"][0]["content"]] == ["image", "image", "text"]


def weather(city: str) -> str:
    """Today's weather."""
    return f"rain in {city}"


def test_tools(shell: InteractiveShell, sim: Simulator) -> None:
    """Functions by their names, and lists of them, are the cell's tools; a chat remembers what they gave."""
    shell.user_ns |= {"weather": weather, "more": [len]}
    sim.script(Answer(text="Wait.", tool_calls=[("weather", {"city": "Oslo"})]), Answer(text="Take one."))
    reply = run(shell, "%%llm --tools weather --max-turns 3 --chat trip\nUmbrella?")
    assert [result.content for _, result in reply.tool_results] == ["rain in Oslo"]
    assert len(named.named_chat("trip").messages) == 4


def test_schema(shell: InteractiveShell, sim: Simulator) -> None:
    """The value of the cell, and what -o gets, is a validated object, or a list of them."""
    run(shell, "from dataclasses import dataclass\n@dataclass\nclass Person:\n    name: str")
    sim.script(Answer(text='{"name": "Ann"}'), Answer(text='{"value": [{"name": "Bob"}]}'))
    person = run(shell, "%%llm --schema Person -o person\nWho?")
    assert (person.name, shell.user_ns["person"]) == ("Ann", person)
    people = run(shell, "%%llm --schema list[Person]\nWho else?")
    assert people.to_frame()["name"].tolist() == ["Bob"]
    assert sim.requests[0].body["messages"][0]["content"] == "Who?"


def test_template(shell: InteractiveShell, sim: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file or a variable; the cell is its {{ body }}, variables are its other fields; the ledger knows it."""
    monkeypatch.chdir(tmp_path)
    Path("greet.md").write_text("---\nmodel: claude-haiku-5-5\nversion: 2\n---\nTo {{ name }}: {{ body }}\n")
    shell.user_ns |= {"name": "Ann", "hello": llmnb.Template("Hello {{ name }}", name="hello", version="1")}
    run(shell, "%%llm --template greet.md --chat letters\nHi {{ name }}")
    run(shell, "%llm -t hello")
    assert [request.body["messages"][-1]["content"] for request in sim.requests] == ["To Ann: Hi Ann", "Hello Ann"]
    assert sim.requests[0].body["model"] == "claude-haiku-5-5"
    assert set(llmnb.calls()["template"]) == {"greet@2", "hello@1"}


def test_template_with_a_schema(shell: InteractiveShell, sim: Simulator) -> None:
    """The type that it names is one of the notebook's."""
    run(shell, "from enum import Enum\nclass Colour(Enum):\n    RED = 'red'")
    shell.user_ns["ask"] = llmnb.Template("Which colour? {{ body }}", schema="Colour")
    sim.script(Answer(text='{"value": "red"}'))
    assert run(shell, "%%llm -t ask\nblood") is shell.user_ns["Colour"].RED


def test_fresh(shell: InteractiveShell, sim: Simulator) -> None:
    """A cell that is run again is answered from disk; with --fresh it is asked again, in a chat, too."""
    sim.script("one", "two", "three", "four", "five")
    cell = "%%llm {}\nHi"
    said = [run(shell, cell.format(options)) for options in ("", "", "--fresh", "")]
    assert [reply.text for reply in said] == ["one", "one", "two", "two"]
    assert [reply.source for reply in said] == ["live", "cache", "live", "cache"]
    assert run(shell, cell.format("--chat a --fresh")).text == "three"
    assert run(shell, cell.format("--chat b")).source == "cache"
    assert len(sim.requests) == 3


def test_a_named_chat_goes_on(shell: InteractiveShell, sim: Simulator) -> None:
    """--chat begins a chat and continues it, and one that code made keeps its own LLM."""
    run(shell, "%%llm --chat 'my review'\none")
    run(shell, "%%llm --chat 'my review' -m claude-haiku-5-5\ntwo")
    assert [len(request.body["messages"]) for request in sim.requests] == [1, 3]
    assert sim.requests[1].body["model"] == "claude-haiku-5-5"
    chat = llmnb.LLM("claude-opus-5-5", system="Old.").chat(name="mine")
    shell.user_ns["new"] = "New."
    run(shell, "%%llm -c mine\nthree")
    run(shell, "%%llm -c mine -s new\nfour")
    assert [(request.body["model"], request.body["system"]) for request in sim.requests[2:]] == [
        ("claude-opus-5-5", "Old."),
        ("claude-opus-5-5", "New."),
    ]
    assert len(chat.messages) == 4


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("%%llm\nHi {{ nmae }}", "UsageError: {{ nmae }}: there is no variable 'nmae'. Did you mean 'name'?"),
        ("%%llm\nHi {{ opne }}", "{{ opne }}: there is no variable 'opne'. Nothing was sent."),
        ("%%llm -s exti\nHi", "there is no variable 'exti'. Nothing was sent."),
        ("%%llm --modle x\nHi", "UsageError: %%llm: unrecognized arguments: --modle x."),
        ("%%llm --max-tokens 0\nHi", "'0' is no whole number from 1"),
        ("%%llm --effort huge\nHi", "invalid choice: 'huge'"),
        ("%%llm --chat 'a\nHi", "no closing quotation"),
        ("%%llm --system nmae\nHi", "there is no variable 'nmae'. Did you mean 'name'?"),
        ("%%llm -o 1x\nHi", "no name of a variable"),
        ("%%llm --tools name,nmae\nHi", "--tools name,nmae: there is no variable 'nmae'. Did you mean 'name'?"),
        ("%%llm --tools name\nHi", "a tool is a function"),
        ("%%llm --tools hello_fn --approve\nHi", "approve=True asks a person"),
        ("%%llm --schema Persn\nHi", "--schema Persn: there is no variable 'Persn'. Did you mean 'Person'?"),
        ("%%llm --schema Person --chat a\nHi", "leave one out"),
        ("%%llm -t nope.md\nHi", "'nope.md' cannot be read: No such file or directory. Nothing was sent."),
        ("%%llm -t hello\nHi", "has no {{ body }} for the text of the cell"),
        ("%llm -t hello", "there is no variable 'nmae'. Did you mean 'name'?"),
        ("%llm -o x", "%llm wants --template FILE"),
        ("%%llm -i nope.png\nHi", "there is no file nope.png"),
        ("%%llm --display loud\nHi", "unknown display 'loud'"),
        ("%%llm --chat ''\nHi", "the name of a chat cannot be empty"),
        ("%%llm -m claude-opus-5-5 --raw\n ", "the prompt is empty"),
        ("%llm_model a b", "unrecognized arguments: b"),
        ("%llm_cost now", "unrecognized arguments: now"),
    ],
)
def test_what_cannot_work(
    shell: InteractiveShell, sim: Simulator, capsys: pytest.CaptureFixture[str], cell: str, said: str
) -> None:
    """A mistake is told in one line, with what to do, and nothing is sent."""
    shell.user_ns |= {"name": "World", "Person": int, "hello": llmnb.Template("Hi {{ nmae }}"), "hello_fn": weather}
    assert said in refused(shell, cell, capsys)
    assert sim.requests == []


def test_errors_of_the_api_are_the_sdks(shell: InteractiveShell, sim: Simulator) -> None:
    """What the API refuses is raised as the SDK raises it, and -o binds nothing."""
    import anthropic

    sim.fail("status", status=403, error_type="permission_error")
    with pytest.raises(anthropic.PermissionDeniedError):
        run(shell, "%%llm -o r\nHi")
    assert "r" not in shell.user_ns


def test_without_a_key(shell: InteractiveShell, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    """A missing key is one line that says how to set it."""
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    assert "ANTHROPIC_API_KEY" in refused(shell, "%%llm\nHi", capsys)


# %llm_model and %llm_cost ---------------------------------------------------------------------------------------------


def test_model(shell: InteractiveShell, sim: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    """The model of the session is shown and set, for magics and for LLM(); a name nobody knows is told."""
    assert run(shell, "%llm_model") == "claude-sonnet-5-5"
    assert run(shell, "%llm_model claude-haiku-5-5") == "claude-haiku-5-5"
    assert capsys.readouterr().err == ""
    run(shell, "%%llm\nHi")
    assert sim.requests[0].body["model"] == "claude-haiku-5-5" == llmnb.LLM().model
    assert run(shell, "%llm_model claude-haiku-5-6") == "claude-haiku-5-6"
    assert "Did you mean 'claude-haiku-5-5'" in capsys.readouterr().err
    assert run(shell, "%llm_model openai:gpt-4o") == "openai:gpt-4o"
    assert capsys.readouterr().err == ""
    assert "Did you mean 'openai:gpt-4o'" in refused(shell, "%llm_model openia:gpt-4o", capsys)
    assert run(shell, "%llm_model") == "openai:gpt-4o"


def test_cost(shell: InteractiveShell, sim: Simulator) -> None:
    """The sums are the simulator's own bill: of the last cell that asked, its earlier runs not counted, and of all."""
    shell.user_ns["llm"] = llmnb.LLM()
    cell, session, today = run(shell, "%llm_cost")
    assert (cell.calls, cell.cost_usd, session.cost_usd, today.cost_usd) == (0, 0, 0, 0)
    run(shell, "%%llm\nfirst and much longer")
    before = sim.billed().price_nanousd
    run(shell, "llm('a'), llm('b')")
    run(shell, "1 + 1")
    spent = run(shell, "%llm_cost")
    cell, session, today = spent
    billed = sim.billed()
    assert cell.calls == 2
    assert cell.cost_usd == Decimal(billed.price_nanousd - before) / 10**9 > 0
    assert session.cost_usd == today.cost_usd == Decimal(billed.price_nanousd) / 10**9
    assert (session.calls, session.output_tokens) == (3, billed.output_tokens)
    assert f"${cell.cost_usd}" in repr(spent)
    assert repr(cell.cost_usd)[9:-2] in spent._repr_html_().replace("<span>$</span>", "$")


def test_cost_without_a_price(shell: InteractiveShell, sim: Simulator) -> None:
    """What has no price is unpriced, not $0."""
    sim.script(Answer(text="Hi", model="claude-nova-9"))
    run(shell, "%%llm\nHi")
    cell, *_ = spent = run(shell, "%llm_cost")
    assert (cell.calls, cell.cost_usd, cell.unpriced_calls) == (1, None, 1)
    assert "unpriced" in repr(spent)


def test_cost_of_the_notebook(shell: InteractiveShell, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a notebook it has a line of its own, with calls of earlier sessions."""
    monkeypatch.setenv("LLMNB_NOTEBOOK", "<b>a.ipynb")
    run(shell, "%%llm\nHi")
    spent = run(shell, "%llm_cost")
    assert (spent[1].what, spent[1].calls) == ("this notebook (<b>a.ipynb)", 1)
    assert "<b>" not in spent._repr_html_()


# Loading, help, completion --------------------------------------------------------------------------------------------


def test_load_twice_and_unload(shell: InteractiveShell) -> None:
    """Loading again changes nothing; unloading leaves nothing behind."""
    matchers = list(shell.Completer.custom_matchers)
    run(shell, "%reload_ext llmnb")
    llmnb.load_ipython_extension(shell)
    assert len(shell.Completer.custom_matchers) == len(matchers) == 1
    run(shell, "%unload_ext llmnb")
    assert shell.Completer.custom_matchers == []
    assert shell.find_cell_magic("llm") is None
    assert shell.find_line_magic("llm_cost") is None
    run(shell, "%load_ext llmnb")


def test_help(shell: InteractiveShell) -> None:
    """Each magic's ? tells what it does, and %%llm? every option, in lines that fit."""
    text = shell.object_inspect("%%llm")["docstring"]
    assert text.startswith("usage: %%llm [-m MODEL]")
    for option in ("--model", "--chat", "--system", "--output", "--image", "--max-tokens", "--display", "--raw"):
        assert option in text
    texts = [text]
    for magic in ("%llm_model", "%llm_cost"):
        texts.append(shell.object_inspect(magic)["docstring"])
        assert texts[-1].startswith(f"usage: {magic}")
    assert max(len(line) for text in texts for line in text.splitlines()) <= 80


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("%%llm --mo", {"--model"}),
        ("%%llm -m claude-haiku-5", {"claude-haiku-5-5"}),
        ("%%llm --model claude-haiku-5", {"claude-haiku-5-5"}),
        ("%%llm --model=claude-haiku-5", {"claude-haiku-5-5"}),
        ("%%llm --raw --effort xh", {"xhigh"}),
        ("%%llm --display te", {"terminal"}),
        ("%%llm --chat re", {"review"}),
        ("%%llm --system gu", {"guide"}),
        ("%%llm -o gu", {"guide", "guess", "guided", "guide_me"}),
        ("%%llm --schema Gue", {"Guess"}),
        ("%%llm --tools gu", {"guide_me"}),
        ("%%llm --tools guide_me,gu", {"guide_me"}),
        ("%llm -t gu", {"guided"}),
        ("%llm_model claude-opus-5-", {"claude-opus-5-5"}),
        ("%%ll", {"%%llm"}),
        ("%llm", {"%%llm", "%llm", "%llm_model", "%llm_cost"}),
    ],
)
def test_completion(shell: InteractiveShell, typed: str, offered: set[str]) -> None:
    """Options, models, efforts, displays, chats and variables are offered where they belong, and nothing else."""
    shell.user_ns |= {
        "guide": "Be brief.",
        "guess": 7,
        "guide_me": weather,
        "guided": llmnb.Template("Hi"),
        "Guesses": list,
        "Guess": Guess,
    }
    llmnb.LLM().chat(name="review")
    assert completions(shell, typed) == offered


def test_all_of_it_completes_somewhere(shell: InteractiveShell) -> None:
    """An empty word offers every option; the body of a cell is left to IPython."""
    assert "--max-tokens" in completions(shell, "%%llm ")
    assert "--max-tokens" not in completions(shell, "some %%llm ")
    shell.user_ns["guess"] = 7
    assert completions(shell, "%%llm\nMy {{ gues") == completions(shell, "%%llm -o x\nMy {{gues") == {"guess"}


# Elsewhere ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def kernel(sim: Simulator) -> Iterator[BlockingKernelClient]:
    """A client of a running kernel with the extension."""
    manager, client = start_new_kernel(startup_timeout=60)
    client.execute_interactive("%load_ext llmnb\nname = 'World'", timeout=60)
    yield client
    client.stop_channels()
    manager.shutdown_kernel(now=True)


def test_in_a_kernel(kernel: BlockingKernelClient, sim: Simulator) -> None:
    """In Jupyter the answer is displayed once, names are completed in the body, too, and %llm_cost knows the cell."""
    shown: list[Any] = []
    code = "%%llm --display static -o r\nHi {{ name }}"
    kernel.execute_interactive(code, timeout=60, output_hook=shown.append)
    kinds = [message["msg_type"] for message in shown]
    assert kinds.count("display_data") == 1
    assert "execute_result" not in kinds
    assert sim.requests[-1].body["messages"][0]["content"] == "Hi World"
    for typed, offered in (("%%llm --mo", ["--model"]), ("%%llm\nHi {{ nam", ["name"])):
        reply = kernel.complete(typed, reply=True, timeout=60)["content"]
        assert reply["matches"] == offered
        assert typed[reply["cursor_start"] : reply["cursor_end"]] in ("--mo", "nam")
    shown.clear()
    kernel.execute_interactive("%llm_cost", timeout=60, output_hook=shown.append)
    (table,) = [message["content"]["data"] for message in shown if message["msg_type"] == "execute_result"]
    assert "last cell that asked      1" in table["text/plain"]
    assert "<table>" in table["text/html"]


def test_in_a_terminal(sim: Simulator, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """In IPython's terminal the answer is printed, and behind Out[…] stands the short form."""
    TerminalInteractiveShell.clear_instance()
    shell = TerminalInteractiveShell.instance(simple_prompt=True)
    try:
        shell.run_line_magic("load_ext", "llmnb")
        sim.script(Answer(text="the *answer*"))
        shell.run_cell("%%llm --display print\nHi", store_history=True).raise_error()
        out = capfd.readouterr().out
    finally:
        shell.run_line_magic("unload_ext", "llmnb")
        atexit.unregister(shell.atexit_operations)
        shell.atexit_operations()
        TerminalInteractiveShell.clear_instance()
    assert out.count("the *answer*") == 2
    assert out.splitlines()[-1].startswith("Out[1]: <Reply 'the *answer*' claude-sonnet-5-5, ")


def test_chat_ui_needs_a_notebook(shell: InteractiveShell) -> None:
    """Where there are no widgets the box says what to use instead."""
    with pytest.raises(InvalidRequest, match="needs a notebook"):
        llmnb.LLM().chat().ui()
