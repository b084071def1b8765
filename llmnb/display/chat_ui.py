"""The box of a chat in a notebook: its transcript, the answer as it comes, and an input below.

All state is here; the front end is told it, and asks for what a person does: `{"ask": text, "at": turn}`,
`{"regenerate": true}`, `{"close": true}`, and what an answer's own front end asks (see control.py). What goes to a live
answer is `{"answer": id, "message": …}` with the messages of a `Scene`.

Import this module only when a box is wanted: anywidget and ipywidgets are heavy.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from llmnb.asking.background import BackgroundAsker
from llmnb.display import control, pace, static, style, transcript
from llmnb.display.answer import Answer, clean, is_stop
from llmnb.display.footer import shortened
from llmnb.display.scene import Scene
from llmnb.display.where import has_widgets, where
from llmnb.errors import InvalidRequest, LlmnbError
from llmnb.events import Approval, StreamEvent

if TYPE_CHECKING:
    from llmnb.asking.turns import Turn
    from llmnb.chat import Chat

_HERE = Path(__file__).parent
Content = str | list[dict[str, Any]]
Status = dict[str, Any]


def open_ui(chat: Chat) -> ChatBox:
    """The box of a chat.

    Raises:
        InvalidRequest: this is no notebook with widgets.
    """
    if where() in ("script", "terminal") or not has_widgets():
        raise InvalidRequest(
            'chat.ui() needs a notebook with anywidget and ipywidgets; here chat("…") asks and chat shows what was said'
        )
    return ChatBox(chat)


class ChatBox:
    """The box of a chat. Make it a cell's last value to see it; `close` leaves the transcript in its place."""

    def __init__(self, chat: Chat) -> None:
        self._asker = BackgroundAsker(chat)
        self._lock = threading.RLock()
        self._live: LiveAnswer | None = None
        self._drawn: list[tuple[Turn, str]] = []  # turns answered here, with the footers of their answers
        self._leftover = ""
        self._notice = ""
        self._draft: dict[str, Any] = {"number": 0, "text": ""}
        self._handles: list[Any] = []
        self.widget: Any = _widget_class()()
        self._tell()
        self.widget.on_msg(self._asked)
        chat._watchers.add(self)  # pyright: ignore[reportPrivateUsage]

    # What a person does -----------------------------------------------------------------------------------------------

    def ask(self, text: str, at: int | None = None) -> None:
        """Asks in the background; `at` is the turn whose question it replaces, with all that came after it."""
        turns = self._asker.turns
        if at is not None and not 0 <= at < len(turns):
            return self._say("that turn is gone")
        content = text if at is None else _edited(turns[at].user, text)
        return self._begin(content, len(turns) if at is None else at)

    def regenerate(self) -> None:
        """Asks the last question again; the answer there is stays until the new one is whole."""
        if turns := self._asker.turns:
            self._begin(turns[-1].user, len(turns) - 1, fresh=True)

    def stop(self) -> None:
        """Ends the answer that is on its way."""
        self._asker.stop()

    def close(self) -> None:
        """Puts the transcript in the box's place, which stays in the file; the conversation goes on in cells."""
        self._asker.stop()
        chat = self._asker.chat
        chat._watchers.discard(self)  # pyright: ignore[reportPrivateUsage]
        for handle in self._handles:
            handle.update(chat._repr_mimebundle_(), raw=True)  # pyright: ignore[reportPrivateUsage]
        self._handles.clear()
        self.widget.dispose()

    # What happens -----------------------------------------------------------------------------------------------------

    def chat_changed(self) -> None:
        """The chat has other turns; while an answer comes here, its end tells."""
        with self._lock:
            if self._live is None:
                self._tell()

    def answer_ended(self, live: LiveAnswer, error: BaseException | None) -> None:
        """The answer on its way is over: it is a turn now, or left over with the reason."""
        with self._lock:
            self._live = None
            turns = self._asker.turns
            if error is None and len(turns) > live.kept:
                known = [(turn, html) for turn, html in self._drawn if any(turn is there for there in turns)]
                self._drawn = [*known, (turns[-1], live.page())]
            else:
                self._leave_over(live, error)
            self._tell()

    def _begin(self, content: Content, kept: int, *, fresh: bool = False) -> None:
        live = LiveAnswer(self, content, kept)
        try:
            with self._lock:
                self._leftover, self._notice = "", ""
                self._asker.ask(content, live, kept=kept, fresh=fresh)
        except (LlmnbError, TypeError) as error:
            self._say(str(error), draft=transcript.spoken(content))

    def answer_opened(self, live: LiveAnswer) -> None:
        """An answer is on its way."""
        self._live = live
        self._tell()

    def _leave_over(self, live: LiveAnswer, error: BaseException | None) -> None:
        # without an error there is an answer of which the API takes nothing back, see Chat
        why = "Stopped" if is_stop(error) else "Failed" if error else "Not to be sent back to the API"
        note = f'<p class="llmnb-earlier">{why}: this is no part of the conversation.</p>'
        self._leftover = transcript.question_html(live.content) + live.page() + note
        self._redraft(transcript.spoken(live.content))

    def _say(self, notice: str, draft: str = "") -> None:
        with self._lock:
            self._notice = clean(notice)
            self._redraft(draft)
            self._tell()

    def _redraft(self, text: str) -> None:
        """Hand a question back to the input, to be edited and sent again."""
        if text:
            self._draft = {"number": self._draft["number"] + 1, "text": text}

    # The front end ----------------------------------------------------------------------------------------------------

    def send(self, message: dict[str, Any]) -> None:
        """To the front ends of this box."""
        self.widget.send(message)

    def _tell(self) -> None:
        with self._lock:
            turns, live = self._asker.turns, self._live
            shown = turns[: live.kept] if live else turns
            first = max(0, len(shown) - transcript.SHOWN_TURNS)
            told = [self._turn(turn, number) for number, turn in enumerate(shown[first:], first)]
            self.widget.tell(told, self._status(transcript.earlier_text(first)))

    def _turn(self, turn: Turn, number: int) -> dict[str, Any]:
        drawn = next((html for known, html in self._drawn if known is turn), None)
        answer = drawn or transcript.answer_html(turn.answered)
        draft = transcript.spoken(turn.user)
        return {"number": number, "question": transcript.question_html(turn.user), "answer": answer, "draft": draft}

    def _status(self, earlier: str) -> Status:
        chat = self._asker.chat
        return {
            "headline": clean(chat._headline()),  # pyright: ignore[reportPrivateUsage]
            "earlier": earlier,
            "running": self._live.state() if self._live else None,
            "leftover": self._leftover,
            "notice": self._notice,
            "draft": self._draft,
        }

    def _asked(self, widget: object, content: object, buffers: object) -> None:
        wish: Mapping[str, Any] = cast("Any", content) if isinstance(content, dict) else {}
        if isinstance(wish.get("ask"), str):
            at = wish.get("at")
            self.ask(wish["ask"], at if isinstance(at, int) else None)
        elif "regenerate" in wish:
            self.regenerate()
        elif "close" in wish:
            self.close()
        elif control.obey(wish):
            self.send({"answer": wish.get("stop") or wish.get("decide"), "message": {"ack": True}})

    def _ipython_display_(self) -> None:
        from IPython import display

        kept = self._asker.chat._repr_mimebundle_()  # pyright: ignore[reportPrivateUsage]
        bundle = kept if where() == "headless" else self.widget.view(repr(self))
        self._handles.append(cast(Any, display).display(bundle, raw=True, display_id=True))

    def __repr__(self) -> str:
        return f"<the box of {self._asker.chat!r}>"


class LiveAnswer:
    """A `View` inside a box: draws the answer, and tells the box its beginning and end."""

    def __init__(self, box: ChatBox, content: Content, kept: int) -> None:
        self.content = content
        self.kept = kept
        self._box = box
        self._id = uuid.uuid4().hex
        self._lock = threading.RLock()
        self._answer = Answer()
        self._scene = Scene(self._answer)
        self._keyframes = pace.keyframe_times()
        self._keyframe_due = self._start = time.monotonic()
        self._dirty = False
        self._approvals: dict[str, Approval] = {}

    def state(self) -> Status:
        """What the front end of an answer needs to begin."""
        answer = {
            "answer_id": self._id,
            "model_label": shortened(self._answer.model),
            "can_stop": True,
            "stop_hint": "",
        }
        return {"question": transcript.question_html(self.content), "answer": answer}

    def page(self) -> str:
        """The answer as it stays, without its style sheet."""
        return static.part_of_page(self._answer)

    def open(self, model: str, stop: Callable[[], None] | None) -> None:
        """See `View.open`."""
        self._answer.model = model
        control.register(
            self._id, control.Controls(stop or self._box.stop, self._resync, control.nothing, self._decide)
        )
        self._box.answer_opened(self)
        pace.alarm().at(time.monotonic(), self._draw)

    def show(self, event: StreamEvent) -> None:
        """See `View.show`; it is drawn with the next frame."""
        with self._lock:
            self._answer.apply(event)
            if isinstance(event, Approval):
                self._approvals[event.call.id] = event
            self._dirty = True

    def close(self, error: BaseException | None = None) -> None:
        """See `View.close`."""
        with self._lock:
            self._answer.end(error)
        control.forget(self._id)
        self._box.answer_ended(self, error)

    def _draw(self) -> None:
        """The alarm's thread: send what changed, and come again."""
        with self._lock:
            if self._answer.ended:
                return
            began = time.monotonic()
            message = self._scene.keyframe() if began >= self._keyframe_due else self._frame()
            if began >= self._keyframe_due:
                self._keyframe_due = next(at for s in self._keyframes if (at := self._start + s) > began)
            if message is not None:
                self._box.send({"answer": self._id, "message": message})
            self._dirty = self._scene.is_rough
            now = time.monotonic()
            pace.alarm().at(now + max(pace.FRAME_S, pace.LOAD * (now - began)), self._draw)

    def _frame(self) -> dict[str, object] | None:
        return self._scene.frame() if self._dirty else None

    def _decide(self, call_id: str, yes: bool) -> None:
        approval = self._approvals.pop(call_id, None)
        if approval is not None:
            approval.answer(yes)
            with self._lock:
                self._answer.ask(approval.call, False)
                self._dirty = True

    def _resync(self) -> None:
        # no lock: the alarm's thread may hold it; the next frame sees that a keyframe is due
        self._keyframe_due = 0.0


def _edited(content: object, text: str) -> Content:
    """A question with another text and what was attached to it."""
    if isinstance(content, str):
        return text
    blocks = cast("list[dict[str, Any]]", content)
    return [*(block for block in blocks if block.get("type") != "text"), {"type": "text", "text": text}]


@cache
def _widget_class() -> type[Any]:
    import traitlets

    from llmnb.display.read_only_widget import ReadOnlyWidget

    class ChatWidget(ReadOnlyWidget):
        """The front end of a box; it writes no state of its own."""

        _esm = script()
        _css = style.live_css() + style.transcript_css() + (_HERE / "chat_ui.css").read_text("utf-8")
        turns = cast(Any, traitlets.List(read_only=True)).tag(sync=True)
        status = traitlets.Dict(read_only=True).tag(sync=True)

        def tell(self, turns: list[dict[str, Any]], status: Status) -> None:
            """Give the front end all there is to show, in one message."""
            with self.hold_sync():
                self.set_trait("turns", turns)
                self.set_trait("status", status)

    return ChatWidget


def script() -> str:
    """The box's script; the one of a live answer is a part of it, as the function `makeAnswer`."""
    answer = style.script().replace("export default", "return", 1)
    return f"const makeAnswer = (() => {{\n{answer}\n}})();\n{(_HERE / 'chat_ui.js').read_text('utf-8')}"
