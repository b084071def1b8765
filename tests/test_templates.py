"""Templates: `{{ name }}` is replaced, and not one character else."""

from __future__ import annotations

import keyword
from types import SimpleNamespace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmnb.errors import InvalidRequest
from llmnb.templates import fill, names

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
        ("{{ row.title }}", "{{ row.title }}: row is a dict without 'title'"),
        ("{{ row['titel'] }}", "row is a dict without 'titel'. Did you mean 'title'?"),
        ("{{ name[9] }}", "name is a str without '9'"),
        ("{{ row['title'].uper }}", "row['title'] is a str without 'uper'. Did you mean 'upper'?"),
    ],
)
def test_what_is_missing(template: str, said: str) -> None:
    """A missing name, attribute or index is told with the nearest there is."""
    with pytest.raises(InvalidRequest) as caught:
        fill(template, {"name": "World", "row": {"title": "Dune"}})
    assert said in str(caught.value)
