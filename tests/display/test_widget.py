"""When a live view is drawn, by a clock that stands still."""

from __future__ import annotations

from typing import Any

from llmnb.display import control, pace
from llmnb.display.widget import WidgetView
from llmnb.events import Text, ToolCall


class Output:
    """A page that cannot be loaded again, so that nothing lingers."""

    reloads = False

    def show(self, widget: object, label: str) -> None: ...

    def keep(self, bundle: dict[str, str], *, stopped: bool) -> None: ...


class Widget:
    """Notes what it is sent."""

    def __init__(self, *arguments: object, **options: object) -> None:
        self.comm = None
        self.sent: list[dict[str, Any]] = []

    def on_msg(self, callback: object) -> None: ...

    def send(self, content: dict[str, Any]) -> None:
        self.sent.append(content)

    def dispose(self) -> None: ...


def test_what_is_gathered_is_drawn_once_a_frame() -> None:
    """Words shown together are one message; the view says when it wants more, and takes a tool at once."""
    now, widget = [100.0], Widget()
    view = WidgetView(clock=lambda: now[0], output=Output, make=lambda *_, **__: widget)
    view.open("claude", None)
    view.show_all([Text("a "), Text("b ")])
    begun = len(widget.sent)
    assert "a b" in str(widget.sent)
    view.show_all([Text("c ")])
    rest_s = view.rest_s()
    assert 0 < rest_s <= 5 * pace.FRAME_S
    assert len(widget.sent) == begun
    now[0] += rest_s
    view.show_all([])
    assert len(widget.sent) == begun + 1
    now[0] += view.rest_s()
    view.show_all([])
    assert len(widget.sent) == begun + 1
    assert view.rest_s() <= 0
    view.show_all([Text("d")])
    view.show_all([ToolCall("1", "search", {})])
    assert len(widget.sent) == begun + 3
    view.close()
    assert not control.obey({"stop": view.answer_id})


def test_without_a_widget_nothing_wants_to_be_drawn() -> None:
    """When a page could not be reached the asking thread is not kept busy with it."""
    view = WidgetView(output=Output, make=lambda *_, **__: None)
    view.show_all([Text("a")])
    assert view.rest_s() == 0


def test_code_gets_its_colours_in_a_pause() -> None:
    """When nothing comes after a frame without colours, the next one brings them, and then there is rest."""
    now, widget = [100.0], Widget()
    view = WidgetView(clock=lambda: now[0], output=Output, make=lambda *_, **__: widget)
    view.open("m", None)
    for code in ("```python\nif x:\n", "    pass\n", "    return\n"):
        now[0] += pace.FRAME_S
        view.show_all([Text(code)])
        now[0] += pace.FRAME_S
        view.show_all([])
    assert "return</span>" in str(widget.sent[-1])
    sent = len(widget.sent)
    now[0] += pace.FRAME_S
    assert view.rest_s() <= 0
    view.show_all([])
    assert len(widget.sent) == sent
    view.close()
