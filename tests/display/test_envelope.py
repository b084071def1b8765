"""Messages of a widget, as Jupyter reads them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from jupyter_client.session import Session

from llmnb.display.envelope import Envelope

CONTENT = {"n": 3, "ops": [["set", 2, 1, 'é “x” \\ 😀 "y"\n', 4], ["fix", 2]], "elapsed_s": 0.25}


class Socket:
    """Keeps what is sent through it."""

    def __init__(self) -> None:
        self.sent: list[list[bytes]] = []

    def send_multipart(self, parts: list[bytes], *arguments: object, **options: object) -> None:
        self.sent.append(parts)


def comm_of(session: Any) -> Any:
    """A comm of a kernel with this session."""
    kernel = SimpleNamespace(session=session, iopub_socket=Socket())
    return SimpleNamespace(kernel=kernel, comm_id='4"2', topic=b"comm-42")


def test_a_message_is_read_as_one_of_the_session() -> None:
    """Signed, and but for its number and its time the same message as ipykernel would have sent."""
    session = Session(key=b"secret", username='a "b"', metadata={"m": 1})
    comm = comm_of(session)
    envelope = Envelope.of(comm)
    assert envelope is not None
    assert envelope.send(CONTENT)
    data = {"comm_id": comm.comm_id, "data": {"method": "custom", "content": CONTENT}}
    cast(Any, session).send(comm.kernel.iopub_socket, "comm_msg", data, ident=comm.topic)
    read = [_read(parts) for parts in comm.kernel.iopub_socket.sent]
    numbers = [message["header"].pop("msg_id") for _, message in read]
    times = [message["header"].pop("date") for _, message in read]
    for _, message in read:
        del message["msg_id"]
    assert read[0] == read[1]
    assert numbers[0] != numbers[1]
    assert times[0] <= times[1]


@pytest.mark.parametrize("session", [None, object(), Session(packer="pickle"), Session(adapt_version=4)])
def test_where_messages_are_written_in_another_way_there_is_none(session: object) -> None:
    """A kernel of another make, a session that writes no JSON, or an older protocol."""
    assert Envelope.of(comm_of(session)) is None


def test_a_forked_child_sends_nothing() -> None:
    """What it may send is for the session to say, which knows the process it is of."""
    session = Session(key=b"secret")
    comm = comm_of(session)
    envelope = Envelope.of(comm)
    session.pid += 1
    assert envelope is not None
    assert not envelope.send(CONTENT)
    assert not comm.kernel.iopub_socket.sent


def _read(parts: list[bytes]) -> tuple[list[bytes], dict[str, Any]]:
    reader = Session(key=b"secret")
    idents, rest = reader.feed_identities(parts)
    return idents, dict(reader.deserialize(rest))
