"""`Tape`: the record of one top-level forward; and the log of parameters that were read."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from types import TracebackType
from typing import TYPE_CHECKING, Any

from promptgrad.aio import sequence
from promptgrad.autograd._mode import GRAD, mode
from promptgrad.autograd._node import AccumulateGrad, GradFn, Node, Read, _tick
from promptgrad.autograd._values import CONTAINERS, leaves, snapshot, snapshots

if TYPE_CHECKING:
    from promptgrad.autograd._edges import Edge
    from promptgrad.autograd._parameter import Parameter
    from promptgrad.autograd._program import Program


class ReadLog:
    """The parameters that were read, in order of the first read, with the values that were read."""

    __slots__ = ("_reads", "_tape")

    def __init__(self, tape: "Tape | None" = None) -> None:
        self._reads: dict[Parameter, Read] = {}
        self._tape = tape

    def note(self, read: Read) -> None:
        """Note that the program's code read a parameter."""
        self._reads.setdefault(read.parameter, read)

    def depend(self, read: Read) -> None:
        """Note that something read a parameter in a way that the graph sees by itself."""
        self._reads.setdefault(read.parameter, read)

    @property
    def reads(self) -> tuple[Read, ...]:
        """All reads, one for each parameter."""
        return tuple(self._reads.values())


_NO_PATHS: "Mapping[Parameter, str]" = {}

_log: ContextVar[ReadLog | None] = ContextVar("promptgrad.reads", default=None)
"""What notes reads in this context: a tape, or a log, which may have been opened while a tape recorded."""

current_log = _log.get


@contextmanager
def record_reads() -> Iterator[ReadLog]:
    """Log every parameter read in this context, whether anything is recorded or not: what a result depends on."""
    outer = _log.get()
    log = ReadLog(_tape_of(outer))
    _log.set(log)
    try:
        yield log
    finally:
        _log.set(outer)
        if outer is not None:
            for read in log.reads:
                outer.note(read)


def current_tape() -> "Tape | None":
    """The tape that records in this context; None where nothing does, or the grad mode forbids it."""
    log = _log.get()
    if log is None or mode.get() != GRAD:
        return None
    return log if log.__class__ is Tape else _tape_of(log)


def open_tape() -> "Tape | None":
    """The tape of the forward that runs in this context, also where the grad mode forbids it to record."""
    log = _log.get()
    return None if log is None else _tape_of(log)


def _tape_of(log: ReadLog | None) -> "Tape | None":
    return log if log is None or isinstance(log, Tape) else log._tape


class Tape(ReadLog):
    """The record of one top-level forward.

    ```
    tape = Tape(inputs)
    with tape.active():
        output = program.forward(**inputs)
        tape.finish(output)
    ```

    Attributes:
        nodes: The calls, in the order in which they started.
        notes: What else the program noted in the forward, such as the conditions of `nn.Suggest`.
        detached: Texts that the program detached, with their producer; None if other edges may leave the producer.
        inputs: What the forward was given, by name.
        output: What it returned.
        error: Why it failed; None when it did not.
        finished: Whether the forward is over.
        freed: Whether a backward has let go of what was recorded.
        began: When it was opened, among everything that is recorded.
        walkers: How many backward passes that keep the record work on it at this moment; -1 for one that frees it.
        paths: The paths of the program's parameters. They are kept when the rest is freed.
        player: Answers calls in place of their language models: a function of the node, the LM and the request, which
            returns a reply, outputs by field, or None to make the call after all. Without a player every call is made.

    Args:
        inputs: What the forward is given, by name.
        program: The module; constants in its code count as explained when edges are looked for.
        paths: The paths of the program's parameters.
    """

    __slots__ = (
        "_counters",
        "_edges",
        "_leaves",
        "_outer",
        "began",
        "detached",
        "error",
        "finished",
        "freed",
        "inputs",
        "nodes",
        "notes",
        "output",
        "paths",
        "player",
        "program",
        "walkers",
    )

    def __init__(
        self,
        inputs: Mapping[str, Any] | None = None,
        program: "Program | None" = None,
        *,
        paths: "Mapping[Parameter, str]" = _NO_PATHS,
    ) -> None:
        self._reads = {}
        self._tape = None
        self.inputs = {} if inputs is None else snapshots(inputs)
        self.program = program
        self.paths = paths
        self.player: Callable[[Node, Any, Any], Any] | None = None
        self.nodes: list[Node] = []
        self.notes: list[Any] = []
        self._leaves: dict[Parameter, AccumulateGrad] = {}
        self.detached: list[tuple[str, GradFn | None]] = []
        self.output: Any = None
        self.error: BaseException | None = None
        self.finished = False
        self.freed = False
        self.walkers = 0
        self.began = _tick()
        self._counters: dict[str, count[int]] = {}
        self._outer: ReadLog | None = None
        self._edges: tuple[Edge, ...] | None = None

    def active(self) -> "Tape":
        """A context manager in which calls are recorded here. An exception that leaves it finishes the tape."""
        return self

    def __enter__(self) -> "Tape":
        sequence.begin()
        self._outer = _log.get()
        _log.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _log.set(self._outer)
        if error is not None:
            self.finish(error=error)

    def node(
        self,
        path: str,
        kind: str = "lm",
        inputs: Mapping[str, Any] | None = None,
        module_name: str = "",
        output_fields: Iterable[str] = (),
        replicate: int = 0,
    ) -> Node:
        """Begin a node for a call that starts now. Its `read` and `finish` note the rest."""
        counter = self._counters.get(path)
        if counter is None:
            counter = self._counters.setdefault(path, count())
        nodes = self.nodes
        node = Node(self, path, next(counter), len(nodes), kind, inputs, module_name, output_fields, replicate)
        nodes.append(node)
        return node

    def finish(self, output: Any = None, *, error: BaseException | None = None) -> None:
        """End the forward with what it returned or why it failed. Later reads of predictions no longer count."""
        if not self.finished:
            self.output = snapshot(output) if type(output) in CONTAINERS else output
            self.error = error
            self.finished = True
            self._sort()

    def _sort(self) -> None:
        """Count the calls as the program made them, where tasks or threads made them side by side."""
        for node in self.nodes:
            if node.mark[0]:
                break
        else:
            return
        self.nodes.sort(key=lambda node: sequence.position(node.mark))
        counts: dict[str, int] = {}
        for order, node in enumerate(self.nodes):
            node.order = order
            node.index = counts.get(node.path, 0)
            counts[node.path] = node.index + 1

    @property
    def leaves(self) -> tuple[AccumulateGrad, ...]:
        """The parameters that the program's code read outside of calls."""
        return tuple(self._leaves.values())

    def note(self, read: Read) -> None:
        """Note that the program's code read a parameter: its text may turn up in the inputs of later calls."""
        self.depend(read)
        parameter = read.parameter
        if parameter not in self._leaves and not parameter.kind.is_demos and mode.get() == GRAD and not self.finished:
            self._leaves[parameter] = AccumulateGrad(parameter, read.version, read.value)

    def path_of(self, parameter: "Parameter") -> str:
        """The path of a parameter in the program; for one from elsewhere its own name, or ""."""
        return self.paths.get(parameter) or parameter.name

    def depend(self, read: Read) -> None:
        """Note that a call read a parameter."""
        self._reads.setdefault(read.parameter, read)
        if self._outer is not None:
            self._outer.depend(read)

    def detach(self, values: Iterable[Any], fn: GradFn | None) -> None:
        """Note that the program detached these values, and the producer that gets no edge because of it."""
        parts = [part for value in values for part, _ in leaves(value)]
        self.detached += [(str(part), fn) for part in parts if isinstance(part, (str, int, float))]
        if fn is not None:
            self.detached.append(("", fn))

    def free(self) -> None:
        """Let go of everything that was recorded; nodes keep their names."""
        self.freed = True
        for node in self.nodes:
            node.free()
        self._leaves = {}
        self.detached, self.notes = [], []
        self.inputs, self.output, self.program = {}, None, None
        self._edges = None
        self._reads = {}

    def __repr__(self) -> str:
        state = "freed" if self.freed else "finished" if self.finished else "recording"
        return f"<Tape of {len(self.nodes)} nodes, {state}>"


def paths_in(tapes: "Iterable[Tape | None]") -> "dict[Parameter, str]":
    """The paths of all parameters of the programs of some tapes; in the first of the programs that share one."""
    found: dict[Parameter, str] = {}
    seen: dict[int, None] = {}
    for tape in tapes:
        if tape is not None and id(tape.paths) not in seen:
            seen[id(tape.paths)] = None
            found.update({parameter: path for parameter, path in tape.paths.items() if parameter not in found})
    return found
