"""`NLLLoss`, the criterion that makes the right replies of a local model likelier."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from promptgrad import aio
from promptgrad._habits import refuses
from promptgrad.adapters import get_adapter
from promptgrad.autograd import Loss, LossRow, Node, Tape
from promptgrad.data import Example
from promptgrad.errors import ContextWindowError, GraphError, InputError, ParseError
from promptgrad.lm import LM, Local, Request, current
from promptgrad.nn._batch import BatchRow
from promptgrad.nn._metric_loss import as_critic, pair
from promptgrad.nn._module import Module
from promptgrad.nn._predict import Predict

_NO_VALUE = ("size_average", "reduce", "reduction", "weight", "ignore_index", "label_smoothing")


@dataclass(frozen=True)
class _Call:
    """One call whose right reply is known; `error` in place of it where the forward did not come so far."""

    row: BatchRow
    request: Request | None = None
    reply: str = ""
    lm: Local | None = None
    node: Node | None = None
    error: BaseException | None = None


class NLLLoss(Module, in_place=True):
    """The mean cross-entropy, in nats, of the tokens of the right replies, given the program's own prompts.

    ```
    criterion = nn.NLLLoss()
    loss = criterion(model.map(batch), batch)           # the prompts that the forward sent
    loss = criterion(model, batch)                      # the same prompts without a call, for a program of one module
    loss.backward()                                     # exact gradients of model.weights()
    ```

    The right reply is the example's labels as the module's adapter writes them, with the end of the turn. It is judged
    at the last call of the module whose outputs are all in the example, whether or not the model's own reply parsed. A
    forward that did not come so far is an error row. Texts and demos get nothing from it: what is wrong in words comes
    from a metric, and `nn.NLLLoss()(outputs, batch) + criterion(outputs, batch)` gives both in one backward.

    Shape: one row an example. `loss.item()` is the mean over all tokens, `loss.items` has the mean of each reply.
    Cost: no LM call. A forward pass of the local model over prompts and replies, and in `backward()` another one with
    its backward pass; both in parts of up to 8,192 places, in which common beginnings of prompts are computed once.

    Args:
        module: The module, or its path in the program, where the examples hold the outputs of several.

    Raises:
        GraphError: When called with outputs: nothing was recorded, as under `no_grad` (`criterion(model, batch)` needs
            no record), or `backward` freed it.
        InputError: When called: the module is not on a local model; no module, or several, have all their outputs in an
            example; a label does not fit its field; or the numbers of outputs and examples differ.
    """

    _makes_loss: ClassVar[bool] = True

    @refuses(
        {
            **dict.fromkeys(
                _NO_VALUE, "nothing: the mean over tokens is loss.item(), that of each reply in loss.items"
            ),
            "critic": "nn.MetricLoss(metric, critic=...): the likelihood of a reply blames no text",
        }
    )
    def __init__(self, module: Module | str | None = None) -> None:
        super().__init__()
        if module is not None and not isinstance(module, (str, Module)):
            raise TypeError(f"an NLLLoss is about a module or the path of one, not {type(module).__name__}")
        self.__dict__["_about"] = module  # not a child of the criterion: its parameters are the program's

    async def forward(self, outputs: Any, examples: Any = None) -> Loss:
        """The loss of the right replies.

        Args:
            outputs: A `Batch`, a list of outputs, or one output; or the program, whose module is then asked about the
                inputs in the examples.
            examples: The examples in the same order, or the one example. A `Batch` has its own.
        """
        if isinstance(outputs, Module):
            calls = [self._labeled(outputs, example) for example in _listed(examples)]
        else:
            calls = [self._called(row) for row in pair(outputs, examples)]
        rows = await aio.in_thread(_judged, calls)
        return Loss(rows, concurrency=current().concurrency, as_critic=as_critic)

    def _called(self, row: BatchRow) -> _Call:
        """The call of a forward whose right reply the example has."""
        if row.tape is None:
            if row.error is not None:
                return _Call(row, error=row.error)
            raise GraphError(
                "nothing was recorded in the forwards of this loss, so the prompts are not known: they ran under "
                "no_grad(), or nothing in the program requires a gradient (lm.requires_grad_()). "
                "criterion(model, batch) needs no record"
            )
        if row.tape.freed:
            raise GraphError(
                "backward() freed what the forwards of this loss recorded: make all losses before it, or write "
                "backward(retain_graph=True)"
            )
        asked = [(path, module, node) for path, module, node in _asked(row.tape) if self._is_about(path, module)]
        found = {path: (module, node) for path, module, node in asked if _has(row.example, module.signature.outputs)}
        if not found and row.error is not None:
            return _Call(row, error=row.error)
        path = self._only(found, {path: module for path, module, _ in asked}, row.example, inputs=False)
        module, node = found[path]
        return _Call(row, node.request, _reply(module, path, row.example, node.lm), _local(node.lm, path), node)

    def _labeled(self, program: Module, example: Any) -> _Call:
        """The call that a program would make for the inputs in an example."""
        modules = {path: module for path, module in program.named_modules() if isinstance(module, Predict)}
        modules = {path: module for path, module in modules.items() if self._is_about(path, module)}
        found = {path: module for path, module in modules.items() if _has(example, module.signature.fields)}
        path = self._only(found, modules, example, inputs=True)
        module = found[path]
        lm = module.lm_of_call()
        request = module.request(**{name: example[name] for name in module.signature.inputs})
        return _Call(BatchRow(example), request, _reply(module, path, example, lm), _local(lm, path))

    def _is_about(self, path: str, module: Module) -> bool:
        about: Module | str | None = self.__dict__["_about"]
        return about is None or about is module or about == path

    def _only(self, found: Any, modules: dict[str, Predict], example: Any, *, inputs: bool) -> str:
        """The path of the one module whose fields an example has.

        Raises:
            InputError: There is none, or there are several.
        """
        if len(found) == 1:
            return str(next(iter(found)))
        if found:
            names = ", ".join(map(repr, found))
            raise InputError(
                f"example {_id(example)} has the outputs of several modules ({names}): say which one the loss is "
                "about, nn.NLLLoss('path')"
            )
        if not modules:
            about = self.__dict__["_about"]
            raise InputError(f"no call of {'a Predict' if about is None else repr(about)} is there to learn from")
        gaps = []
        for path, module in modules.items():
            wanted = module.signature.fields if inputs else module.signature.outputs
            gaps.append(f"{_name(path)} lacks {', '.join(name for name in wanted if not _has(example, (name,)))}")
        raise InputError(
            f"example {_id(example)} has the outputs of no module: {'; '.join(gaps)}. nn.MetricLoss learns from the "
            "program's own replies instead"
        )

    def extra_repr(self) -> str:
        """The module, if one was named."""
        about: Module | str | None = self.__dict__["_about"]
        return "" if about is None else repr(about) if isinstance(about, str) else type(about).__name__


def _asked(tape: Tape) -> Iterator[tuple[str, Predict, Node]]:
    """The calls of language models on a tape, with their modules."""
    for node in tape.nodes:
        if node.kind == "lm" and node.request is not None and isinstance(tape.program, Module):
            try:
                module = tape.program.get_submodule(node.path)
            except AttributeError:
                continue  # called, but not part of the program
            if isinstance(module, Predict):
                yield node.path, module, node


def _has(example: Any, names: Any) -> bool:
    return all(name in example for name in names)


def _reply(module: Predict, path: str, example: Any, lm: LM) -> str:
    """The labels as the module's adapter writes them.

    Raises:
        InputError: A label does not fit its field.
    """
    signature = module.signature
    try:
        values = {name: field.validate(example[name]) for name, field in signature.outputs.items()}
    except (InputError, ParseError) as error:
        raise InputError(f"example {_id(example)} does not fit {_name(path)}: {error}") from error
    adapter = get_adapter(module.adapter or current().adapter or lm.adapter)
    content = adapter.format(signature).assistant(values)
    if not isinstance(content, str):
        raise InputError(f"the outputs of {_name(path)} are not text alone, and a local model writes nothing else")
    return content


def _local(lm: LM, path: str) -> Local:
    """The local model behind an LM.

    Raises:
        InputError: There is none.
    """
    if isinstance(lm.transport, Local):
        return lm.transport
    raise InputError(
        f"{_name(path)} runs on {lm.name!r}, and only a local model tells how likely a given reply is: move it with "
        ".to(promptgrad.lm.Local('path or name of a Hugging Face model')), or use nn.MetricLoss(metric)"
    )


def _judged(calls: Sequence[_Call]) -> list[LossRow]:
    """A row for each call, with the likelihood of its right reply."""
    traces = []
    for call in calls:
        trace: Any = call.error
        if call.lm is not None and call.request is not None:
            try:
                trace = call.lm.target(call.request, call.reply)
                trace.check_length()
            except ContextWindowError as error:
                trace = error
        traces.append(trace)
    known = [place for place, trace in enumerate(traces) if not isinstance(trace, BaseException)]
    if calls and not known and not any(call.error is not None for call in calls):
        raise traces[0]
    scores = type(traces[known[0]]).log_likelihoods([traces[place] for place in known]) if known else []
    likely = dict(zip(known, scores, strict=True))
    return [_row(call, trace, likely.get(place)) for place, (call, trace) in enumerate(zip(calls, traces, strict=True))]


def _row(call: _Call, trace: Any, likelihood: float | None) -> LossRow:
    """The row of a call whose right reply has this log-likelihood; an error row where there is none."""
    row = call.row
    judged = LossRow(row.example, row.output, math.nan, best=0.0, tape=row.tape, replicate=row.replicate)
    if likelihood is None:
        return replace(judged, error=trace)
    size = len(trace.ids)
    return replace(judged, score=likelihood / size, node=call.node, weight=float(size), target=trace)


def _listed(examples: Any) -> list[Any]:
    """The examples of a batch.

    Raises:
        InputError: There are none.
    """
    if examples is None:
        raise InputError("write criterion(model, examples): a program does not know its examples")
    listed = [examples] if isinstance(examples, (Example, dict)) else list(examples)
    if not listed:
        raise InputError("the batch is empty: there is nothing to score")
    return listed


def _id(example: Any) -> str:
    return example.id if isinstance(example, Example) else repr(example)[:80]


def _name(path: str) -> str:
    return path or "the program"
