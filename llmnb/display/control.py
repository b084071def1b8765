"""What a front end asks while the cell blocks: a comm target of our own, whose messages a subshell handles.

The front end opens a comm on `TARGET` with `{"stop": answer id}`, `{"resync": answer id}`, `{"keep": answer id}` or, a
person's word on a tool call, `{"decide": answer id, "call": id, "yes": bool}`, and is sent `{"ack": …}`. Handlers run
in a thread that is not the cell's: they set what has to be set and send the ack, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from llmnb.display import latecomers
from llmnb.display.where import running_shell

TARGET = "llmnb.control"


@dataclass(frozen=True, slots=True)
class Controls:
    """What a front end may ask of an answer, from any thread: to stop it, to send all of it, or the form to keep.

    `decide` is told whether a person lets a tool call run.
    """

    stop: Callable[[], None]
    resync: Callable[[], None]
    keep: Callable[[], None]
    decide: Callable[[str, bool], None] = lambda call_id, yes: None


def nothing() -> None:
    """There is nothing to do."""


_answers: dict[str, Controls] = {}
_stopped: set[str] = set()  # answers that were told already: the same click can come by several ways


def register(answer_id: str, controls: Controls) -> None:
    """What can be asked of `answer_id` from now on; `forget` it when its view is gone."""
    _answers[answer_id] = controls
    _listen()


def forget(answer_id: str) -> None:
    """Nothing can be asked of this answer any more."""
    _answers.pop(answer_id, None)
    _stopped.discard(answer_id)


def known() -> int:
    """Of how many answers something can be asked."""
    return len(_answers)


def obey(request: object) -> bool:
    """Do what a message from a front end asks; whether there was something to do."""
    asked: dict[str, object] = cast(Any, request) if isinstance(request, dict) else {}
    wish = next((name for name in ("stop", "resync", "keep", "decide") if name in asked), "")
    answer_id = str(asked.get(wish))
    controls = _answers.get(answer_id)
    if controls is None:
        return False
    if wish == "decide":
        controls.decide(str(asked.get("call")), asked.get("yes") is True)
    elif wish != "stop":
        (controls.resync if wish == "resync" else controls.keep)()
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
    latecomers.listen(TARGET, _opened)


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
