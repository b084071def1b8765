"""The live view where it is used: a real JupyterLab in a real Chromium, both cut off from anything but this machine.

A long answer comes in 3,000 pieces over 30 s, with thinking, a tool card, tables, coloured code and math. Counted are
the bytes of the page's own WebSocket, the browser's tasks, the kernel's CPU, and the time until a token is drawn. The
way of the peers, `update_display(Markdown(all so far))`, is measured beside it.

A task is given in time on the wall, which has a target, and in the CPU it took: on a busy machine the first is longer.
Each play has a browser of its own, just started. Such a browser "reduces memory" once, 20 to 30 s after JupyterLab was
loaded, at the next moment with little to do; how long that holds a page up which nothing is shown in, and one that is
only printed to, is measured beside it. Collections that garbage asks for are counted to the task they come in.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.notebook_page import NotebookPage, Task, notebook_pages

CHARS, DELTAS, SECONDS = 45_000, 3_000, 30
TIMES = 3
"""The answer is played so often, each time in a page of its own: what the browser does besides differs."""
OPEN_S = 40
"""A page that has been open for so long has reduced its memory."""
STREAM = f"play({CHARS}, {DELTAS}, {SECONDS})"
Rows = Iterator[dict[str, object]]


def run() -> list[dict[str, object]]:
    """The measurements."""
    with notebook_pages() as page:
        return [*_pages(page), *_stream(page), *_stops(page), *_large(page), *_many(page), *_peers(page)]


def _pages(page: NotebookPage) -> Rows:
    """What tasks there are without a live view."""
    cells = {
        "JupyterLab left alone": f"do_nothing({SECONDS})",
        "JupyterLab printing": f"print_text({CHARS}, {SECONDS * 16}, {SECONDS})",
        "JupyterLab printing, then left alone": f"print_text({CHARS}, {SECONDS // 2 * 16}, {SECONDS // 2});"
        f" do_nothing({SECONDS // 2})",
    }
    for name, cell in cells.items():
        yield from _tasks(f"{name}, longest browser task", page.play(cell)["tasks"], None)


def _stream(page: NotebookPage) -> Rows:
    for time in range(1, TIMES + 2):
        is_open = time > TIMES
        name = f"live view {time}{f', page open for {OPEN_S} s' if is_open else ''}"
        seen = page.play(STREAM, open_for_s=OPEN_S if is_open else 0)
        yield _row(f"{name}, bytes on the wire ÷ text", seen["bytes"] / CHARS, "×", 16)
        yield _row(f"{name}, messages", seen["messages"], "")
        yield from _longest(name, seen, 50)
        yield _row(f"{name}, kernel CPU", seen["cpu_s"], "s", 1.2)
        yield _row("    of which the thread that feeds it, a sleep for each piece", seen["feed_cpu_s"], "s")
        yield _row(f"{name}, first token on screen", (seen["first"] - seen["first_sent"]) * 1e3, "ms", 100)
        yield _row(f"{name}, last token on screen", (seen["last"] - seen["last_sent"]) * 1e3, "ms", 150)


def _stops(page: NotebookPage) -> Rows:
    for kernel, target in (("installed", 400), ("6.31.0", 800)):
        seen = page.play(STREAM, kernel=kernel, stop_after_ms=3_000)
        name = f"Stop to idle cell, ipykernel {seen['ipykernel']}"
        yield _row(name, (seen["idle"] - seen["clicked"]) * 1e3, "ms", target)


def _large(page: NotebookPage) -> Rows:
    yield from _longest("200 kB answer", page.play("play(200_000, 2_000, 20)"), 100)
    yield from _longest("60 kB code block", page.play("play_code(60_000, 1_500, 15)"), 100)
    yield from _longest("60 kB list", page.play("play_list(60_000, 1_500, 15)"), 100)


def _many(page: NotebookPage) -> Rows:
    for name, cell in (("threads", "play_many"), ("tasks", "await play_tasks")):
        seen = page.play(f"{cell}(8, 12_000, 800, 10)")
        rates = seen["rates"]
        assert len(rates) == 8, f"{len(rates)} of 8 views were seen"
        yield _row(f"8 streams in {name} of a cell, frames a second of the slowest", min(rates), "/s", 10, most=False)


def _peers(page: NotebookPage) -> Rows:
    name = "update_display(Markdown) at 10/s"
    seen = page.play(STREAM.replace(")", ", peers=True)"), patience_s=180)
    yield _row(f"{name}, bytes on the wire ÷ text", seen["bytes"] / CHARS, "×")
    yield _row(f"{name}, longest browser task", max(task.ms for task in seen["tasks"]), "ms")
    yield _row(f"{name}, sum of tasks over 50 ms", sum(task.ms for task in seen["tasks"] if task.ms > 50), "ms")
    yield _row(f"{name}, kernel CPU", seen["cpu_s"], "s")
    yield _row(f"{name}, last token on screen", (seen["last"] - seen["last_sent"]) * 1e3, "ms")


def _longest(name: str, seen: dict[str, Any], target: float) -> Rows:
    """The longest tasks before and after the view is closed, which is half a second after the last piece."""
    closed_at_s = seen["last_sent"] + 0.45
    whens = {"while it streams": False, "when the bundle takes its place": True}
    for when, after in whens.items():
        tasks: list[Task] = [task for task in seen["tasks"] if (task.at_s >= closed_at_s) == after]
        yield from _tasks(f"{name}, longest browser task {when}", tasks, target)


def _tasks(name: str, tasks: list[Task], target: float | None) -> Rows:
    """The longest task, without what the browser's reducing of memory held it up; then that, if it was seen."""
    longest = max(tasks, key=lambda task: task.own_ms)
    yield _row(name, longest.own_ms, "ms", target)
    yield _row("    of which CPU", longest.cpu_ms - longest.tidying_cpu_ms, "ms")
    held_up = max(tasks, key=lambda task: task.tidying_ms)
    if held_up.tidying_ms:
        yield _row("    the longest of all, held up by the browser's reducing of memory", held_up.ms, "ms")
        yield _row("    of which CPU, for that", held_up.tidying_cpu_ms, "ms")


def _row(name: str, value: float, unit: str, target: float | None = None, *, most: bool = True) -> dict[str, object]:
    ok = target is None or (value <= target if most else value >= target)
    return {"name": name, "value": value, "unit": unit, "target": target, "ok": ok}
