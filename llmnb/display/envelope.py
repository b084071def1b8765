"""What stands around a widget's messages on their way to the page: made once for all the messages of an answer.

ipykernel makes it anew for each. A live view sends one whenever the kernel has just slept, so that nothing is in the
processor's cache: what is made and looked at then costs ten times what it costs in a loop.
"""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Any

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode
_PACKERS = ("json", "orjson")
"""Those of jupyter_client that write JSON."""


class Envelope:
    """The messages of one comm, without the request they belong to, which would be half of their bytes."""

    def __init__(self, comm: Any) -> None:
        self._kernel = comm.kernel
        self._session = session = comm.kernel.session
        header = session.msg_header("comm_msg")
        same = {name: header[name] for name in ("msg_type", "username", "session", "version")}
        self._header = _encode(same).removeprefix("{")
        self._content = f'{{"comm_id":{_encode(comm.comm_id)},"data":{{"method":"custom","content":'
        self._metadata = session.pack(session.metadata)
        self._topic = comm.topic

    @classmethod
    def of(cls, comm: Any) -> Envelope | None:
        """That of a comm of ipykernel; None where messages are written in another way than it does by itself."""
        from jupyter_client.session import Session

        kernel = getattr(comm, "kernel", None)
        session = getattr(kernel, "session", None)
        if type(session) is not Session or not hasattr(kernel, "iopub_socket"):
            return None
        is_plain = session.packer in _PACKERS and not session.adapt_version and not session.debug
        return cls(comm) if is_plain else None

    def send(self, content: object) -> bool:
        """Send it as a custom message of the widget; whether it could be."""
        session = self._session
        if os.getpid() != session.pid:  # a forked child: what it may send is the session's to say
            return False
        now = datetime.now(UTC).isoformat()
        header = f'{{"msg_id":"{session.msg_id}","date":"{now}",{self._header}'
        body = f"{self._content}{_encode(content)}}}}}"
        parts = [header.encode(), b"{}", self._metadata, body.encode("utf-8", "surrogateescape")]
        session.send_raw(self._kernel.iopub_socket, parts, ident=self._topic)
        return True
