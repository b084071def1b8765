"""The file of a cassette: readable, the same for the same, whole after a kill, written by many at once."""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import signal
import textwrap
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmnb.cassette import Cut, Failure, Interaction, Request, Response, read
from llmnb.cassette.body import Event
from llmnb.cassette.interaction import encoded, header, lines_of
from llmnb.cassette.tape import Recorder, write
from llmnb.errors import CassetteError

from .. import processes

SIMPLE = Interaction(
    1,
    Request(
        "POST", "/v1/messages", {"model": "m", "max_tokens": 5}, {"anthropic-beta": "x"}, base_url="https://a.example"
    ),
    Response(200, {"request-id": "r"}, 3, b'{"type":"message"}'),
)
STREAM = Interaction(
    2,
    Request("POST", "/v1/messages", {"stream": True}),
    Response(200, {}, 3, events=(Event(3, b"event: ping\ndata: {}\n\n"), Event(9, b"data: x")), cut=Cut("closed")),
    cell="c1",
    run=4,
    instead=True,
    source="cache",
    key="k",
)

# The format -----------------------------------------------------------------------------------------------------------

EXPECTED = """\
{"format": "llmnb.cassette", "version": 1}
{"number": 1, "request": {"method": "POST", "url": "/v1/messages", "provider": "anthropic", \
"base_url": "https://a.example", "headers": {"anthropic-beta": "x"}, "body": {"max_tokens": 5, "model": "m"}}}
{"response": {"status": 200, "at_ms": 3, "headers": {"request-id": "r"}, "json": {"type": "message"}}}
{"number": 2, "request": {"method": "POST", "url": "/v1/messages", "provider": "anthropic", "base_url": "", \
"headers": {}, "body": {"stream": true}}, "cell": "c1", "run": 4, "instead": true, "source": "cache", "key": "k"}
{"response": {"status": 200, "at_ms": 3, "headers": {}, "cut": {"how": "closed"}, "events": 2}}
{"at_ms": 3, "event": "ping", "data": {}}
{"at_ms": 9, "text": "data: x"}
{"number": 3, "request": {"method": "GET", "url": "/v1/models", "provider": "anthropic", "base_url": "", \
"headers": {}, "body": null}}
{"failure": {"at_ms": 0, "error": "APITimeoutError", "message": "Request timed out."}}
"""


def test_the_file_is_this_text(tmp_path: Path) -> None:
    """Version 1, line by line: whoever changes it makes a version 2."""
    failed = Interaction(3, Request("GET", "/v1/models"), Failure("APITimeoutError", "Request timed out."))
    path = write(tmp_path / "a.jsonl", [SIMPLE, STREAM, failed])
    assert path.read_text() == EXPECTED
    assert read(path).interactions == (SIMPLE, STREAM, failed)
    assert [one.line for one in read(path).interactions] == [2, 4, 8]


TEXT = st.text(max_size=8)
JSON = st.recursive(st.none() | st.integers() | TEXT, lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner))
CUTS = st.none() | st.builds(Cut, TEXT, TEXT, TEXT).map(lambda cut: cut if cut.error else Cut(cut.how))
EVENTS = st.lists(st.builds(Event, st.integers(0, 9), st.binary(max_size=20))).map(tuple)
RESPONSES = st.builds(
    Response, st.integers(100, 599), st.dictionaries(TEXT, TEXT), st.integers(0, 9), st.binary(max_size=20), cut=CUTS
) | st.builds(Response, st.just(200), st.just({}), st.integers(0, 9), events=EVENTS, cut=CUTS)
HEADERS = st.dictionaries(TEXT.map(str.lower).filter(lambda name: name == name.lower()), TEXT)
REQUESTS = st.builds(Request, TEXT, TEXT, JSON, HEADERS, TEXT, TEXT)
INTERACTIONS = st.builds(
    Interaction, st.integers(0, 99), REQUESTS, RESPONSES | st.builds(Failure, TEXT, TEXT, st.integers(0, 9)),
    cell=st.none() | TEXT, run=st.none() | st.integers(0, 9), instead=st.booleans(),
    source=st.sampled_from(["live", "cache"]),
)  # fmt: skip


@given(st.lists(INTERACTIONS, max_size=4))
def test_whatever_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, tape: list[Interaction]) -> None:
    """Any interactions come back equal, and nothing is damaged."""
    path = tmp_path_factory.mktemp("tape") / "a.jsonl"
    found = read(write(path, tape))
    assert list(found.interactions) == tape
    assert found.damaged == {}


def test_half_of_a_surrogate_pair(tmp_path: Path) -> None:
    """Python text may hold what UTF-8 cannot; the line is written in ASCII then."""
    odd = Interaction(1, Request("POST", "/v1/messages", {"text": "\ud83d"}), SIMPLE.outcome)
    assert read(write(tmp_path / "a.jsonl", [odd])).interactions == (odd,)


def test_equal_requests_are_equal_lines() -> None:
    """The order in which a program names its parameters is no difference in a diff."""
    one, other = ({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1})
    lines = [encoded(lines_of(Interaction(1, Request("POST", "/", body), SIMPLE.outcome))) for body in (one, other)]
    assert lines[0] == lines[1]


# What may be wrong with a file ----------------------------------------------------------------------------------------


@given(st.integers(min_value=0))
def test_cut_off_anywhere_it_is_still_a_cassette(tmp_path_factory: pytest.TempPathFactory, where: int) -> None:
    """A kill in the middle of a write loses that interaction only, and the next recording goes on behind the others."""
    path = tmp_path_factory.mktemp("tape") / "a.jsonl"
    data = write(path, [SIMPLE, STREAM]).read_bytes()
    beginning = len(encoded([header()]))
    first = beginning + len(encoded(lines_of(SIMPLE)))
    where = beginning + where % (len(data) - beginning)
    path.write_bytes(data[:where])
    whole = (SIMPLE,) if where >= first - 1 else ()  # all but the last line's end is enough
    assert read(path).interactions == whole
    assert read(path).damaged == {}
    Recorder(path, anew=False).add(STREAM)
    kept = (SIMPLE,) if where >= first else ()
    assert read(path).interactions == (*kept, STREAM)


def test_damage_in_the_middle_is_told_by_its_line(tmp_path: Path) -> None:
    """A hand-edited line that is no JSON, one that is nothing, and a response that lacks events."""
    path = write(tmp_path / "a.jsonl", [SIMPLE, STREAM, SIMPLE])
    lines = path.read_text().splitlines()
    del lines[6]  # the second event
    path.write_text("\n".join([*lines[:2], '{"response": {', *lines[2:], '{"odd": 1}', "[]", ""]))
    found = read(path)
    assert found.interactions == (SIMPLE,)
    assert set(found.damaged) == {3, 4, 5, 10, 11}
    assert found.damaged[4] == "there is no request before it"
    assert found.damaged[5] == "its response is not whole"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "there is no cassette"),
        ("", "is no cassette of llmnb"),
        ('{"a": 1}\n', "is no cassette of llmnb"),
        ("name,age\n", "is no cassette of llmnb"),
        ('{"format": "llmnb.cassette", "version": 2}\n', "is of version 2, and this llmnb reads up to 1"),
        ('{"format": "llmnb.cassette"}\n', "is of version None"),
    ],
)
def test_what_is_no_cassette_is_refused(tmp_path: Path, content: str | None, says: str) -> None:
    """A missing file, another file, one of a newer llmnb."""
    path = tmp_path / "a.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(CassetteError, match=says) as caught:
        read(path)
    assert caught.value.path == str(path)


# Recording ------------------------------------------------------------------------------------------------------------


def test_anew_drops_the_old_ones_with_the_first_new_one(tmp_path: Path) -> None:
    """Not before, and not once more for another recorder that was made at the same time."""
    path = write(tmp_path / "a.jsonl", [SIMPLE, SIMPLE])
    first, second = Recorder(path, anew=True), Recorder(path, anew=True)
    assert len(read(path).interactions) == 2
    first.add(STREAM)
    second.add(SIMPLE)
    assert read(path).interactions == (STREAM, SIMPLE)


def test_many_threads_write_whole_interactions(tmp_path: Path) -> None:
    """Events of one response are never between those of another."""
    path = tmp_path / "a.jsonl"
    recorder = Recorder(path, anew=True)

    def work(start: int) -> None:
        for number in range(start, start + 25):
            recorder.add(Interaction(number, STREAM.request, STREAM.outcome))

    threads = [threading.Thread(target=work, args=(100 * index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorder.finish()
    found = read(path)
    assert found.damaged == {}
    assert sorted(one.number for one in found.interactions) == [100 * i + j for i in range(8) for j in range(25)]


def _in_child(path: Path, start: int) -> None:
    recorder = Recorder(path, anew=False)
    for number in range(start, start + 40):
        recorder.add(Interaction(number, STREAM.request, STREAM.outcome))


def test_several_processes_write_one_cassette(tmp_path: Path) -> None:
    """Two kernels that record into one file: every interaction is there, and whole."""
    path = tmp_path / "a.jsonl"
    spawned = multiprocessing.get_context("spawn")
    workers = [spawned.Process(target=_in_child, args=(path, start)) for start in (0, 100)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    found = read(path)
    assert found.damaged == {}
    assert len(found.interactions) == 80


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_goes_on_in_the_same_cassette(tmp_path: Path) -> None:
    """Also when the parent held the lock, and when neither had written yet: nothing is lost, nothing is twice."""
    path = write(tmp_path / "a.jsonl", [SIMPLE])
    recorder = Recorder(path, anew=True)
    with recorder._lock:
        child = os.fork()
        if not child:
            recorder.add(STREAM)
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    recorder.add(SIMPLE)
    assert read(path).interactions == (STREAM, SIMPLE)


def test_a_write_inside_of_a_write_waits_for_nobody(tmp_path: Path) -> None:
    """A finalizer may end a stream while this thread is writing: it leaves its interaction to the write under way."""
    recorder = Recorder(tmp_path / "a.jsonl", anew=True)
    with recorder._lock:
        recorder.add(STREAM)
    recorder.add(SIMPLE)
    assert read(tmp_path / "a.jsonl").interactions == (STREAM, SIMPLE)


def test_killed_while_recording_every_finished_answer_is_in_the_file(tmp_path: Path) -> None:
    """kill -9 right after an answer: what was answered was recorded."""
    script = """
        import os, signal, sys
        from pathlib import Path
        import llmnb
        from llmnb.testing import serve_simulator

        with serve_simulator() as simulator, simulator.client() as plain:
            llmnb.record(sys.argv[1])
            for number in range(5):
                llmnb.wrap(plain).messages.create(
                    model="claude-sonnet-5-5", max_tokens=9, messages=[{"role": "user", "content": str(number)}]
                )
            os.kill(os.getpid(), signal.SIGKILL)
    """
    path = tmp_path / "a.jsonl"
    done = processes.run(["-c", textwrap.dedent(script), str(path)])
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [one.request.body["messages"][0]["content"] for one in read(path).interactions] == list("01234")


def test_a_full_disk_leaves_no_torn_line(tmp_path: Path) -> None:
    """What cannot be written whole is not written; what was there stays, and later writes take up what waited."""
    path = write(tmp_path / "a.jsonl", [SIMPLE])
    recorder = Recorder(path, anew=False)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50, before[1]))
        with pytest.raises(OSError, match="File too large"):
            recorder.add(STREAM)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert read(path).interactions == (SIMPLE,)
    recorder.add(SIMPLE)
    assert read(path).interactions == (SIMPLE, STREAM, SIMPLE)


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    """Prompts and answers are private until somebody shares the file."""
    Recorder(tmp_path / "a.jsonl", anew=True).add(SIMPLE)
    for path in (tmp_path / "a.jsonl", write(tmp_path / "b.jsonl", [SIMPLE])):
        assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads((tmp_path / "a.jsonl").read_text().splitlines()[0]) == header()
