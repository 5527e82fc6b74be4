"""What a picture holds, before anybody says where it stands: boxes and links."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One line of a box: a text, and what it is ("value", "blame", "error" or "note")."""

    text: str
    kind: str = "value"


@dataclass(frozen=True)
class Box:
    """A vertex.

    Attributes:
        title: What it is called.
        subtitle: What it is.
        kind: "call", "parameter" or "output".
        lines: What is shown in it, shortened.
        tooltip: Everything, in full.
        state: "" or "right", "blamed", "error".
    """

    title: str
    subtitle: str
    kind: str
    lines: tuple[Line, ...]
    tooltip: str
    state: str = ""


@dataclass(frozen=True)
class Link:
    """An edge between two boxes, by number.

    Attributes:
        source: What produced a value.
        target: What used it.
        kind: "exact", "content", "control" or "order".
        label: The input field of the target.
        ambiguous: Whether another producer would have explained it as well.
    """

    source: int
    target: int
    kind: str
    label: str
    ambiguous: bool


@dataclass(frozen=True)
class Picture:
    """Boxes, every source before its targets, and links."""

    boxes: tuple[Box, ...]
    links: tuple[Link, ...]
    note: str = ""
