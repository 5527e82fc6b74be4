"""What a `Text` can come from: a recorded call, a parameter, or several of them joined.

Recording is cheap on purpose: a node holds references to what was passed and what came back. Which node fed which is
computed on demand (`_edges`), that is, at backward, and only for forwards that failed.
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from promptgrad.aio import sequence
from promptgrad.autograd._handle import RemovableHandle
from promptgrad.autograd._values import snapshots

if TYPE_CHECKING:
    from promptgrad.autograd._critic import WeightTrace
    from promptgrad.autograd._parameter import Parameter
    from promptgrad.autograd._rules import Rule
    from promptgrad.autograd._tape import Tape

_clock = count(1)
_tick = _clock.__next__
"""Ticks when a call starts and when it ends. An edge from what ended to what started later can never close a cycle."""

UNFINISHED = 1 << 62


class Read(NamedTuple):
    """One parameter as a call read it.

    `version` is the parameter's version, -1 for a value laid over it by `candidate`; `name` is the reader's name for
    the parameter.
    """

    parameter: "Parameter"
    version: int
    value: Any
    name: str = ""


class GradFn:
    """Where a value came from: a vertex of the graph. Its kinds are `Node`, `Join`, `Pick` and `AccumulateGrad`."""

    __slots__ = ("_value_hooks", "finished")

    kind: str = ""
    finished: int
    _value_hooks: "dict[int, Callable[[tuple[str, ...]], Any]]"  # set by the first hook only

    @property
    def place(self) -> int:
        """Its place in time: every source comes before what uses it, and calls are in the order of their starts."""
        return self.finished

    @property
    def value_hooks(self) -> "Iterable[Callable[[tuple[str, ...]], Any]]":
        """What `Text.register_hook` added, in order."""
        return tuple(getattr(self, "_value_hooks", {}).values())

    def register_hook(self, hook: "Callable[[tuple[str, ...]], Any]") -> RemovableHandle:
        """Call `hook(feedback)` in backward with the critiques of the value; see `Text.register_hook`."""
        if not hasattr(self, "_value_hooks"):
            self._value_hooks = {}
        return RemovableHandle(self._value_hooks, hook)


class Join(GradFn):
    """A text made of several. The rule of "join" passes its critiques on to the parts."""

    __slots__ = ("sources",)

    kind = "join"

    def __init__(self, sources: tuple[GradFn, ...]) -> None:
        self.finished = _tick()
        self.sources = sources

    def __repr__(self) -> str:
        return f"<Join of {len(self.sources)}>"


class Pick(Join):
    """One of several outputs of a function. Its critiques go to the function, with the output's number."""

    __slots__ = ("output",)

    kind = "function"

    def __init__(self, source: GradFn, output: int) -> None:
        super().__init__((source,))
        self.output = output

    def __repr__(self) -> str:
        return f"<Pick {self.output} of {self.sources[0]!r}>"


class AccumulateGrad(GradFn):
    """A parameter's value, as it entered the program's text."""

    __slots__ = ("parameter", "value", "version")

    kind = "parameter"

    def __init__(self, parameter: "Parameter", version: int, value: Any) -> None:
        self.finished = _tick()
        self.parameter = parameter
        self.version = version
        self.value = value

    def __repr__(self) -> str:
        return f"<AccumulateGrad {self.parameter.name or self.parameter.kind}>"


class Node(GradFn):
    """One call of a module, as it was recorded.

    Attributes:
        path: The module's path in the program.
        index: How many calls of this path came before it on the same tape.
        order: Its place on the tape: the order of the program, whatever the order in which tasks and threads ran; until
            the forward is over, the order in which calls started.
        mark: Where the program stood when it made the call.
        kind: "lm", or the kind whose rule (`register_rule`) passes its critiques on: "function", "retriever", ...
        inputs: What was passed, by field; lists and dicts as they were at that moment.
        reads: The parameters it read.
        request: The messages with their sampling options, by which equal calls are recognised; None for a call without
            an LM.
        reply: What came back, as text, without the model's reasoning.
        parts: What came back, in parts, where it is more than text: calls of tools, reasoning; else empty.
        reasoning: The model's reasoning before its reply, as far as its provider or its text shows it; empty for none.
        outputs: What the call returned, by field.
        usage: What it cost.
        error: Why it failed; None when it did not.
        hooks: Called by backward as `hook(node, feedback, blame)`, once the blame of this call is divided; what a hook
            returns, if not None, replaces the blame by target.
        weight_traces: What a local model needs to compute the gradient of its weights.
        rule: Its own backward rule; None for the rule of its kind.
        replicate: The rollout that it belongs to.
        module_name: The class of the module, for display.
        output_fields: Names of the outputs that the call is declared to have.
        lm: The language model that answered.
        touched: The outputs that the program's code read.
    """

    __slots__ = (
        "_messages",
        "_raw",
        "error",
        "hooks",
        "index",
        "inputs",
        "kind",
        "lm",
        "mark",
        "module_name",
        "order",
        "output_fields",
        "outputs",
        "parts",
        "path",
        "reads",
        "reasoning",
        "replicate",
        "reply",
        "request",
        "rule",
        "started",
        "tape",
        "touched",
        "usage",
        "weight_traces",
    )

    def __init__(
        self,
        tape: "Tape",
        path: str,
        index: int,
        order: int,
        kind: str = "lm",
        inputs: Mapping[str, Any] | None = None,
        module_name: str = "",
        output_fields: Iterable[str] = (),
        replicate: int = 0,
    ) -> None:
        self.tape = tape
        self.path = path
        self.index = index
        self.order = order
        self.kind = kind
        self._raw: Mapping[str, Any] = {} if inputs is None else inputs
        self.inputs: dict[str, Any] = snapshots(self._raw)
        self.reads: list[Read] = []
        self._messages: Any = None
        self.request: Any = None
        self.reply: str | None = None
        self.parts: tuple[Any, ...] = ()
        self.reasoning = ""
        self.outputs: dict[str, Any] = {}
        self.usage: Any = None
        self.error: BaseException | None = None
        self.weight_traces: list[WeightTrace] = []
        self.hooks: tuple[Callable[..., Any], ...] = ()
        self.rule: Rule | None = None
        self.replicate = replicate
        self.module_name = module_name
        self.output_fields = tuple(output_fields)
        self.lm: Any = None
        self.touched: list[str] = []
        self.mark = sequence.step()
        self.started = _tick()
        self.finished = UNFINISHED

    @property
    def is_finished(self) -> bool:
        """Whether the call came to an end; a cancelled one has no outputs."""
        return self.finished != UNFINISHED

    @property
    def place(self) -> int:
        """When the call started."""
        return self.started

    @property
    def rank(self) -> tuple[int, int]:
        """Its order, across tapes."""
        return self.tape.began, self.order

    @property
    def messages(self) -> Any:
        """What was sent: the messages of the request, unless others are set."""
        told = self._messages
        if told is None:
            return () if self.request is None else self.request.messages
        return told

    @messages.setter
    def messages(self, messages: Any) -> None:
        self._messages = messages

    def read(self, parameter: "Parameter", name: str = "") -> Any:
        """The parameter's value, noted as read by this call. `name` is what the module calls it: "instruction"."""
        read, tape = parameter.read(name), self.tape
        self.reads.append(read)
        tape._reads.setdefault(parameter, read)
        if tape._outer is not None:
            tape._outer.depend(read)
        return read.value

    def name_of(self, read: Read) -> str:
        """The name of a parameter that this call read: its path in the program, else a name after the call."""
        parameter = read.parameter
        return self.tape.path_of(parameter) or f"{self.path}.{read.name or parameter.kind}".removeprefix(".")

    def finish(
        self,
        outputs: Mapping[str, Any] | None = None,
        *,
        error: BaseException | None = None,
        **facts: Any,
    ) -> "Node":
        """Note what the call returned, or why it failed; `facts` are other attributes of the node by name.

        The texts in `outputs` should carry this node as their `grad_fn`: `attach` does that.
        """
        if outputs is not None:
            self.outputs = dict(outputs)
        for name, value in facts.items():
            setattr(self, name, value)
        self.error = error
        self.finished = _tick()
        return self

    def touch(self, field: str) -> None:
        """Note that the program's code read an output field; what is read after the forward does not count."""
        if not self.tape.finished and field not in self.touched:
            self.touched.append(field)

    def free(self) -> None:
        """Let go of everything that was passed, sent and returned."""
        self._raw = {}
        self.inputs, self.outputs = {}, {}
        self._messages = self.request = self.reply = self.usage = None
        self.parts = ()
        self.weight_traces, self.reads = [], []
        self.rule = None

    def __repr__(self) -> str:
        return f"<{self.module_name or self.kind} {self.path}[{self.index}]>"
