"""`Execution`: what a run of code gave; `CodeFault`: why it failed; `Halt`: a function that ends the run."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class CodeFault:
    """Why code failed: a value, not an exception, since the code of a language model may fail.

    Attributes:
        kind: Name of the exception, such as "ZeroDivisionError".
        message: What it says.
        line: The line of the code, from 1; None where no line of it is known.
        source: That line.
        limit: The limit that ended the run: "seconds", "wall", "memory", "output", "calls", "depth" or "value"; "crash"
            where the process of the code died; empty for an exception of the code itself.
    """

    kind: str
    message: str = ""
    line: int | None = None
    source: str = ""
    limit: str = ""

    def __str__(self) -> str:
        said = f"{self.kind}: {self.message}" if self.message else self.kind
        if self.line is None:
            return said
        return f"{said}\n  line {self.line}: {self.source}" if self.source else f"{said}\n  line {self.line}"


@dataclass(frozen=True, slots=True)
class Halt:
    """What a granted function returns to end the run there: the code cannot catch it.

    Attributes:
        value: What the caller of the run is told.
    """

    value: Any = None


@dataclass(frozen=True, slots=True)
class Execution:
    """What a run of code gave.

    Attributes:
        stdout: What it printed, at most as much as the limit says.
        value: The value of its last line, where that is an expression: plain data; what is not is given as a text.
        error: Why it failed; None when it did not.
        halt: The `Halt` of a granted function that ended it; None for none.
        lost: Whether the variables of the session are gone: after a limit of time or a crash, and after a `Halt`. The
            next run begins with none.
        calls: How many calls of granted functions it made.
    """

    stdout: str = ""
    value: Any = None
    error: CodeFault | None = None
    halt: Halt | None = None
    lost: bool = False
    calls: int = 0

    def shown(self, max_chars: int = 10_000) -> str:
        """What a reader is shown: the output, the value and the error, each cut so that all have room.

        Args:
            max_chars: The most characters of the output and of the value together.
        """
        parts = []
        value = "" if self.value is None else _written(self.value, max_chars)
        room = max(max_chars - len(value), max_chars // 2)
        if self.stdout:
            parts.append(cut(self.stdout, room).removesuffix("\n"))
        if value:
            parts.append(cut(value, max(max_chars - min(len(self.stdout), room), 1)))
        if self.error is not None:
            parts.append(str(self.error)[: max_chars + 1000])
        if self.lost and self.halt is None:
            parts.append("(all variables of earlier runs are gone)")
        return "\n".join(parts) or "(no output)"


def _written(value: Any, max_chars: int) -> str:
    """The `repr` of a value; of a long text only the part that will be shown is written."""
    return repr(value[: max_chars + 1]) if isinstance(value, str) else repr(value)


def cut(text: str, most: int) -> str:
    """A text, or its beginning with the number of characters that are left out."""
    return text if len(text) <= most else f"{text[:most]}... ({len(text) - most} characters more)"


def first_line(source: str | None) -> str:
    """A line of code, or the first one of several, as it is shown beside an error."""
    return (source or "").strip().partition("\n")[0][:200]
