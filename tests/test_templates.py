"""Templates: `{{ name }}` is replaced, and not one character else."""

from __future__ import annotations

import inspect
import keyword
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import llmnb
from llmnb.errors import ExtractionFailed, InvalidRequest
from llmnb.simulator import Simulator
from llmnb.simulator.answer import Answer
from llmnb.templates import Template, fill, names

NAMES = st.from_regex(r"[a-zäß_][a-z0-9ü_]{0,8}", fullmatch=True).filter(lambda name: not keyword.iskeyword(name))
# what prompts are full of, and no "{{": any text may hold anything but a field
TEXT = st.text(st.sampled_from("{}%$'\"\\ \n\tab{{#}}|`<é🎉"), max_size=30).filter(lambda text: names(text) == [])
BODY = st.text(max_size=60)


@given(st.lists(st.tuples(TEXT, NAMES, BODY), max_size=5), TEXT)
@example([("{", "x", "{{ x }}")], "}")
def test_only_fields_are_replaced(parts: list[tuple[str, str, str]], end: str) -> None:
    """Between the fields every character stays; a value is put in once and not looked at again."""
    values = {name: value for _, name, value in parts}
    template, wanted = "", ""
    for before, name, _ in parts:
        # a brace or backslash next to a field is text, but two braces would make another field
        template += f"{before} {{{{ {name} }}}}"
        wanted += f"{before} {values[name]}"
    if set(names(template + end)) == set(values):  # pieces put together may make a field of their own
        assert fill(template + end, values) == wanted + end


@given(TEXT)
def test_a_body_without_fields_is_untouched(body: str) -> None:
    """Braces, percent and dollar signs, quotes and backslashes go to the model as they were typed."""
    assert fill(body, {}) == body


@given(BODY)
def test_a_value_is_never_a_template(value: str) -> None:
    """A value that holds a field brings its text."""
    assert fill("a {{x}} b", {"x": value + "{{ y }}"}) == f"a {value}{{{{ y }}}} b"


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("{{ n }}", "7"),
        ("{{n}}{{\tn }}", "77"),
        ('{"a": {{{ n }}}}', '{"a": {7}}'),
        ("{{ row['title'] }} {{ row[\"title\"] }}", "Dune Dune"),
        ("{{ rows[0] }} {{ rows[-1] }}", "1 3"),
        ("{{ paper.year }}, {{ paper.tags[1] }}", "1965, b"),
        ("{{ nothing }}", "None"),
        ("{{ größe }}", "8"),
    ],
)
def test_fields(template: str, filled: str) -> None:
    """A name, its attributes, and literal indexes; a str as it is, anything else as str() gives it."""
    paper = SimpleNamespace(year=1965, tags=["a", "b"])
    values = {"n": 7, "row": {"title": "Dune"}, "rows": [1, 2, 3], "paper": paper, "nothing": None, "größe": 8}
    assert fill(template, values) == filled


@pytest.mark.parametrize(
    "text",
    ["{{ n + 1 }}", "{{ f(n) }}", "{{ n | upper }}", "{{}}", "{{ }}", "{{ 'n' }}", "{n}", "{{ class }}", "{{\nn }}",
     "{% n %}", "${n}", "%(n)s", "{{ rows[n] }}", "{{ n", "{{ 1n }}"],
)  # fmt: skip
def test_what_is_no_field(text: str) -> None:
    """Double braces around anything but a name are text; nothing is ever evaluated."""
    assert names(text) == []
    assert fill(text, {"n": 7}) == text


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ nmae }}", "there is no variable 'nmae'. Did you mean 'name'? Nothing was sent."),
        ("{{ a1 }} {{ b2 }}", "{{ a1 }}: there is no variable 'a1'. {{ b2 }}: there is no variable 'b2'."),
        ("{{ row.titel }}", "{{ row.titel }}: row is a dict without 'titel'. Did you mean 'title'?"),
        ("{{ row['titel'] }}", "row is a dict without 'titel'. Did you mean 'title'?"),
        ("{{ name[9] }}", "name is a str without '9'"),
        ("{{ row['title'].upper }}", "{{ row['title'].upper }} is a method, and templates hold values only."),
        ("{{ row.__class__ }}", "templates do not read what is private"),
        ("{{ row['__class__'].mro }}", "templates do not read what is private"),
    ],
)
def test_what_is_missing(template: str, said: str) -> None:
    """A missing name, attribute or index is told with the nearest there is."""
    with pytest.raises(InvalidRequest) as caught:
        fill(template, {"name": "World", "row": {"title": "Dune"}})
    assert said in str(caught.value)


def _generator() -> Iterator[int]:
    yield 1


async def _coroutine() -> None:
    """Never awaited."""


HOSTILE = [
    "f.__globals__", "f.__code__.co_consts", "f.__closure__[0].cell_contents", "f.__builtins__", "o.method",
    "o.__init__.__globals__", "o.__dict__['key']", "o._key", "o['_key']", "K.__subclasses__", "K.mro", "K.__mro__[1]",
    "K.__base__", "g.gi_frame", "g.gi_frame.f_globals['SECRET']", "g.gi_code", "c.cr_frame", "c.cr_frame.f_locals",
    "e.__traceback__", "e.__traceback__.tb_frame.f_globals", "t.tb_frame", "os.environ['KEY']", "os.path.sep",
    "os.environ", "s.format", "s.__class__", "d.keys", "d.__class__.__base__", "d['k'].__class__", "l.append",
    "m.__func__", "m.__self__", "code.co_consts", "frame.f_globals", "frame.f_back",
]  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE)
def test_no_way_leads_to_code(path: str) -> None:
    """Whatever a notebook holds, a template reads data: no private name, frame, class, method, module or code."""

    def function(key: str = "SECRET") -> str:
        return key

    class Kind:
        def __init__(self) -> None:
            self._key = self.key = "SECRET"

        def method(self) -> str:
            return self._key

    try:
        raise ValueError("SECRET")
    except ValueError as raised:
        error = raised
    coroutine, one = _coroutine(), Kind()
    values = {
        "f": function, "o": one, "K": Kind, "g": _generator(), "c": coroutine, "e": error, "t": error.__traceback__,
        "os": os, "s": "text", "d": {"k": "v"}, "l": [1], "m": one.method, "code": function.__code__,
        "frame": inspect.currentframe(),
    }  # fmt: skip
    try:
        with pytest.raises(InvalidRequest, match=r"Nothing was sent\."):
            fill(f"{{{{ {path} }}}}", values)
    finally:
        coroutine.close()


# Templates ------------------------------------------------------------------------------------------------------------

FRONT = """---
model: claude-haiku-5-5
system: You write for {{ reader }}.
name: greet
version: 2
max_tokens: 77
---
"""


def test_front_matter_says_how_it_is_asked(sim: Simulator) -> None:
    """Model, system prompt and settings reach the request, name and version the ledger; the call itself wins."""
    prompt = Template(FRONT + "Hi {{ name }} {x}\r\n{% if y %}").render(name="Ann", reader="kids")
    llm = llmnb.LLM("claude-opus-5-5", system="Other.", project="thesis")
    llm(prompt)
    llm(["Once more:", prompt], max_tokens=5)
    first, second = (request.body for request in sim.requests)
    assert (first["model"], first["system"], first["max_tokens"]) == ("claude-haiku-5-5", "You write for kids.", 77)
    assert first["messages"][0]["content"] == "Hi Ann {x}\r\n{% if y %}"
    assert second["max_tokens"] == 5
    assert second["messages"][0]["content"][1] == {"type": "text", "text": "Hi Ann {x}\r\n{% if y %}"}
    used = llmnb.usage(by=["template", "project"])
    assert used[["template", "project", "calls"]].values.tolist() == [["greet@2", "thesis", 2]]


def test_every_way_of_asking_takes_one(sim: Simulator) -> None:
    """A chat remembers the text and asks with the settings; streams and estimates take it, too."""
    prompt = Template(FRONT + "Hi {{ name }}").render({"name": "Ann", "reader": "kids", "unused": 1})
    chat = llmnb.LLM("claude-opus-5-5").chat()
    chat(prompt)
    assert type(chat.messages[0]["content"]) is str
    assert "".join(event.text for event in llmnb.LLM().stream(prompt) if isinstance(event, llmnb.Text))
    assert llmnb.LLM("claude-opus-5-5").estimate(prompt).model == "claude-haiku-5-5"
    assert llmnb.calls()["template"].tolist() == ["greet@2"] * 2
    assert {request.body["model"] for request in sim.requests} == {"claude-haiku-5-5"}


def test_a_template_without_fields_is_a_prompt(sim: Simulator) -> None:
    """It can be asked as it is; one with fields says what is missing."""
    llmnb.LLM()(Template("Hi", name="hello", version="1.10"))
    assert llmnb.calls()["template"].tolist() == ["hello@1.10"]
    with pytest.raises(InvalidRequest, match="no value 'name'"):
        llmnb.LLM()(Template("Hi {{ name }}"))
    assert len(sim.requests) == 1


def test_a_file(tmp_path: Path) -> None:
    """Its name is the file's, its last line end is not the prompt's, and arguments win over what it says."""
    path = tmp_path / "greet.md"
    path.write_bytes("\ufeff---\nmodel: claude-haiku-5-5\n---\nHi {{ name }}\n".encode())
    template = Template.load(path, version=3, model="claude-opus-5-5")
    assert (template.label, template.text, template.fields) == ("greet@3", "Hi {{ name }}", ("name",))
    assert template.options == {"model": "claude-opus-5-5"}


def test_the_version_is_of_all_it_says() -> None:
    """Text, settings, system prompt and schema make the hash, and a name or another process do not change it."""
    base = Template("Hi", system="Be brief.").version
    others = [Template("Hi"), Template("Hi!", system="Be brief."), Template("Hi", system="Be brief.", max_tokens=5)]
    others.append(Template("Hi", system="Be brief.", schema={"type": "object"}))
    assert len({base, *(other.version for other in others)}) == 5
    assert Template("Hi", system="Be brief.", name="a").label == f"a@{base}"
    assert base == "aba14b4890"  # ledgers hold it; another would make all templates look new


def test_a_prompt_knows_its_template_in_another_process() -> None:
    """It can be pickled, as work that is sent to other processes is."""
    prompt = Template(FRONT + "Hi {{ name }}").render(name="Ann", reader="kids")
    again = pickle.loads(pickle.dumps(prompt))
    assert (again, again.label, again.options) == (prompt, prompt.label, prompt.options)


@pytest.mark.parametrize("text", ["---\nHi\n---\nAnn", "--- \n", "\n---\nmodel: x\n---\n", "---\nHi"])
def test_rules_in_a_prompt_are_text(text: str) -> None:
    """Three dashes are a line in Markdown, too."""
    assert Template(text).text == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("---\nmodle: x\n---\n", "cannot say 'modle'. Did you mean 'model'?"),
        ("---\napi_key: x\n---\n", "cannot say 'api_key'"),
        ("---\na: b: c\n---\n", "no YAML"),
        ("---\nmodel: !!python/object/apply:os.getcwd []\n---\n", "no YAML"),
        ("---\nversion: 1.10\n---\n", "put it in quotes"),
        ("---\nname: [a]\n---\n", "is a text"),
        ("---\nsystem: [a]\n---\n", "is a text"),
    ],
)
def test_wrong_front_matter(text: str, said: str) -> None:
    """What does not exist is told when the template is made, and YAML makes nothing but data."""
    with pytest.raises(InvalidRequest, match=said):
        Template(text + "Hi")


@pytest.mark.parametrize(
    ("values", "named", "said"),
    [
        ({}, {"nmae": "x"}, "has no {{ nmae }}. Did you mean 'name'?"),
        ({"nmae": "x"}, {}, "there is no value 'name'. Did you mean 'nmae'?"),
        ({"name": "x"}, {}, "there is no value 'reader'"),
    ],
)
def test_values_that_do_not_fit(values: dict[str, Any], named: dict[str, Any], said: str) -> None:
    """A missing value, of the system prompt, too, and one without a field are told before anything is sent."""
    with pytest.raises(InvalidRequest) as caught:
        Template(FRONT + "Hi {{ name }}").render(values, **named)
    assert said in str(caught.value)


def test_several_templates_in_one_prompt(sim: Simulator) -> None:
    """Whose settings would count? Nothing is sent."""
    with pytest.raises(InvalidRequest, match="one template"):
        llmnb.LLM()([Template("a").render(), Template("b").render()])
    assert sim.requests == []


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"]}


def test_a_schema_in_front_matter(sim: Simulator) -> None:
    """A JSON schema makes plain data, checked and put right; asked for a Reply, nothing is sent."""
    sim.script(Answer(text='{"n": 0}'), Answer(text='{"n": 4}'), Answer(text='{"n": 0}'))
    text = (
        "---\nschema: {type: object, properties: {n: {type: integer, minimum: 1}}, required: [n]}\n---\nCount {{ x }}"
    )
    llm, prompt = llmnb.LLM(), Template(text).render(x="them")
    assert llm.extract(prompt) == {"n": 4}
    assert "minimum" in str(sim.requests[1].body["messages"])
    with pytest.raises(ExtractionFailed, match="n: 0 is less than"):
        list(llm.stream(Template("Count", schema=SCHEMA)))
    with pytest.raises(InvalidRequest, match=r"llm\.extract"):
        llm(prompt)
    with pytest.raises(InvalidRequest, match="give the type"):
        llm.extract(Template("Count", schema="Counts"))
    assert len(sim.requests) == 3
