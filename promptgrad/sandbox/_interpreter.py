"""`Interpreter`, what runs code; `CodeSession`, runs that share their variables; `Limits`, what bounds a run."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from promptgrad import aio
from promptgrad.sandbox._execution import Execution

if TYPE_CHECKING:
    from typing_extensions import Self

Functions = Mapping[str, Any]
"""Functions by name: plain ones, `async` ones, or modules."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a run of code.

    Attributes:
        seconds: The time that the code computes; calls of granted functions do not count. Of `Subprocess` it is that of
            the processor, so that a busy machine ends no program that would have come to its end; `Monty` takes it by
            the clock.
        memory: Bytes of all that the session holds.
        output: Characters that a run prints.
        calls: Calls of granted functions in a run.
        depth: Calls of functions inside one another.
        wall: The seconds by the clock that a run may take in `Subprocess`, where code may wait without computing; None
            for ten times `seconds` and 10 more. Calls of granted functions do not count.

    Raises:
        ValueError: A limit is not positive, or `wall` is shorter than `seconds`.
    """

    seconds: float = 5.0
    memory: int = 128 * 2**20
    output: int = 100_000
    calls: int = 1_000
    depth: int = 500
    wall: float | None = None

    def __post_init__(self) -> None:
        for name in ("seconds", "memory", "output", "calls", "depth", "wall"):
            value = getattr(self, name)
            if name == "wall" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise ValueError(f"the limit {name} is a positive number, not {value!r}")
        if self.wall is not None and self.wall < self.seconds:
            raise ValueError(f"the limit wall is at least that of seconds, {self.seconds:g}, not {self.wall!r}")


@runtime_checkable
class CodeSession(Protocol):
    """Runs of code that share their variables, as at Python's prompt. It is a context manager, which closes it.

    A class of your own that defines `arun` and `close` and extends this one has the rest.
    """

    async def arun(
        self, code: str, inputs: Mapping[str, Any] | None = None, functions: Functions | None = None
    ) -> Execution:
        """Run code. What goes wrong in it is the `error` of what this returns.

        Args:
            code: The code.
            inputs: Variables that it finds, by name: plain data.
            functions: The functions that it may call, by name, plain, `async`, or with an `acall`, as modules: for the
                code all of them are plain. Arguments and results are plain data. What one raises is raised in the code;
                one that returns a `Halt` ends the run.

        Raises:
            TypeError: An input is no plain data, or a name no name of a variable.
            SandboxError: The code cannot be run here at all.
        """
        ...

    def close(self) -> None:
        """End the session, and forget its variables."""
        ...

    def run(self, code: str, inputs: Mapping[str, Any] | None = None, functions: Functions | None = None) -> Execution:
        """Run code, and wait for its end; as `arun`."""
        return aio.drive(self.arun(code, inputs, functions))

    def __enter__(self) -> "Self":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@runtime_checkable
class Interpreter(Protocol):
    """What runs code that is not trusted. `Monty` and `Subprocess` are two.

    A class of your own that defines `session` and `about` and extends this one has the rest.
    """

    @property
    def about(self) -> str:
        """What the code may use, in words for the prompt of a language model that writes it."""
        ...

    def session(self) -> CodeSession:
        """Begin a session, without variables."""
        ...

    async def arun(
        self, code: str, inputs: Mapping[str, Any] | None = None, functions: Functions | None = None
    ) -> Execution:
        """Run code in a session of its own; see `CodeSession.arun`."""
        with self.session() as session:
            return await session.arun(code, inputs, functions)

    def run(self, code: str, inputs: Mapping[str, Any] | None = None, functions: Functions | None = None) -> Execution:
        """Run code in a session of its own, and wait for its end; see `CodeSession.arun`."""
        return aio.drive(self.arun(code, inputs, functions))
