"""Asks a running dashboard for its page, over the wire a browser uses, and reads the figures off it."""

from __future__ import annotations

import time
from typing import Any

from llmnb.errors import LlmnbError


def metrics(url: str, *, query: str = "", within_s: float = 60) -> dict[str, tuple[str, str]]:
    """The figures of the page at `url`: by label, what is shown, and the exact value that its tooltip tells.

    Raises:
        LlmnbError: the page raised an exception, or was not drawn within `within_s` seconds.
    """
    from streamlit.proto.BackMsg_pb2 import BackMsg
    from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
    from websockets.sync.client import connect

    ask = BackMsg()
    ask.rerun_script.query_string = query
    found: dict[str, tuple[str, str]] = {}
    address = url.replace("http://", "ws://", 1) + "/_stcore/stream"
    end = time.monotonic() + within_s
    with connect(address, max_size=None, proxy=None, open_timeout=within_s) as socket:
        socket.send(ask.SerializeToString())
        while True:
            try:
                message = ForwardMsg.FromString(_bytes(socket.recv(max(0.0, end - time.monotonic()))))
            except TimeoutError:
                raise LlmnbError(f"the dashboard did not draw its page within {within_s:.0f} s") from None
            if message.WhichOneof("type") == "script_finished":
                return found
            _read(message.delta.new_element, found)


def _read(element: Any, found: dict[str, tuple[str, str]]) -> None:
    kind = element.WhichOneof("type")
    if kind == "metric":
        found[element.metric.label] = (element.metric.body, element.metric.help)
    elif kind == "exception":
        raise LlmnbError(f"the dashboard's page failed: {element.exception.type}: {element.exception.message}")


def _bytes(message: str | bytes) -> bytes:
    return message if isinstance(message, bytes) else message.encode()
