"""Small programs whose calls are played, and a critic that answers from a script."""

from collections.abc import Callable, Mapping
from typing import Any

from promptgrad import aio
from promptgrad.autograd import LossRow, NodeFailure, Parameter, Tape, attach, current_tape


class Record:
    """What a call returns: fields as attributes; reading one is noted."""

    def __init__(self, fields: dict[str, Any], node: Any) -> None:
        self._fields = fields
        self._node = node

    def __getattr__(self, name: str) -> Any:
        if self._node is not None:
            self._node.touch(name)
        return self._fields[name]

    def __record__(self):
        return self._node, self._fields

    def keys(self):
        return self._fields.keys()

    def __getitem__(self, name):
        return getattr(self, name)


class Call:
    """A module with an instruction and demos, which says what it is told to say."""

    def __init__(self, path: str, say: Callable[..., Any], *, kind: str = "lm", requires_grad: bool = True) -> None:
        self.path = path
        self.say = say
        self.kind = kind
        self.instruction = Parameter(f"do {path}", requires_grad=requires_grad)
        self.instruction.name = f"{path}.instruction"
        self.demos = Parameter((), "demos")
        self.demos.name = f"{path}.demos"

    def __call__(self, **inputs: Any) -> Record:
        tape = current_tape()
        node = None
        if tape is not None:
            node = tape.node(self.path, kind=self.kind, inputs=inputs, module_name="Call")
            if self.kind == "lm":
                node.read(self.instruction, "instruction")
                node.read(self.demos, "demos")
        try:
            outputs = self.say(**inputs)
        except Exception as error:
            if node is not None:
                node.finish(error=error)
            raise
        outputs = outputs if isinstance(outputs, Mapping) else {"out": outputs}
        outputs = attach(dict(outputs), node)
        if node is not None:
            node.finish(outputs)
        return Record(outputs, node)


def run(
    forward: Callable[..., Any], program: Any = None, *, raises: type[BaseException] | None = None, **inputs: Any
) -> tuple[Any, Tape]:
    """One recorded forward, which raises an error of the class `raises`, if any, and no other."""
    tape = Tape(inputs, program)
    output = None
    try:
        with tape.active():
            output = forward(**inputs)
            tape.finish(output)
    except BaseException as error:
        if raises is None or not isinstance(error, raises):
            raise
    else:
        assert raises is None, f"the forward did not raise {raises.__name__}"
    return output, tape


def row(
    forward: Callable[..., Any],
    example: Any,
    score: float = 0.0,
    feedback: str = "wrong",
    *,
    raises: type[BaseException] | None = None,
    **inputs: Any,
) -> LossRow:
    """One recorded forward, judged; one that `raises` is the row of a failed sample."""
    output, tape = run(forward, raises=raises, **inputs)
    return LossRow(example, output, score, feedback=feedback, tape=tape, error=tape.error)


class ScriptedCritic:
    """Says `blame(path, target, feedback)`, in any order of completion; keeps what it was asked."""

    def __init__(self, blame: Callable[[str, str, tuple[str, ...]], str] | None = None, *, delays: Any = None) -> None:
        self.blame = blame or (lambda path, target, feedback: f"{path}.{target}: {' & '.join(feedback)}")
        self.delays = delays
        self.asked: list[NodeFailure] = []

    async def critique(self, failure: NodeFailure) -> Mapping[str, str]:
        self.asked.append(failure)
        if self.delays is not None:
            await aio.sleep(self.delays.random() * 0.003)
        node = failure.node
        return {target.name: self.blame(node.path, target.name, failure.feedback) for target in failure.targets}

    @property
    def calls(self) -> list[tuple[str, int]]:
        return [(failure.node.path, failure.node.index) for failure in self.asked]


def texts(parameter: Parameter) -> list[str]:
    """What was said of a parameter."""
    return [] if parameter.grad is None else [critique.text for critique in parameter.grad.critiques]
