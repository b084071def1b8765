"""No secret reaches a cassette: where it stands does not matter, nor how it is spelled."""

from __future__ import annotations

import base64
import itertools
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from llmnb.cassette.body import Event
from llmnb.cassette.interaction import Cut, Failure, Interaction, Request, Response, encoded, lines_of
from llmnb.cassette.redaction import REDACTED, SECRET_NAMES, Redaction
from llmnb.cassette.telling import told, told_response, write

# letters that JSON escapes, an address encodes, and a pattern takes for something else
LETTERS = "abcXYZ019-_.~+/=%&?#\"\\'\n\té😀{}[]()*|^$ "
SECRETS = st.text(alphabet=LETTERS, min_size=4, max_size=30).map(lambda text: f"s3cR3t{text}")
TEXTS = st.text(alphabet=LETTERS, max_size=12)
NAMES = st.text(alphabet="abcdefgh_", min_size=1, max_size=8).map(lambda name: f"f_{name}")


def holding(secret: str) -> st.SearchStrategy[Any]:
    """JSON with the secret somewhere in it: as a value, in a text, in a key, in JSON inside of a text."""
    text = st.builds("{}{}{}".format, TEXTS, st.just(secret), TEXTS)
    inside = text.map(lambda told: json.dumps({"inner": told}))
    leaf = text | inside | inside.map(json.dumps) | text.map(lambda told: f"https://x/?q={quote(told)}")
    around = st.recursive(
        leaf,
        lambda inner: (
            st.dictionaries(NAMES, inner, min_size=1, max_size=3)
            | st.lists(inner | TEXTS, min_size=1, max_size=3)
            | st.builds(lambda name, value: {name: value}, text, inner)
        ),
        max_leaves=5,
    )
    return around.map(lambda value: {"messages": [{"role": "user", "content": value}]})


def file_of(request: Request, outcome: Response | Failure, redaction: Redaction) -> bytes:
    """What the file would hold of them."""
    return encoded(lines_of(told(Interaction(1, request, outcome), redaction)))


def everything_said(data: bytes) -> str:
    """The file as it is, and every text in it as a reader of JSON sees it, joined."""
    return data.decode() + "\n".join(_texts([json.loads(line) for line in data.splitlines()]))


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for name, inner in value.items() for text in [name, *_texts(inner)]]
    if isinstance(value, list):
        return [text for inner in value for text in _texts(inner)]
    return [str(value)]


def assert_unsaid(secret: str, data: bytes) -> None:
    """The secret is not in it: not as it is, and not as JSON or an address would spell it."""
    said = everything_said(data)
    for spelling in (secret, json.dumps(secret)[1:-1], quote(secret), quote(secret, safe=""), quote_plus(secret)):
        assert spelling not in said


@given(st.data())
def test_a_known_secret_is_nowhere_in_the_file(data: st.DataObject) -> None:
    """In the body, in the address, in headers, in a JSON response, in the text of an error: known once, told never."""
    secret = data.draw(SECRETS)
    redaction = Redaction(environ={})
    redaction.learn_headers({"Authorization": f"Bearer {secret}"})
    request = Request(
        "POST",
        f"/v1/messages?f_a={quote(secret)}",
        data.draw(holding(secret)),
        headers={"anthropic-beta": secret},
        base_url="https://gateway.example/" + quote(secret),
    )
    body = json.dumps(data.draw(holding(secret)), ensure_ascii=data.draw(st.booleans())).encode()
    response = Response(400, {"x-echo": secret, "request-id": "r1"}, 5, body)
    assert_unsaid(secret, file_of(request, response, redaction))
    plain = Response(500, {}, 5, f"<html>{secret}</html>".encode(), cut=Cut("failed", "ReadError", f"after {secret}"))
    assert_unsaid(secret, file_of(request, plain, redaction))
    assert_unsaid(secret, file_of(request, Failure("APIConnectionError", f"cannot reach {secret}"), redaction))


@given(SECRETS, st.data())
def test_a_secret_that_a_stream_says_piece_by_piece(secret: str, data: st.DataObject) -> None:
    """However the deltas cut it, what they say together does not hold it, and they go on saying the rest."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(secret)), max_size=4)))
    ends = [0, *cuts, len(secret)]
    pieces = ["Your key is ", *(secret[a:b] for a, b in itertools.pairwise(ends)), ", keep it."]
    events = tuple(
        Event(number, f"event: content_block_delta\ndata: {json.dumps(_delta(piece))}\n\n".encode())
        for number, piece in enumerate(pieces)
    )
    redaction = Redaction(environ={})
    redaction.learn(secret)
    clean = told_response(Response(200, {}, 0, events=events), redaction)
    assert clean.events is not None
    deltas = [json.loads(event.data.split(b"data: ")[1])["delta"]["text"] for event in clean.events]
    assert "".join(deltas) == f"Your key is {REDACTED}, keep it."
    assert [event.at_ms for event in clean.events] == [event.at_ms for event in events]


def _delta(text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


@given(SECRETS, st.sampled_from(sorted(SECRET_NAMES)), st.data())
def test_a_field_with_a_secrets_name(secret: str, name: str, data: st.DataObject) -> None:
    """Its value is replaced in body, address and headers, in any case and with dashes, and wherever it is repeated."""
    spelled = data.draw(st.sampled_from([name, name.upper(), name.replace("_", "-")]))
    redaction = Redaction(environ={})
    body = {"mcp_servers": [{"url": "https://m.example", spelled: secret}], "messages": data.draw(holding(secret))}
    redaction.learn_named(body)
    request = Request("POST", f"/v1/x?{quote(spelled)}={quote(secret)}", body, headers={spelled: secret})
    response = Response(200, {spelled: secret}, 0, json.dumps({"echo": {spelled: secret}}).encode())
    assert_unsaid(secret, file_of(request, response, redaction))


@given(st.dictionaries(NAMES, st.integers(10**8, 10**12) | SECRETS, min_size=1), TEXTS)
def test_fields_that_the_user_named(fields: dict[str, Any], text: str) -> None:
    """Their values are gone at any depth, numbers too, and wherever they are repeated; other fields stay."""
    redaction = Redaction(fields, environ={})
    said = " ".join(map(str, fields.values()))
    body = {"f": {"g": [{**fields, "kept": text}]}, "prompt": f"the patient {said}"}
    redaction.learn_named(body)
    assume(redaction.text(text) == text)
    data = file_of(Request("POST", "/v1/x", body), Response(200, {}, 0, json.dumps(body).encode()), redaction)
    for value in fields.values():
        assert_unsaid(str(value), data)
    lines = [json.loads(line) for line in data.splitlines()]
    assert lines[0]["request"]["body"]["f"]["g"][0] == {**dict.fromkeys(fields, REDACTED), "kept": text}


@pytest.mark.parametrize(
    "text",
    [
        "my key is sk-ant-api03-abcDEF_123-xyz",
        "curl -H 'Authorization: Bearer eyJhbGciOiJIUzI1NiJ9.e30.abc'",
    ],
)
def test_what_looks_like_a_key_is_replaced_unknown(text: str) -> None:
    """A key in a prompt or an answer, though nobody told us about it."""
    told = Redaction(environ={}).text(text)
    assert REDACTED in told
    assert not re.search(r"sk-ant-\w|eyJ", told)


def test_ordinary_text_stays_as_it_is() -> None:
    """Tokens as a word, a schema with a field called password, a bearer of news."""
    text = "The bearer of news counts tokens; sk-ant is a prefix, and password a word."
    schema = {"properties": {"password": {"type": "string"}}, "max_tokens": 5, "cookie": True}
    assert Redaction(environ={}).text(text) == text
    assert Redaction(environ={}).json(schema) == schema


def test_secrets_of_the_environment_are_known() -> None:
    """Values of variables that are named like secrets and look like some; a plain word is none."""
    environ = {
        "OPENAI_API_KEY": "sk-proj-0123456789abcdef",
        "STAGE_TOKEN": "production",
        "HOME": "/home/u1234567890123",
    }
    redaction = Redaction(environ=environ)
    assert redaction.text("sk-proj-0123456789abcdef in production at /home/u1234567890123") == (
        f"{REDACTED} in production at /home/u1234567890123"
    )


def test_parts_of_headers_are_known_by_themselves() -> None:
    """The password of Basic, each cookie, the token without its scheme."""
    redaction = Redaction(environ={})
    basic = base64.b64encode(b"ann:correct-horse").decode()
    redaction.learn_headers({"authorization": f"Basic {basic}", "cookie": "a=session-0123; b=other-4567"})
    assert redaction.text("correct-horse session-0123 other-4567") == " ".join([REDACTED] * 3)


def test_credentials_in_an_address() -> None:
    """A gateway's address with a name and a password in it, and a key as parameter."""
    told = Redaction(environ={}).url("https://ann:pass@gateway.example/v1?api_key=abc&beta=true")
    assert told == f"https://{REDACTED}@gateway.example/v1?api_key={REDACTED}&beta=true"


def test_patterns_of_the_users_own() -> None:
    """A compiled pattern is replaced in every text, and across the pieces of a stream."""
    redaction = Redaction(["ssn", re.compile(r"\d{3}-\d{4}"), re.compile("x*")], environ={})
    assert redaction.text("call 555-1234 now") == f"call {REDACTED} now"
    assert redaction.pieces(["call 55", "5-12", "34 now"]) == [f"call {REDACTED}", "", " now"]


def test_a_tools_input_is_not_changed_by_a_name() -> None:
    """What the model wrote for a tool goes to the tool in a replay: only names of the user's own are replaced in it."""
    body = {"content": [{"type": "tool_use", "input": {"password": "hunter2", "ssn": "123"}}]}
    redaction = Redaction("ssn", environ={})
    told = json.loads(redaction.body(json.dumps(body).encode()))
    assert told["content"][0]["input"] == {"password": "hunter2", "ssn": REDACTED}


@given(st.binary())
def test_without_secrets_a_body_is_the_same_to_the_byte(body: bytes) -> None:
    """Redaction leaves alone what it has nothing to say about."""
    assert Redaction(environ={}).body(body) == body


def test_secrets_in_binary() -> None:
    """A secret between bytes that are no text."""
    redaction = Redaction(environ={})
    redaction.learn("pässword-1")
    assert redaction.body(b"\xff\x00" + "pässword-1".encode() + b"\xfe") == b"\xff\x00[redacted]\xfe"


def test_a_cassette_that_a_program_writes_is_redacted_too(tmp_path: Path) -> None:
    """`llmnb.cassette.write`, as an export of the cache uses it: no key, no named field, no picture."""
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD" * 100}}
    body = {"messages": [{"role": "user", "content": [picture]}], "patient_id": "patient-0815"}
    answer = Response(200, {}, 0, b'{"text":"patient-0815 has sk-ant-api03-abcdefgh"}')
    path = write(
        tmp_path / "a.jsonl", [Interaction(1, Request("POST", "/v1/messages", body), answer)], redact=["patient_id"]
    )
    text = path.read_text()
    for secret in ("patient-0815", "sk-ant", "QUJDQUJD"):
        assert secret not in text
    assert '"data": "sha256 ' in text
