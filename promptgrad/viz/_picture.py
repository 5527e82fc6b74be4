"""The content of a picture, before its layout: boxes and links."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Line:
    """One line of a box: a text and its kind ("value", "blame", "error" or "note")."""

    text: str
    kind: str = "value"


@dataclass(frozen=True)
class Box:
    """A vertex.

    Attributes:
        title: Its name.
        subtitle: A note beside the title: the class of a module, the kind of a parameter, or a score.
        kind: "call", "parameter" or "output".
        lines: Its values, shortened.
        tooltip: Its values in full.
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
        source: The box that produced a value.
        target: The box that used it.
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
