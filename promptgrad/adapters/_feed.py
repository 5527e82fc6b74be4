"""What can be read from a reply while it is being written: the protocol by which an adapter streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from promptgrad.adapters._partial import PartialReader
from promptgrad.adapters._shield import EDGE, THOUGHTS, is_beginning, may_be_shielded, unshield
from promptgrad.errors import ParseError

if TYPE_CHECKING:
    from promptgrad.signature import Field


class FieldPiece(NamedTuple):
    """What a reply that is still being written holds of one field.

    Attributes:
        kind: "delta" for more of its text, "partial" for what is complete of a list or an object, "value" for it all.
        field: Name of the output.
        value: The text, the part, or the value.
    """

    kind: Literal["delta", "partial", "value"]
    field: str
    value: Any


class ReplyFeed:
    """Reads one reply as it is written; `Format.feed` makes one for each reply.

    It gives away only what no later text takes back: a text may become the beginning of a marker, of an escape or of a
    fence, and is held until that is known. The reply is read again as a whole when it is complete, and what the reader
    then finds counts: what a feed did not give is added by the caller, and what it gave in error is called void.
    """

    def feed(self, text: str) -> Iterable[FieldPiece]:
        """The pieces that are certain now that `text` has come, in order.

        Args:
            text: More of the reply, cut anywhere; without the model's thoughts before its answer.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define feed()")

    def feed_call(self, index: int, name: str, arguments: str) -> Iterable[FieldPiece]:
        """The pieces that are certain now that a call of a tool goes on; none where calls hold no fields.

        Args:
            index: The number of the call in the reply.
            name: The tool, in the first piece of the call; empty afterwards.
            arguments: More of the JSON text of its arguments.
        """
        return ()


class TextBody:
    """The text of one field as it grows: its end is held as long as it may be stripped or belong to a marker.

    Args:
        name: The field.
        whole: Function that gives the field's text from its body as it was written.
        ends: Characters that are held at the end; blanks always are.
        head: Function that gives the beginning of the field's text from the beginning of a body that does not end in
            one of them.
        read: Function that checks the text; None where nothing is to be checked.
        thoughts: Beginnings of a text that may be a thought, which is read with the whole reply.
    """

    def __init__(
        self,
        name: str,
        whole: Callable[[str], str],
        ends: str,
        head: Callable[[str], str],
        read: Callable[[str], Any] | None,
        thoughts: tuple[str, ...] = THOUGHTS,
    ) -> None:
        self.name = name
        self._thoughts = thoughts
        self._whole = whole
        self._read = read
        self._ends = BLANKS + ends
        self._head = head
        self._body: list[str] = []
        self._given: list[str] = []
        self._tail: list[str] = []
        self._is_thought = False

    def grow(self, text: str) -> Sequence[FieldPiece]:
        """More of the body."""
        self._body.append(text)
        if self._is_thought:
            return ()
        sure = text.rstrip(self._ends)
        if not sure:
            self._tail.append(text)
            return ()
        kept = len(sure)
        if self._tail:
            sure = "".join([*self._tail, sure])
        if not self._given:
            start = self._head(sure)
            self._is_thought = start.startswith(self._thoughts)
            if self._is_thought:
                return ()
            if is_beginning(start, self._thoughts) or (
                start[0] == EDGE and may_be_shielded(start)
            ):  # it may become one
                self._tail = [sure, text[kept:]]
                return ()
            sure = start
        self._tail = [text[kept:]] if kept < len(text) else []
        self._given.append(sure)
        return (FieldPiece("delta", self.name, sure),)

    def close(self) -> Iterator[FieldPiece]:
        """The rest, and the value; nothing where the body is empty or is to be read with the whole reply."""
        if self._is_thought:
            return
        text, given = self._whole("".join(self._body)), "".join(self._given)
        if not text or text.startswith(self._thoughts) or unshield(text) != text or not text.startswith(given):
            return
        if len(text) > len(given):
            yield FieldPiece("delta", self.name, text[len(given) :])
        try:
            value = text if self._read is None else self._read(text)
        except ParseError:
            return  # the whole reply will say so
        yield FieldPiece("value", self.name, value)


class TypedBody:
    """The body of a field that is no text: lists and objects give the parts that are complete.

    Args:
        field: The field.
        whole: Function that gives the text of the value from the body.
        read: Function that gives the value from its text.
    """

    def __init__(self, field: Field, whole: Callable[[str], str], read: Callable[[str], Any]) -> None:
        self.name = field.name
        self._whole = whole
        self._read = read
        self._body: list[str] = []
        self._parts = PartialReader.of(field)

    def grow(self, text: str) -> Sequence[FieldPiece]:
        """More of the body."""
        self._body.append(text)
        if self._parts is None:
            return ()
        return [FieldPiece("partial", self.name, part) for part in self._parts.feed(text)]

    def close(self) -> Iterator[FieldPiece]:
        """The value, if it can be read."""
        text = self._whole("".join(self._body))
        if text:
            try:
                value = self._read(text)
            except ParseError:
                return  # the whole reply will say so
            yield FieldPiece("value", self.name, value)


BLANKS = "".join(map(chr, filter(lambda code: chr(code).isspace(), range(0x3001))))
"""The characters that `str.strip` removes."""

SLICE = 2_000
"""Characters that a feed reads at once, so that a long piece takes no longer than many short ones."""
