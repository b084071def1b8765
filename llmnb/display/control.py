"""Stop and resync while the cell blocks: a comm target of our own, whose messages a subshell of the kernel handles.

The front end opens a comm on `TARGET` with `{"stop": answer id}` or `{"resync": answer id}` and is sent `{"ack": …}`.
Handlers run in a thread that is not the cell's: they set what has to be set and send the ack, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from llmnb.display.where import running_shell

TARGET = "llmnb.control"


@dataclass(frozen=True, slots=True)
class Controls:
    """What a front end may ask of a running answer; both are called from any thread."""

    stop: Callable[[], None]
    resync: Callable[[], None]


_running: dict[str, Controls] = {}
_stopped: set[str] = set()  # answers that were told already: the same click can come by several ways


def register(answer_id: str, controls: Controls) -> None:
    """A view of `answer_id` is live; `forget` it when it is over."""
    _running[answer_id] = controls
    _listen()


def forget(answer_id: str) -> None:
    """Nothing can be asked of this answer any more."""
    _running.pop(answer_id, None)
    _stopped.discard(answer_id)


def running() -> int:
    """How many answers are live."""
    return len(_running)


def obey(request: object) -> bool:
    """Do what a message from a front end asks; whether there was something to do."""
    asked: dict[str, object] = cast(Any, request) if isinstance(request, dict) else {}
    answer_id = str(asked.get("stop") or asked.get("resync"))
    controls = _running.get(answer_id)
    if controls is None:
        return False
    if "resync" in asked:
        controls.resync()
    elif answer_id not in _stopped:
        _stopped.add(answer_id)
        controls.stop()
    return True


def can_be_asked() -> bool:
    """Whether a front end's message is handled while the cell blocks: ipykernel 7 does it in a subshell."""
    shell = running_shell()
    return bool(getattr(getattr(shell, "kernel", None), "_supports_kernel_subshells", False))


def _listen() -> None:
    import comm

    comm.get_comm_manager().register_target(TARGET, _opened)


def _opened(comm: Any, message: dict[str, Any]) -> None:
    done = obey(message["content"]["data"])
    comm.send({"ack": done})
    comm.close()


def unpin_replies(comm: Any) -> None:
    """Let messages to `comm` go to the subshell they are addressed to.

    ipykernel 7.4 sends them to the shell that last published on the comm instead, which is the one the cell blocks.
    """
    if hasattr(comm, "_reply_subshell_for"):
        comm._reply_subshell_for = _addressed


def _addressed(data: object, default: object) -> object:
    return default
