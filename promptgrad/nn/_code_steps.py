"""What `ProgramOfThought`, `CodeAct` and `RLM` share: steps in which a language model writes code, and it is run."""

import json
from collections.abc import Mapping
from typing import Annotated, Any

from promptgrad.adapters import Tool, get_adapter
from promptgrad.autograd import attach, current_tape
from promptgrad.content import Language
from promptgrad.errors import FATAL, InputError, ParseError, SignatureError, StepLimitError
from promptgrad.lm import ToolCall, current, resolve_lm
from promptgrad.nn._acting import cut
from promptgrad.nn._agent_tools import free_name, refuse_habits, result_tool, result_words
from promptgrad.nn._module import Module
from promptgrad.nn._plain import plain
from promptgrad.nn._predict import Predict
from promptgrad.nn._prediction import Prediction
from promptgrad.nn._program import begin_node
from promptgrad.nn._turns import Turns, answered, refuse_turns
from promptgrad.sandbox import CodeSession, Execution, Halt, Interpreter, Monty
from promptgrad.signature import Field, Signature, make_signature

SUBMIT = "submit"
"""The function that takes the result."""

LAST = "There are no more steps after this one. Submit now, with what you know."


class CodeRunner(Module):
    """The place of the interpreter in a program: runs of code are recorded as its calls.

    Args:
        interpreter: What runs code.
    """

    def __init__(self, interpreter: Interpreter) -> None:
        super().__init__()
        self.interpreter = interpreter

    def forward(self, code: str) -> str:
        """Run code in a session of its own, and return what a reader is shown."""
        return self.interpreter.run(code).shown()

    def record(self, inputs: Mapping[str, Any], outputs: dict[str, Any]) -> dict[str, Any]:
        """What a run gave, as that of a call with these inputs where calls are recorded."""
        tape = current_tape()
        node = None if tape is None else begin_node(self, tape, inputs, outputs, kind="function")
        outputs = attach(outputs, node)
        if node is not None:
            node.finish(outputs)
        return outputs

    def extra_repr(self) -> str:
        """The interpreter."""
        return repr(self.interpreter)


class OneRun:
    """A run of the code of one step: what it may call, and what came of it.

    Attributes:
        said: What the model wrote.
        made: What granted functions returned, as the graph knows it.
        outputs: What was submitted; None for nothing.
    """

    __slots__ = ("made", "outputs", "said")

    def __init__(self, said: Prediction) -> None:
        self.said = said
        self.made: list[Any] = []
        self.outputs: dict[str, Any] | None = None


class Granted:
    """A function for the code: it notes what it returned, and ends the run at an error that no code could avoid."""

    __slots__ = ("call", "run")

    def __init__(self, call: Any, run: OneRun) -> None:
        self.call = call
        self.run = run

    async def acall(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        try:
            value = await self.call(self.run, *args, **kwargs)
        except FATAL as error:
            return Halt(error)
        if isinstance(value, Halt):
            return value
        self.run.made.append(value)
        return plain(value)


class CodeSteps(Module, in_place=True):
    """A module in whose steps a language model writes code, which is run, until it submits the outputs.

    A class that extends it says what the code may call (`_functions`), and what a step is shown (`_shown`).
    """

    keeps_variables = True
    step: Predict

    def __init__(
        self,
        signature: str | Signature | type[Signature],
        max_steps: int,
        interpreter: Interpreter | None,
        max_chars: int,
        options: dict[str, Any],
    ) -> None:
        super().__init__()
        refuse_habits(type(self).__name__, options)
        check_counts({"max_steps": max_steps, "max_chars": max_chars})
        if interpreter is not None and not hasattr(interpreter, "session"):
            raise TypeError(f"interpreter is a sandbox.Interpreter, not {type(interpreter).__name__}")
        own = make_signature(signature, options.pop("instruction", None), options.pop("types", None))
        if not own.outputs:
            raise SignatureError(f"the signature of a {type(self).__name__} has an output, the result")
        self.own = own
        self.max_steps = max_steps
        self.max_chars = max_chars
        self.runner = CodeRunner(Monty() if interpreter is None else interpreter)

    def _check_names(self, *functions: str) -> None:
        for name in (SUBMIT, *functions):
            if name in self.own.inputs:
                raise SignatureError(f"the input {name!r} has the name of a function that the code calls: rename it")

    def _make_step(self, rules: str, inputs: list[Field], options: dict[str, Any]) -> None:
        own = self.own
        refuse_turns([field.name for field in inputs], type(self).__name__)
        told = Field(free_name("environment", own), str, "where your code runs, and what it may call", "input")
        outputs = [
            Field(free_name("thought", own), str, "what you know, and what to do next", "output"),
            Field(free_name("code", own), Annotated[str, Language("python")], "the code to run now", "output"),
        ]
        task = f"{own.instruction}\n\n{rules}" if own.instruction else rules
        self.step = Predict(Signature([told, *inputs, *outputs], task, name=own.name), **options)

    # ---- what differs

    def _functions(self) -> dict[str, Any]:
        """What the code may call besides `submit`: coroutine functions of the run and of the arguments, by name."""
        return {}

    def _described(self) -> str:
        """These functions in words, a line or more each."""
        return ""

    def _shown(self, given: dict[str, Any]) -> dict[str, Any]:
        """The inputs of a step besides `environment`."""
        return given

    async def _ended(self, given: dict[str, Any], run: OneRun, result: Execution) -> Prediction | None:
        """The output, where code that ran without an error and submitted nothing is enough."""
        return None

    # ---- the steps

    async def forward(self, /, *args: Any, **inputs: Any) -> Prediction:
        """Make steps until the code submits the outputs."""
        given = self._given(args, inputs)
        shown = {**self._shown(given), free_name("environment", self.own): self._environment()}
        bound = {name: plain(value) for name, value in given.items()}
        functions = self._functions()
        turns = Turns()
        session: CodeSession | None = None
        fault = ""
        try:
            for number in range(self.max_steps):
                run = OneRun(await self.step.acall(**shown, turns=turns))
                found = None if session is not None else bound
                if session is None:
                    session = self.runner.interpreter.session()
                result = await self._execute(session, run, found, functions)
                if run.outputs is not None:
                    return Prediction(self._record(given, run, run.outputs))
                if result.error is None:
                    output = await self._ended(given, run, result)
                    if output is not None:
                        return output
                if result.lost or not self.keeps_variables:
                    session.close()
                    session = None
                fault = "" if result.error is None else f"; its last error is: {result.error}"
                turns = self._more(turns, given, run, result, number)
        finally:
            if session is not None:
                session.close()
        raise StepLimitError(
            f"the code did not call `{SUBMIT}` within {self.max_steps} steps{fault}. Allow more of them, or look at "
            "promptgrad.inspect_history() for what the model wrote instead",
            steps=self.max_steps,
        )

    async def _execute(
        self, session: CodeSession, run: OneRun, bound: dict[str, Any] | None, functions: dict[str, Any]
    ) -> Execution:
        granted = {name: Granted(call, run) for name, call in {**functions, SUBMIT: self._submit}.items()}
        result = await session.arun(self._code(run), bound, granted)
        if result.halt is not None and isinstance(result.halt.value, BaseException):
            raise result.halt.value
        return result

    async def _submit(self, run: OneRun, /, *args: Any, **outputs: Any) -> Halt:
        run.outputs = self._fitting(named(self._finish, args, outputs))
        return Halt()

    def _fitting(self, outputs: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs, checked as those of a reply are; a number is as good as its digits for a text.

        Raises:
            ValueError: They do not fit.
        """
        texts = [field.name for field in self.own.outputs.values() if field.is_plain]
        said = {n: str(v) if n in texts and isinstance(v, (int, float)) else v for n, v in outputs.items()}
        try:
            read = self._finish.read(ToolCall("", SUBMIT, written(said)))
            return {name: field.validate(read[name]) for name, field in self.own.outputs.items()}
        except ParseError as error:
            raise ValueError(f"this does not fit: {error.reason}") from error

    def _record(self, given: Mapping[str, Any], run: OneRun, outputs: dict[str, Any]) -> dict[str, Any]:
        made = {f"result_{number}": value for number, value in enumerate(run.made, 1)}
        return self.runner.record(
            {**given, **made, free_name("code", self.own): run.said[free_name("code", self.own)]}, outputs
        )

    def _more(self, turns: Turns, given: Mapping[str, Any], run: OneRun, result: Execution, number: int) -> Turns:
        """The conversation with this step, and with what its code did."""
        seen = self._record(given, run, {"observation": cut(result.shown(self.max_chars), self.max_chars + 2000)})
        text = seen["observation"]
        adapter = self.step.adapter or get_adapter(current().adapter or resolve_lm(None, self.step._lm).adapter)
        spoken = adapter.format(self.step._signature).assistant(run.said.to_dict())
        told = f"The code {'ran' if result.error is None else 'failed'}: {json.dumps(text, ensure_ascii=False)}"
        if result.error is None:
            told += f"\n\nCall `{SUBMIT}` as soon as you know the result."
        if number + 2 >= self.max_steps:
            told += f"\n\n{LAST}"
        wrote = [run.said[free_name(name, self.own)] for name in ("thought", "code")]
        return turns.more(answered(spoken, f"step_{number}", told), [*wrote, text])

    def _code(self, run: OneRun) -> str:
        return str.__str__(run.said[free_name("code", self.own)])

    # ---- what the model is told

    @property
    def _finish(self) -> Tool:
        return result_tool(self.own, SUBMIT)

    def _environment(self) -> str:
        """Where the code runs and what it may call; the texts of descriptions keep their origin."""
        about = f"{self.runner.interpreter.about}\n\nIt may call, directly and not as an argument of `map` or a key:\n"
        return about + self._described() + result_words(self.own, SUBMIT)

    def _given(self, args: tuple[Any, ...], inputs: dict[str, Any]) -> dict[str, Any]:
        """The inputs by name, each of its type."""
        fields = self.own.inputs
        if args:
            if len(args) > 1 or len(fields) != 1 or inputs:
                names = ", ".join(f"{name}=..." for name in fields)
                raise InputError(f"{type(self).__name__} takes its inputs by name, ({names})")
            inputs = {next(iter(fields)): args[0]}
        if inputs.keys() != fields.keys():
            missing = [name for name in fields if name not in inputs]
            unknown = [name for name in inputs if name not in fields]
            parts = [f"is missing the input {name!r}" for name in missing] + [f"has no input {n!r}" for n in unknown]
            raise InputError(f"{type(self).__name__}({self.own!r}) {', and '.join(parts)}")
        for name, field in fields.items():
            if not field.is_plain or not isinstance(inputs[name], str):
                field.validate(inputs[name])
        return inputs

    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs of the signature."""
        return tuple(self.own.inputs)

    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs of the signature."""
        return tuple(self.own.outputs)


def named(tool: Tool, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by name, those that were passed by position in the order of the tool.

    Raises:
        TypeError: There are too many, or one is there twice.
    """
    names = list(tool.parameters["properties"])
    if len(args) > len(names):
        raise TypeError(f"{tool.name} takes {len(names)} arguments, and got {len(args)}")
    found = dict(zip(names, args, strict=False))
    if twice := [name for name in kwargs if name in found]:
        raise TypeError(f"{tool.name} got its argument {twice[0]!r} twice")
    return {**found, **kwargs}


def written(values: Mapping[str, Any]) -> str:
    """Arguments as JSON."""
    return json.dumps(plain(values), ensure_ascii=False, default=str)


def check_counts(counts: Mapping[str, Any]) -> None:
    """Raise `ValueError` where one of the values is no whole number of at least 1."""
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} is a whole number of at least 1, not {value!r}")
