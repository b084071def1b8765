"""A real kernel without a browser, and what a front end does with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

Messages = list[dict[str, Any]]


@dataclass(frozen=True)
class Kernel:
    """A running kernel of one ipykernel, and a client of it."""

    version: str
    manager: KernelManager
    client: BlockingKernelClient

    def run(self, code: str) -> Messages:
        """Execute a cell; all iopub messages it caused, and its reply.

        A kernel refuses what arrives in the moment after a cell failed, so that the cells queued behind it do not run;
        nobody who reads the error first is as quick as that.
        """
        messages = self.finish(self.client.execute(code))
        while messages[-1]["content"]["status"] == "aborted":
            messages = self.finish(self.client.execute(code))
        return messages

    def finish(self, message_id: str) -> Messages:
        """The iopub messages up to the end of a request, whose reply has come, too, and is the last of them.

        ipykernel 7.0 to 7.3 lose a request that arrives while they send a reply (their pull request 1529), so what
        does not wait for the reply hangs once in a hundred times.
        """
        found: Messages = []
        while not found or not _is_idle(found[-1], message_id):
            found.append(self.client.get_iopub_msg(timeout=30))
        reply: dict[str, Any] = {"parent_header": {}}
        while reply["parent_header"].get("msg_id") != message_id:
            reply = self.client.get_shell_msg(timeout=30)
        return [*found, reply]

    def shown(self) -> str:
        """Wait until the next view of a running cell is there; its answer's id."""
        answer_id = ""
        while True:
            message = self.client.get_iopub_msg(timeout=30)
            answer_id = message["content"].get("data", {}).get("state", {}).get("answer_id", answer_id)
            if message["msg_type"] == "display_data":
                return answer_id

    def until(self, text: str) -> None:
        """Wait until something that holds `text` is sent."""
        while text not in json.dumps(self.client.get_iopub_msg(timeout=30)["content"]):
            pass

    def has_subshells(self) -> bool:
        """Whether it can serve a message while a cell blocks."""
        info = self.client.kernel_info(reply=True, timeout=30)["content"]
        return "kernel subshells" in info.get("supported_features", [])

    def subshell(self) -> str:
        """A new subshell."""
        self.client.control_channel.send(self.client.session.msg("create_subshell_request", {}))
        return self.client.get_control_msg(timeout=30)["content"]["subshell_id"]

    def open_comm(
        self,
        comm_id: str,
        data: dict[str, Any],
        subshell: str | None = None,
        *,
        target: str = "llmnb.control",
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Open a comm, as the front end does."""
        content = {"comm_id": comm_id, "target_name": target, "data": data}
        self._send("comm_open", content, subshell, metadata)

    def send_comm(self, comm_id: str, data: dict[str, Any], subshell: str | None = None) -> None:
        """Send a message on a comm that is there."""
        self._send("comm_msg", {"comm_id": comm_id, "data": data}, subshell)

    def _send(
        self, kind: str, content: dict[str, Any], subshell: str | None, metadata: dict[str, Any] | None = None
    ) -> None:
        message = self.client.session.msg(kind, content, metadata=metadata)
        if subshell is not None:
            message["header"]["subshell_id"] = subshell
        self.client.shell_channel.send(message)


def _is_idle(message: dict[str, Any], message_id: str) -> bool:
    mine = message["parent_header"].get("msg_id") == message_id
    return mine and message["content"].get("execution_state") == "idle"


def output(messages: Messages) -> str:
    """What a cell printed; it must not have failed."""
    assert not [m["content"] for m in messages if m["msg_type"] == "error"]
    return "".join(m["content"]["text"] for m in messages if m["msg_type"] == "stream")
