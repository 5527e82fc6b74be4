"""`SteppedFeed`: a reader of a growing reply that goes from step to step."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from promptgrad.adapters._feed import SLICE, FieldPiece, ReplyFeed, TextBody, TypedBody

Step = Callable[[], Iterator[FieldPiece]]


class SteppedFeed(ReplyFeed):
    """A feed whose work is done by one of its methods at a time, on the text that has come and is not yet processed.

    A step gives what is certain, takes what it has processed from `_text`, and names the next one in `_step`, which
    then goes on at once; the same one goes on when more text has come.

    Args:
        first: The first step.
    """

    def __init__(self, first: Step) -> None:
        self._step: Step = first
        self._text = ""  # not processed yet
        self._body: TextBody | TypedBody | None = None  # the field that grows
        self._closed: set[str] = set()

    def _advance(self, text: str) -> Iterator[FieldPiece]:
        if self._step == self._off:
            return
        for at in range(0, len(text), SLICE):
            self._text += text[at : at + SLICE]
            while True:
                step = self._step
                yield from step()
                if self._step == step:
                    break

    def _off(self) -> Iterator[FieldPiece]:
        """Nothing more is given: the reply is read at its end."""
        self._text = ""
        yield from ()

    def _stop(self) -> None:
        self._step, self._body = self._off, None

    def _close(self) -> Iterator[FieldPiece]:
        if self._body is not None:
            for piece in self._body.close():
                self._closed.add(piece.field)
                yield piece
            self._body = None
