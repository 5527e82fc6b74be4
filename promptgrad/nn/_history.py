"""`inspect_history`: the last calls, exactly as they were sent and answered."""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import overload

from promptgrad.lm import Completion, Request, Usage

KEPT = 50
"""How many of the latest calls are remembered."""


class HistoryCall:
    """One call of a `Predict`: what was sent, and what came back, re-asks included.

    Attributes:
        module: Path of the module in its program.
        lm: Name of the language model.
        request: The first request.
        completion: What came back to it; None where the LM failed.
        reasked: Request and completion of each further try.
        error: Why the call failed, in words; empty if it did not.
    """

    __slots__ = ("completion", "error", "lm", "module", "reasked", "request")

    def __init__(self, request: Request | None = None) -> None:
        self.module = ""
        self.lm = ""
        self.request = request
        self.completion: Completion | None = None
        self.reasked: tuple[tuple[Request, Completion | None], ...] = ()
        self.error = ""

    @property
    def exchanges(self) -> tuple[tuple[Request, Completion | None], ...]:
        """Request and completion of each try; the completion is None where the LM failed."""
        return () if self.request is None else ((self.request, self.completion), *self.reasked)

    @property
    def usage(self) -> Usage:
        """What the call cost."""
        return sum((completion.usage for _, completion in self.exchanges if completion is not None), Usage())

    @property
    def messages(self) -> list[dict[str, str]]:
        """The messages of the last request; parts other than text are shown by their kind and size."""
        exchanges = self.exchanges
        return [{"role": m.role, "content": m.preview} for m in exchanges[-1][0].messages] if exchanges else []

    @property
    def reply(self) -> str:
        """The text of the last reply; empty if the LM failed, or if the reply is a call of tools."""
        exchanges = self.exchanges
        completion = exchanges[-1][1] if exchanges else None
        return "" if completion is None else completion.text

    @property
    def reasks(self) -> int:
        """How often the model was asked again because its reply did not parse."""
        return len(self.reasked)

    def __repr__(self) -> str:
        again = f", asked {self.reasks + 1} times" if self.reasks else ""
        lines = [f"=== {self.module or 'top module'} on {self.lm}{again}"]
        for message in self.messages:
            lines += [f"--- {message['role']}", message["content"]]
        exchanges = self.exchanges
        completion = exchanges[-1][1] if exchanges else None
        if completion is not None and (completion.content or completion.refusal):
            lines += ["--- reply", completion.preview]
        elif not self.error:
            lines += ["--- reply", ""]
        if self.error:
            lines.append(f"--- failed: {self.error}")
        return "\n".join(lines)


class History(Sequence[HistoryCall]):
    """Calls in the order in which they ended, the last one at the end. `print` it to read them."""

    def __init__(self, calls: Sequence[HistoryCall]) -> None:
        self._calls = tuple(calls)

    @overload
    def __getitem__(self, index: int) -> HistoryCall: ...
    @overload
    def __getitem__(self, index: slice) -> "History": ...
    def __getitem__(self, index: int | slice) -> "HistoryCall | History":
        return History(self._calls[index]) if isinstance(index, slice) else self._calls[index]

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[HistoryCall]:
        return iter(self._calls)

    def __repr__(self) -> str:
        if not self._calls:
            return "no call was made in this process yet"
        return "\n\n".join(map(repr, self._calls))


_calls: deque[HistoryCall] = deque(maxlen=KEPT)

remember = _calls.append


def inspect_history(n: int = 1) -> History:
    """Show the last `n` calls made by any `Predict` of this process: messages, reply, failure.

    The last 50 are kept. A console or a notebook shows the result; elsewhere, `print` it.
    """
    if n < 1:
        raise ValueError(f"n is a number of calls and at least 1, not {n}")
    return History(list(_calls)[-n:])
