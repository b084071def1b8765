"""Python processes that start at once: forked from one that has the third-party packages imported.

A tenth of the tests start a process of their own, to kill it or to run the command line. What such a process would do
for its first second or two is import the SDK and pandas; nothing of llmnb is imported before the fork. Tests of what
is imported, or when, start a real interpreter.
"""

from __future__ import annotations

import array
import atexit
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

PRELOADED = (
    "anthropic",
    "anthropic.types.beta",
    "anthropic.resources.messages",
    "anthropic.resources.beta.messages",
    "anthropic.lib.streaming",
    "diskcache",
    "genai_prices.data",
    "httpcore2",
    "httpx2",
    "opentelemetry.propagate",
    "pandas",
    "pydantic_settings",
    "pytest",
    "pytest_asyncio.plugin",
    "rich.table",
    "tiktoken",
    "truststore",
    "typer",
)

# The process that is asked --------------------------------------------------------------------------------------------


class Python:
    """A running `python ARGUMENTS` (`-c CODE …` or `-m MODULE …`), with the part of `subprocess.Popen` that tests use.

    `stdin`, `stdout` and `stderr` are None (those of the test run), `subprocess.PIPE` or `subprocess.DEVNULL`.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
    ) -> None:
        self.returncode: int | None = None
        given = [_stream(0, stdin), _stream(1, stdout), _stream(2, stderr)]
        told, tells = os.pipe()
        request = {
            "arguments": list(arguments),
            "env": dict(os.environ if env is None else env),
            "cwd": str(cwd or Path.cwd()),
        }
        try:
            _zygote().ask(request, [*(theirs for theirs, _ in given), tells])
        finally:
            for theirs, _ in given:
                os.close(theirs)
            os.close(tells)
        self._told = open(told, "rb", buffering=0)  # noqa: SIM115 - closed when it is over
        self.pid = int(self._line())
        self.stdin, self.stdout, self.stderr = (_pipe(number, ours) for number, (_, ours) in enumerate(given))

    def _line(self) -> bytes:
        line = b""
        while not line.endswith(b"\n"):
            piece = self._told.read(1)
            assert piece, "the process that starts others is gone"
            line += piece
        return line

    def wait(self) -> int:
        """Until it is over; its exit code, negative when a signal ended it."""
        if self.returncode is None:
            self.returncode = int(self._line())
            self._told.close()
        return self.returncode

    def poll(self) -> int | None:
        """Its exit code, if it is over."""
        if self.returncode is None and self._has_ended():
            self.wait()
        return self.returncode

    def _has_ended(self) -> bool:
        asked = select.poll()  # select() knows no descriptor above 1,023
        asked.register(self._told, select.POLLIN)
        return bool(asked.poll(0))

    def send_signal(self, number: int) -> None:
        """Sends it a signal, if it is still there."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # it has ended, and that is not told yet
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it with SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def communicate(self, text: str = "") -> tuple[str, str]:
        """Writes `text` to it and reads to the end; what it printed, and what it said on standard error."""
        said = ["", ""]

        def read(place: int, pipe: IO[str] | None) -> None:
            if pipe is not None:
                with pipe:
                    said[place] = pipe.read()

        reading = threading.Thread(target=read, args=(1, self.stderr))
        reading.start()
        if self.stdin is not None:
            try:
                with self.stdin:
                    self.stdin.write(text)
            except BrokenPipeError:
                pass
        read(0, self.stdout)
        reading.join()
        self.wait()
        return said[0], said[1]


def run(
    arguments: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    text: str = "",
    check: bool = False,
) -> subprocess.CompletedProcess[str]:
    """`python ARGUMENTS`, run to its end with `text` as its input."""
    pipe = subprocess.PIPE
    process = Python(arguments, env=env, cwd=cwd, stdin=pipe, stdout=pipe, stderr=pipe)
    printed, said = process.communicate(text)
    done = subprocess.CompletedProcess(list(arguments), process.wait(), printed, said)
    assert done.returncode == 0 or not check, said
    return done


def _stream(number: int, wanted: int | None) -> tuple[int, int | None]:
    """The descriptor for the process, and ours of a pipe."""
    if wanted is None:
        return os.dup(number), None
    if wanted == subprocess.DEVNULL:
        return os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY), None
    reads, writes = os.pipe()
    return (reads, writes) if number == 0 else (writes, reads)


def _pipe(number: int, ours: int | None) -> IO[str] | None:
    return None if ours is None else open(ours, "r" if number else "w")


class _Zygote:
    """The process that has everything imported; it goes when the test run does."""

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair()
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("LLMNB_", "ANTHROPIC_"))}
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env=plain | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        theirs.close()
        self._lock = threading.Lock()
        atexit.register(self._end)

    def _end(self) -> None:
        self._ours.close()
        self._process.wait()

    def ask(self, request: dict[str, Any], descriptors: list[int]) -> None:
        """Have it start a process that owns copies of the descriptors."""
        body = json.dumps(request).encode()
        with self._lock:
            self._ours.sendmsg(
                [len(body).to_bytes(4)], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            )
            self._ours.sendall(body)


_running: list[_Zygote] = []


def _zygote() -> _Zygote:
    if not _running:
        _running.append(_Zygote())
    return _running[0]


# The process that starts them -----------------------------------------------------------------------------------------


def _serve(asked: socket.socket) -> None:
    """Forks for every request, until nobody asks any more."""
    import gc
    import importlib
    import warnings
    from functools import partial

    warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
    for name in PRELOADED:
        importlib.import_module(name)
    certificates = importlib.import_module("httpcore2")
    trusted = certificates.default_ssl_context()  # read once: a process that makes a client would for 22 ms
    certificates.default_ssl_context = partial(_given, trusted)
    gc.collect()
    gc.freeze()  # or the first collection of each child would copy all that is shared
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in the test run
    while True:
        head, descriptors, _, _ = socket.recv_fds(asked, 4, 4)
        if not head:
            return
        body = asked.recv(int.from_bytes(head), socket.MSG_WAITALL)
        if os.fork() == 0:  # one that waits, so that this one need not
            asked.close()
            _start(json.loads(body), descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)


def _given(value: Any, **_: Any) -> Any:
    return value


def _start(request: dict[str, Any], descriptors: list[int]) -> None:
    *streams, tells = descriptors
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(tells)
        _become(request, streams)
        return
    for descriptor in streams:
        os.close(descriptor)
    os.write(tells, f"{pid}\n".encode())
    _, status = os.waitpid(pid, 0)
    os.write(tells, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(request: dict[str, Any], streams: list[int]) -> None:
    """The rest of the life of a new process."""
    import io
    import runpy
    import types

    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(
        io.FileIO(2, "w", closefd=False), encoding="utf-8", errors="backslashreplace", write_through=True
    )
    os.environ.clear()
    os.environ.update(request["env"])
    os.chdir(request["cwd"])
    kind, what, *rest = request["arguments"]
    sys.path[0] = request["cwd"]
    sys.path[1:1] = [folder for folder in request["env"].get("PYTHONPATH", "").split(os.pathsep) if folder]
    program: dict[str, Any] = {}
    code = 0
    try:
        if kind == "-m":
            sys.argv = [what, *rest]
            program = runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            assert kind == "-c"
            sys.argv = ["-c", *rest]
            sys.modules["__main__"] = module = types.ModuleType("__main__")
            program = vars(module)
            exec(compile(what, "<string>", "exec"), program)
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise  # Python itself says it
        code = end.code or 0
    _end(program, code)


def _end(program: dict[str, Any], code: int) -> None:
    """The end of a program, without taking apart what it was forked with: that would be 130 ms of CPU."""
    threading._shutdown()  # pyright: ignore[reportAttributeAccessIssue]
    atexit._run_exitfuncs()
    program.clear()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except OSError:  # nobody reads it
        code = 120
    os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
