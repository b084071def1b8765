"""Feeds a view as an LLM does: another thread produces, the cell's thread waits on a queue and shows."""

import queue
import threading
from decimal import Decimal
from pathlib import Path

from llmnb import display
from llmnb.events import Done, Text, Thinking, ToolCall, ToolResult
from llmnb.records import Usage

ANSWER = """## Title

Some **text** with $x^2$.

```python
def f(x):
    return x
```

| a | b |
|---|---|
| 1 | 2 |
"""
RICH = [
    Thinking("let me see"),
    ToolCall("1", "weather", {"city": "Oslo"}),
    ToolResult("1", "weather", "rain", duration_ms=12),
    *(Text(ANSWER[start : start + 4]) for start in range(0, len(ANSWER), 4)),
]


def ask(stream, pause_s=0.02, gate="/"):
    """Show a stream that takes its time, until it is stopped, or has ended and the file `gate` is there."""
    events, stopped = queue.Queue(), threading.Event()

    def stop():
        stopped.set()
        events.put(None)

    def produce():
        for event in stream:
            if stopped.wait(pause_s):
                return
            events.put(event)
        while not Path(gate).exists() and not stopped.wait(pause_s):
            pass
        events.put(None)

    view = display.choose()
    error = None
    try:
        view.open("claude-sonnet-5-5", stop)
        threading.Thread(target=produce, daemon=True).start()
        while (event := events.get()) is not None:
            view.show(event)
    except KeyboardInterrupt as interrupt:
        error = interrupt
    status = "cancelled" if stopped.is_set() or error else "ok"
    view.show(Done("claude-sonnet-5-5", Usage(input_tokens=9, output_tokens=99), Decimal("0.001"), status=status))
    view.close(error)
