"""`inspect_history`: the last calls, exactly as they were sent and answered."""

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import overload
from weakref import ref

from promptgrad.adapters import Compiled
from promptgrad.lm import LM, Completion, Request, Usage

KEPT = 50
"""How many of the latest calls are remembered by default."""

KEPT_BYTES = 64 * 2**20
"""How many bytes of messages and replies are remembered by default."""


class HistoryCall:
    """One call of a `Predict`: what was sent, and what came back, re-asks included.

    Attributes:
        module: Path of the module in its program.
        lm: Name of the language model.
        request: The first request.
        completion: What came back to it; None where the LM failed.
        reasked: Request and completion of each further try.
        error: Why the call failed, in words; empty if it did not.
        compiled: The signature as its adapter wrote it; None where there was no call.
        asked: The language model, which is not kept alive.
    """

    __slots__ = ("asked", "compiled", "completion", "error", "lm", "module", "reasked", "request")

    def __init__(
        self, request: Request | None = None, compiled: Compiled | None = None, asked: LM | None = None
    ) -> None:
        self.module = ""
        self.lm = ""
        self.request = request
        self.completion: Completion | None = None
        self.reasked: tuple[tuple[Request, Completion | None], ...] = ()
        self.error = ""
        self.compiled = compiled
        self.asked = None if asked is None else ref(asked)

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


class CallHistory(Sequence[HistoryCall]):
    """Calls in the order in which they ended, the last one at the end. `print` it to read them."""

    def __init__(self, calls: Sequence[HistoryCall]) -> None:
        self._calls = tuple(calls)

    @overload
    def __getitem__(self, index: int) -> HistoryCall: ...
    @overload
    def __getitem__(self, index: slice) -> "CallHistory": ...
    def __getitem__(self, index: int | slice) -> "HistoryCall | CallHistory":
        return CallHistory(self._calls[index]) if isinstance(index, slice) else self._calls[index]

    def __len__(self) -> int:
        return len(self._calls)

    def __iter__(self) -> Iterator[HistoryCall]:
        return iter(self._calls)

    def __repr__(self) -> str:
        if not self._calls:
            return "no call was made in this process yet"
        return "\n\n".join(map(repr, self._calls))


def _size(call: HistoryCall) -> int:
    """About how many bytes a call takes."""
    return sum([asked.nbytes + (0 if told is None else told.nbytes) for asked, told in call.exchanges])


class _Kept:
    """The latest calls, within two bounds: as many as may be kept of which none is large need no counting of bytes."""

    def __init__(self, calls: int, size: int) -> None:
        self.lock = threading.Lock()
        self.bound(calls, size)

    def bound(self, calls: int, size: int) -> None:
        self.calls: deque[HistoryCall] = deque(getattr(self, "calls", ()), maxlen=calls)
        self.most_bytes = size
        self.large = size // calls if calls else size
        self.trim()

    def add(self, call: HistoryCall) -> None:
        request, reply = call.request, call.completion
        if request is not None and not call.reasked and len(request.tail) == 1:  # text alone is measured in place
            asked, told = request.tail[0].content, "" if reply is None else reply.content
            if asked.__class__ is str and told.__class__ is str:
                size = len(request.prefix.encoded) + len(asked) + len(told)
                if size <= self.large and not self.has_large:
                    self.calls.append(call)
                    return
        if not self.has_large and _size(call) <= self.large:
            self.calls.append(call)
            return
        with self.lock:
            self.calls.append(call)
            self.trim()

    def trim(self) -> None:
        sizes = deque(map(_size, list(self.calls)))  # threads go on adding
        total = sum(sizes)
        while total > self.most_bytes and self.calls:
            self.calls.popleft()
            total -= sizes.popleft()
        self.has_large = any(size > self.large for size in sizes)


_kept = _Kept(KEPT, KEPT_BYTES)

remember = _kept.add


def keep_history(calls: int = KEPT, *, max_bytes: int = KEPT_BYTES) -> None:
    """Set how many of the latest calls `inspect_history` can show, for the whole process; 0 keeps none.

    Args:
        calls: Most calls.
        max_bytes: Most bytes of their messages and replies; the beginning that prompts share counts for each of them.

    Raises:
        ValueError: A number is negative.
    """
    if calls < 0 or max_bytes < 0:
        raise ValueError(f"calls and max_bytes are numbers of at least 0, not {calls} and {max_bytes}")
    with _kept.lock:
        _kept.bound(calls, max_bytes)


def inspect_history(n: int = 1) -> CallHistory:
    """Show the last `n` calls made by any `Predict` of this process: messages, reply, failure.

    The last 50 are kept, and 64 MiB of them at most; `nn.keep_history` sets other bounds. A console or a notebook shows
    the result; elsewhere, `print` it.

    Raises:
        ValueError: `n` is below 1.
    """
    if n < 1:
        raise ValueError(f"n is a number of calls and at least 1, not {n}")
    with _kept.lock:
        return CallHistory(list(_kept.calls)[-n:])
