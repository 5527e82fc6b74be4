"""What a local model is trained on: conversations with the right reply, from labels or from successful runs."""

from __future__ import annotations

import contextlib
import copy
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from promptgrad import aio, lm
from promptgrad._numbers import check_number
from promptgrad.adapters import Adapter, get_adapter
from promptgrad.autograd import LossRow, Node, enable_grad
from promptgrad.data import Example
from promptgrad.errors import DataError, InputError, ParseError
from promptgrad.finetune._conversation import Conversation, Preference
from promptgrad.finetune._records import Records
from promptgrad.nn import MetricLoss, Module, Predict

FAILED = "failed run"
BELOW = "run below the threshold"
_FAILED_CALL = "failed call"
_UNLABELED = "example without the fields of a module"


@dataclass(frozen=True)
class Collected(Records[Conversation]):
    """The conversations of some runs, or of labels or a file; `filter`, `dedup`, `limit` and `save` are theirs.

    Attributes:
        samples: The calls of the successful runs, in the order of the data.
        runs: How many runs there were.
        right: How many were successful.
        errors: How many failed.
        dropped: How many runs, calls or lines were left out, by reason: runs that failed or scored below the threshold,
            calls that failed in a run that went right, duplicates, ...
    """

    samples: tuple[Conversation, ...]
    runs: int
    right: int
    errors: int
    dropped: Mapping[str, int] = field(default_factory=dict, hash=False)
    _known: ClassVar[tuple[str, ...]] = (FAILED, BELOW)

    def nothing(self) -> str:
        """Why there may be nothing to learn, and what to do about it."""
        failed = f", {self.errors} failed" if self.errors else ""
        lost = f" (left out: {lost})" if (lost := self.lost(known=False)) else ""
        return (
            f"{self.right} of {self.runs} runs went right{failed}, and no call of a module on the local model is among "
            f"them{lost}. Give a teacher= that does better (the program with demos, or a larger LM), a lower "
            "threshold=, or several runs n= of a model that samples"
        )

    def __repr__(self) -> str:
        lost = f"; left out: {lost}" if (lost := self.lost(known=False)) else ""
        return f"Collected({len(self.samples)} samples of {self.right} of {self.runs} runs, {self.errors} errors{lost})"


def listed(data: Any, what: str = "examples") -> list[Any]:
    """The items of the data of a training, all of one kind.

    Raises:
        TypeError: It is no collection, or a path or a single example.
        DataError: It holds records and examples.
    """
    if isinstance(data, (str, bytes, os.PathLike, Mapping, Example)) or not isinstance(data, Iterable):
        read = (
            ": read the file first, promptgrad.data.read_jsonl(path) or finetune.load_conversations(path)"
            if isinstance(data, (str, os.PathLike))
            else ""
        )
        raise TypeError(f"the data of a training is a collection of {what}, not {data!r:.80}{read}")
    items = list(data)
    records = {type(item).__name__ for item in items if isinstance(item, (Conversation, Preference))}
    if (records and not all(type(item).__name__ in records for item in items)) or len(records) > 1:
        kinds = sorted({type(item).__name__ for item in items})
        raise DataError(f"the data of a training are all of one kind, and these are {' and '.join(kinds)}")
    return items


async def arollouts(
    program: Module,
    data: Iterable[Example],
    metric: Any,
    n: int,
    teacher: Any = None,
    **how: Any,
) -> tuple[LossRow, ...]:
    """Recorded and scored runs of a copy of the program, or of a teacher, on data; `n` of each example in a row.

    `how` is passed on to `map`.

    Raises:
        DataError: There is no example.
        MetricError: The metric failed on every run.
    """
    examples = listed(data)
    if not examples:
        raise DataError("there are no examples to run: the data is empty")
    ran = teacher if isinstance(teacher, Module) else program
    runner = copy.deepcopy(ran).requires_grad_()  # so that it records
    for own, theirs in zip(runner.parameters(), ran.parameters(), strict=True):
        if theirs.kind.is_weights and theirs.requires_grad:
            own.data = theirs.data  # its replies are traced to the very weights that are trained
    with contextlib.ExitStack() as stack:
        stack.enter_context(enable_grad())
        if teacher is not None and not isinstance(teacher, Module):
            stack.enter_context(lm.context(lm=teacher, override=True))
        batch = await runner.amap(examples, n=n, **how)
        loss = await MetricLoss(metric).acall(batch, examples if n == 1 else None)
    return tuple(loss.rows)


async def acollect(
    program: Module,
    data: Iterable[Example],
    metric: Any,
    *,
    teacher: Any = None,
    n: int = 1,
    threshold: float | None = None,
    concurrency: int | None = None,
    progress: bool = False,
) -> Collected:
    """Run a program on data and keep the calls of the successful runs, as conversations to train it on.

    Each conversation is what the program itself sends for the inputs of the call, with its own instruction and demos,
    whatever the teacher's prompt was. The reply is the recorded one if the very same messages were sent, else the
    call's outputs as the program's adapter writes them. Of a module that passes tools (the adapter `tools`, a signature
    with tools) a record has these, and the calls in the reply. Of the two calls of the adapter `two_step` each is a
    record.

    Cost: `n` runs of the teacher for each example.

    Args:
        program: The program that will be trained.
        data: Examples.
        metric: Decides which runs are successful.
        teacher: A program of the same structure (the same one with demos, say), or an LM or its name for the program
            to run on; None for the program as it is.
        n: Runs for each example; several help a model that samples.
        threshold: Lowest score of a successful run; None for the best score.
        concurrency: Runs in flight.
        progress: Show a bar.

    Raises:
        DataError: There is no example, or the teacher is a program of another structure.
        MetricError: The metric failed on every run.
    """
    if threshold is not None:
        check_number("threshold", threshold)
    rows = await arollouts(program, data, metric, n, teacher, concurrency=concurrency, progress=progress)
    samples: list[Conversation] = []
    dropped: Counter[str] = Counter()
    right = 0
    for row in rows:
        if row.error is not None:
            dropped[FAILED] += 1
        elif row.score < (row.best if threshold is None else threshold):
            dropped[BELOW] += 1
        else:
            right += 1
            for node in _calls(row):
                try:
                    samples.append(_sample_of(program, node, row))
                except _NoRecord as error:
                    dropped[error.reason] += 1
    return Collected(tuple(samples), len(rows), right, dropped[FAILED], dict(+dropped))


collect = aio.blocking(acollect)


def samples_of(program: Module, row: LossRow) -> list[Conversation]:
    """Every call of one recorded run that can be a record, as the program itself would make it.

    Raises:
        DataError: The run called a module that the program does not have.
    """
    samples = []
    for node in _calls(row):
        with contextlib.suppress(_NoRecord):
            samples.append(_sample_of(program, node, row))
    return samples


def _calls(row: LossRow) -> list[Node]:
    return [node for node in (row.tape.nodes if row.tape is not None else ()) if node.kind == "lm"]


class _NoRecord(DataError):
    """A call cannot be a training record.

    Attributes:
        reason: Why, without the place.
    """

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path or 'the program'} cannot be trained on this: {reason}")
        self.reason = reason


def _sample_of(program: Module, node: Node, row: LossRow) -> Conversation:
    try:
        module = program.get_submodule(node.path)
    except AttributeError as error:
        raise DataError(f"the teacher called {node.path!r}, and the program has no such module") from error
    if not isinstance(module, Predict):
        raise DataError(f"{node.path!r} is a {type(module).__name__} in the program, not a Predict as in the teacher")
    if node.error is not None or not node.outputs:
        raise _NoRecord(node.path, _FAILED_CALL)
    score = None if row.error is not None else row.score
    return make_sample(module, node.path, node.inputs, node.outputs, node=node, example=row.example, score=score)


def make_sample(
    module: Predict,
    path: str,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    *,
    node: Node | None = None,
    example: Any = None,
    score: float | None = None,
) -> Conversation:
    """One call of a module as a conversation: what it sends for these inputs, and a reply that holds these outputs.

    Raises:
        _NoRecord: The adapter cannot write a reply, as a template cannot that only says how one is read.
    """
    adapter = adapter_of(module)
    form = adapter.format(module._described())
    messages = module.messages(**inputs)
    if node is not None and node.reply is not None and tuple(node.messages) == messages:
        reply, parts = node.reply, node.parts
    else:
        plain = {name: "".join(("", v)) if isinstance(v, str) else v for name, v in outputs.items()}
        try:
            written = lm.Message("assistant", form.assistant(plain))
        except InputError as error:
            raise _NoRecord(path, f"the adapter {adapter.name!r} cannot write the reply: {error}") from error
        reply, parts = written.text, written.parts
    made = Conversation(lm.unmarked(messages), reply, path, example.id if isinstance(example, Example) else "", score)
    if not form.is_varied:
        return made
    given = {name: field.validate(inputs[name]) for name, field in module.signature.inputs.items()}
    called = [part for part in parts if isinstance(part, lm.ToolCall)]
    return replace(
        made,
        calls=tuple(lm.ToolCall(f"call_{n}", call.name, call.arguments) for n, call in enumerate(called, 1)),
        tools=form.options(given).get("tools", ""),
    )


def labeled(program: Module, data: Iterable[Example]) -> Collected:
    """Make conversations of labels, without a call, for the module whose inputs and outputs are all in the examples.

    In a program of one module this is ordinary supervised data; in a program of several it serves one of them, if the
    examples have the fields of that module alone.

    Raises:
        DataError: There is no example, or not exactly one module whose fields are all in the examples; or its adapter
            cannot write a reply.
        InputError: A label does not fit its field.
    """
    examples = listed(data)
    if any(isinstance(example, Preference) for example in examples):
        raise DataError("these are preferences, which finetune.dpo learns from")
    if not examples:
        raise DataError("there are no examples to learn from: the data is empty")
    modules = [(path, module) for path, module in program.named_modules() if isinstance(module, Predict)]
    samples: list[Conversation] = []
    served: dict[str, None] = {}
    lacking: dict[str, list[str]] = {}
    right = 0
    for example in examples:
        before = len(samples)
        for path, module in modules:
            name = path or type(module).__name__
            missing = [field for field in module.signature.fields if field not in example]
            if missing:
                lacking.setdefault(name, missing)
                continue
            served[name] = None
            samples.append(_label_sample(module, path, example))
        right += len(samples) > before
    if not samples:
        gaps = "; ".join(f"{name} lacks {', '.join(fields)}" for name, fields in lacking.items())
        raise DataError(
            f"no module of the program can learn from the labels: {gaps or 'it has no Predict'}. Give a metric=, and "
            "the program learns from its own runs that went right"
        )
    if len(served) > 1:
        raise DataError(
            f"the examples have the fields of several modules ({', '.join(served)}), so it is not clear whose "
            "labels they hold. Give a metric=, and the program learns from its own runs that went right"
        )
    dropped = {_UNLABELED: len(examples) - right} if right < len(examples) else {}
    return Collected(tuple(samples), len(examples), right, 0, dropped)


def _label_sample(module: Predict, path: str, example: Example) -> Conversation:
    signature = module.signature
    try:
        values = {name: field.validate(example[name]) for name, field in signature.fields.items()}
    except (InputError, ParseError) as error:
        raise InputError(f"example {example.id} does not fit {path or 'the program'}: {error}") from error
    inputs = {name: values[name] for name in signature.inputs}
    outputs = {name: values[name] for name in signature.outputs}
    return make_sample(module, path, inputs, outputs, example=example)


def no_text(module: Predict) -> str:
    """Why the replies of a module are no texts, of which a pair is made; "" where they are."""
    adapter = adapter_of(module)
    if adapter.format(module.signature).is_varied:
        return f"the adapter {adapter.name!r} passes tools beside the messages, and a pair holds texts alone"
    return ""


def adapter_of(module: Predict) -> Adapter:
    """The adapter that a module uses in this context."""
    return get_adapter(module.adapter or lm.current().adapter or lm.resolve_lm(None, module.lm).adapter)
