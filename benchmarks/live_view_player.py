# The first cell of the benchmark's notebooks: feeds views as an answer would, and prints what the kernel saw as JSON.
import asyncio
import json
import threading
import time

import ipykernel

from llmnb import display
from llmnb.asking.mailbox import Mailbox
from llmnb.events import Done, Text, Thinking, ToolCall, ToolResult
from llmnb.records import Usage

WORDS = "a write-ahead log appends each change before it touches the table so that readers never wait for writers "
CODE = '''def checkpoint(log, table, *, limit=1_000):
    """Copy committed pages back."""
    for number, page in enumerate(log.pages()):
        if number >= limit and not log.busy:
            break  # the rest next time
        table[page.key] = page.value + 1
'''
SECTION = f"""## Section {{n}}

{WORDS * 3}at rate $p_{{{{i}}}}$, as `wal_checkpoint` says:

{WORDS * 2}

- {WORDS}
- [a link](https://www.sqlite.org/wal.html) and {WORDS}
- {WORDS}

```python
{CODE.replace("1_000", "{n}_000")}```

| mode | readers | writers | note |
|---|---|---|---|
| delete | wait | one | {{n}} rows |
| wal | never wait | one | checkpoint |
| off | never wait | one | no safety |

$$\\sum_{{{{k=0}}}}^{{{{n}}}} \\frac{{{{1}}}}{{{{2^k}}}} = 2$$

"""


def text_of(chars):
    """Markdown with everything in it; its only emphasis is at the start, its only strong text at the end."""
    sections, size = [], 0
    while size < chars:
        sections.append(SECTION.format(n=len(sections) + 1))
        size += len(sections[-1])
    return "*Begin* here. " + "".join(sections)[: chars - 30].rsplit("\n\n", 1)[0] + "\n\nThe **end**.\n"


def code_of(chars):
    return "*Begin* here.\n\n```python\n" + (CODE * (chars // len(CODE) + 1))[:chars] + "\n```\n\nThe **end**.\n"


def list_of(chars):
    lines, size = [], 0
    while size < chars:
        lines.append(f"- item `number` {len(lines) + 1}: {WORDS}\n")
        size += len(lines[-1])
    return "*Begin* here.\n\n" + "".join(lines) + "\nThe **end**.\n"


def cut(text, pieces):
    size = len(text) / pieces
    return [text[round(n * size) : round((n + 1) * size)] for n in range(pieces)]


class Peers:
    """What other libraries do: all of the text so far as Markdown, here at most ten times a second."""

    def open(self, model, stop):
        from IPython.display import Markdown, display

        self.text, self.due, self.markdown = "", 0.0, Markdown
        self.handle = display(Markdown(""), display_id=True)

    def show(self, event):
        self.text += event.text if isinstance(event, Text) else ""
        if time.monotonic() >= self.due or isinstance(event, Done):
            self.handle.update(self.markdown(self.text))
            self.due = time.monotonic() + 0.1

    def close(self, error=None):
        pass


def feed(text, deltas, seconds, view):
    """Show the text in a view, piece by piece; what a runner does. The times of the first and of the last piece."""
    events, stopped, times = Mailbox(), threading.Event(), {}

    def stop():
        stopped.set()
        events.end()

    def produce():
        begin = time.monotonic()
        for number, piece in enumerate(cut(text, deltas)):
            if stopped.wait(max(0, begin + number * seconds / deltas - time.monotonic())):
                return
            times["last_sent"] = time.time()
            times.setdefault("first_sent", times["last_sent"])
            events.put(Text(piece))
        stopped.wait(0.5)
        times["feed_cpu_s"] = time.thread_time()
        events.end()

    view.open("claude-sonnet-5-5", stop)
    time.sleep(0.5)
    view.show(Thinking("Let me think about the log first. "))
    view.show(ToolCall("1", "search", {"query": "write-ahead log"}))
    view.show(ToolResult("1", "search", "two documents", duration_ms=120))
    threading.Thread(target=produce, daemon=True).start()
    try:
        events.show_in(view)
    except KeyboardInterrupt:  # where a kernel hears nothing else while it is busy, Stop is an interrupt
        stop()
    view.show(Done("claude-sonnet-5-5", Usage(input_tokens=50, output_tokens=9_000), None, latency_ms=30_000.0))
    view.close(KeyboardInterrupt() if stopped.is_set() else None)
    return times


def print_text(chars, deltas, seconds):
    """The same text printed as plain text, as often as a view is drawn: a page without llmnb, and without a widget."""
    begin, times = time.monotonic(), {"first_sent": time.time()}
    for number, piece in enumerate(cut(text_of(chars), deltas)):
        time.sleep(max(0, begin + number * seconds / deltas - time.monotonic()))
        print(piece, end="", flush=True)
    tell(times)


def do_nothing(seconds):
    times = {"first_sent": time.time()}
    time.sleep(seconds)
    tell(times)


def tell(times):
    times["last_sent"] = time.time()
    time.sleep(0.5)
    print("\n" + json.dumps({**times, "cpu_s": 0.0, "ipykernel": ipykernel.__version__}))


def play_text(text, deltas, seconds, peers=False):
    cpu_s = time.process_time()
    times = feed(text, deltas, seconds, Peers() if peers else display.choose("widget"))
    print(json.dumps({**times, "cpu_s": time.process_time() - cpu_s, "ipykernel": ipykernel.__version__}))


def play(chars, deltas, seconds, peers=False):
    play_text(text_of(chars), deltas, seconds, peers)


def play_code(chars, deltas, seconds):
    play_text(code_of(chars), deltas, seconds)


def play_list(chars, deltas, seconds):
    play_text(list_of(chars), deltas, seconds)


def play_many(views, chars, deltas, seconds):
    """Several at once, in threads of one cell."""
    text = text_of(chars)
    threads = [
        threading.Thread(target=feed, args=(text, deltas, seconds, display.choose("widget"))) for _ in range(views)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("{}")


async def play_tasks(views, chars, deltas, seconds):
    """Several at once, in tasks of one cell that awaits them."""
    text = text_of(chars)
    await asyncio.gather(*(feed_task(text, deltas, seconds, display.choose("widget")) for _ in range(views)))
    print("{}")


async def feed_task(text, deltas, seconds, view):
    view.open("claude-sonnet-5-5", lambda: None)
    begin = time.monotonic()
    for number, piece in enumerate(cut(text, deltas)):
        await asyncio.sleep(max(0, begin + number * seconds / deltas - time.monotonic()))
        view.show(Text(piece))
    view.show(Done("claude-sonnet-5-5", Usage(input_tokens=50, output_tokens=9_000), None, latency_ms=30_000.0))
    view.close(None)


import llmnb.display.widget  # noqa: E402, F401  so that the first play does not pay for it
