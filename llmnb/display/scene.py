"""The live view as nodes of HTML, and the numbered messages that bring a front end from one state to the next.

A message is `{"n": number, "ops": [op, …]}` or, as a keyframe, `{"n": number, "key": [node, …]}`.

    op    ["new", id, parent, kind]      a node at the end of its parent (0: the view)
          ["set", id, keep, html, end]   its HTML is now the first `keep` UTF-16 units of the old, `html`, and the last
                                         `end` units of the old
          ["fix", id]                    it will not change any more: math may be typeset
    node  [id, parent, kind, html, fixed]

A keyframe that is sent says, too, since how many seconds the answer is on its way (`elapsed_s`).

A node of kind "block" shows its HTML; of kind "thinking", its HTML labels a fold around its children. A front end that
sees a gap in the numbers waits for the next keyframe.
"""

from __future__ import annotations

from dataclasses import dataclass

from llmnb.display import cards, footer, sources
from llmnb.display.answer import Answer, Part, Prose, Tool
from llmnb.display.blocks import Drawn, MarkdownStream

Op = list[object]
Message = dict[str, object]
FOOTER = 1
_END_CHARS = 80
"""How much is compared at the end, where an open block has its closing tags."""


@dataclass(slots=True)
class Node:
    """A piece of the view; `sent` is the HTML the front end has, None before it knows the node."""

    id: int
    parent: int
    kind: str
    html: str = ""
    fixed: bool = False
    sent: str | None = None
    sent_fixed: bool = False

    def ops(self) -> list[Op]:
        """What brings the front end up to date with this node."""
        found: list[Op] = []
        if self.sent is None:
            found.append(["new", self.id, self.parent, self.kind])
        if self.html != (self.sent or ""):
            found.append(["set", self.id, *_difference(self.sent or "", self.html)])
        if self.fixed and not self.sent_fixed:
            found.append(["fix", self.id])
        self.sent, self.sent_fixed = self.html, self.fixed
        return found

    def state(self) -> Op:
        """The node as it stands in a keyframe."""
        self.sent, self.sent_fixed = self.html, self.fixed
        return [self.id, self.parent, self.kind, self.html, self.fixed]


@dataclass(frozen=True, slots=True)
class Section:
    """A top-level piece of the view as HTML; `fixed` when it will not change any more."""

    html: str
    fixed: bool


class Scene:
    """Draws an `Answer` into nodes; `frame` and `keyframe` give the messages."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self._nodes: dict[int, Node] = {}
        self._moving: set[int] = set()  # ids of nodes that may have changed since they were sent
        self._drawings: list[_Prose | _Card] = []
        self._number = 0
        self._add(0, "footer")

    @property
    def is_rough(self) -> bool:
        """Whether one more frame makes it better, although nothing has come."""
        return bool(self._drawings) and not self._drawings[-1].finished and self._drawings[-1].is_rough

    def frame(self) -> Message | None:
        """The changes since the last message, or None when there are none."""
        self._draw()
        ops = [op for node_id in sorted(self._moving) for op in self._nodes[node_id].ops()]
        self._moving = {node_id for node_id in self._moving if not self._nodes[node_id].fixed}
        return self._numbered({"ops": ops}) if ops else None

    def keyframe(self) -> Message:
        """Everything as it is now."""
        self._draw()
        self._moving = {node_id for node_id in self._moving if not self._nodes[node_id].fixed}
        return self._numbered({"key": [node.state() for node in self._nodes.values()]})

    def sections(self) -> list[Section]:
        """The answer so far in pieces, without its footer; for displays that have no use for messages."""
        self._draw()
        children: dict[int, list[Node]] = {}
        for node in self._nodes.values():
            children.setdefault(node.parent, []).append(node)
        return [_section(node, children.get(node.id, [])) for node in children[0] if node.id != FOOTER]

    def drawn(self) -> dict[int, Drawn]:
        """What was drawn of texts that came to their end, by the id of their part."""
        texts = [drawing for drawing in self._drawings if isinstance(drawing, _Prose)]
        return {id(text.part): whole for text in texts if (whole := text.whole()) is not None}

    def add(self, parent: int, kind: str = "block") -> Node:
        """A new node at the end of `parent`."""
        return self._add(parent, kind)

    def correct(self, node: Node, html: str) -> None:
        """Change a node that was fixed."""
        node.html = html
        self._moving.add(node.id)

    def _add(self, parent: int, kind: str) -> Node:
        node = Node(len(self._nodes) + 1, parent, kind)
        self._nodes[node.id] = node
        self._moving.add(node.id)
        return node

    def _draw(self) -> None:
        for part in self.answer.parts[len(self._drawings) :]:
            self._drawings.append(_drawing(self, part))
        for drawing in self._drawings:
            if not drawing.finished:
                drawing.draw(self)
        if self.answer.done or self.answer.ended:
            self._nodes[FOOTER].html = sources.html(self.answer.citations) + footer.html(self.answer)

    def _numbered(self, message: Message) -> Message:
        message["n"] = self._number
        self._number += 1
        return message


def _section(node: Node, children: list[Node]) -> Section:
    if node.kind != "thinking":
        return Section(node.html, node.fixed)
    body = "".join(child.html for child in children)
    html = (
        f'<details class="llmnb-thinking"><summary>{node.html}</summary><div class="llmnb-fold">{body}</div></details>'
    )
    return Section(html, node.fixed)


def _drawing(scene: Scene, part: Part) -> _Prose | _Card:
    return _Prose(scene, part) if isinstance(part, Prose) else _Card(scene, part)


class _Prose:
    """Text or thinking: frozen blocks as fixed nodes, the growing one in a node of its own."""

    def __init__(self, scene: Scene, part: Prose) -> None:
        self.finished = False
        self.part = part
        self._fold = scene.add(0, "thinking") if part.thinking else None
        self._parent = self._fold.id if self._fold else 0
        self._stream = MarkdownStream()
        self._fed = 0
        self._frozen: list[Node] = []
        self._tail = scene.add(self._parent)

    @property
    def is_rough(self) -> bool:
        return self._stream.is_rough

    def whole(self) -> Drawn | None:
        return self._stream.whole() if self.finished else None

    def draw(self, scene: Scene) -> None:
        part = self.part
        if len(part.text) > self._fed:
            self._stream.append(part.text[self._fed :])
            self._fed = len(part.text)
        update = self._stream.finish() if part.ended else self._stream.update()
        for html in update.frozen:
            self._tail.html, self._tail.fixed = html, True
            self._frozen.append(self._tail)
            self._tail = scene.add(self._parent)
        for number, html in update.corrected.items():
            scene.correct(self._frozen[number], html)
        self._tail.html = update.tail
        self._tail.fixed = self.finished = part.ended
        if self._fold:
            self._fold.html, self._fold.fixed = cards.thinking_label(part), part.ended


class _Card:
    """A tool call or a wait: one node, drawn again until it is over."""

    is_rough = False

    def __init__(self, scene: Scene, part: Part) -> None:
        self.finished = False
        self._part = part
        self._node = scene.add(0)

    def draw(self, scene: Scene) -> None:
        part = self._part
        if isinstance(part, Tool):
            self._node.html = cards.tool(part)
            self.finished = part.result is not None or part.abandoned
        elif not isinstance(part, Prose):
            self._node.html = cards.waiting(part)
            self.finished = part.over
        self._node.fixed = self.finished


def _difference(old: str, new: str) -> tuple[int, str, int]:
    """What of `old` stays at its start, what comes then, what of `old` stays at its end; both in UTF-16 units."""
    keep = shared_prefix(old, new)
    end = 0
    while end < min(len(old) - keep, len(new) - keep, _END_CHARS) and old[-1 - end] == new[-1 - end]:
        end += 1
    if not old[len(old) - end :].isascii():
        end = 0
    return _utf16_units(new, keep), new[keep : len(new) - end], end


def shared_prefix(old: str, new: str) -> int:
    """How many characters two strings have in common at their start; by halves, as comparing slices is fast."""
    low, high = 0, min(len(old), len(new))
    if old[:high] == new[:high]:
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if old[low:middle] == new[low:middle]:
            low = middle
        else:
            high = middle
    return low


def _utf16_units(text: str, chars: int) -> int:
    """The length JavaScript gives the first `chars` characters."""
    return chars if text.isascii() else len(text[:chars].encode("utf-16-le")) // 2
