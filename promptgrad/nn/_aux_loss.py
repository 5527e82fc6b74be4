"""`AuxLoss`, the criterion about the calls of one module in the middle of a forward."""

import difflib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from promptgrad.autograd import CriticLike, Loss, Node
from promptgrad.data import Score
from promptgrad.errors import InputError
from promptgrad.lm import LM, current
from promptgrad.nn._batch import BatchRow
from promptgrad.nn._critic import Critic
from promptgrad.nn._metric_loss import MetricLoss, as_critic, pair
from promptgrad.nn._module import Module
from promptgrad.nn._prediction import Prediction


class AuxLoss(MetricLoss):
    """Score the calls of one module, wherever in the forward they were made: an auxiliary loss.

    ```
    recall = nn.AuxLoss("search", metrics.recall(field="sources"))
    loss = criterion(outputs, batch) + 0.3 * recall(outputs, batch)
    ```

    Each recorded call of the module is a row of its own, and its feedback begins at that call: what came after it in
    the forward is not blamed. Added to another loss of the same outputs it costs no further pass, see `Loss.backward`.
    A forward that did not call the module gives no row, and a loss without rows adds nothing to a sum. A call that
    raised is an error row; a cancelled one gives no row.

    It judges recorded calls only: there are none under `no_grad`, so that a gated step (`step(closure)`) is measured by
    the other losses alone. Calls of `Predict`, `op` and `autograd.Function` are recorded, those of modules made of them
    are not.

    Shape: one row for each call, those of a forward in the order in which they were made; `item()` is the mean over
    the calls.
    Cost: none here, unless the metric itself calls LMs.

    Args:
        module: The module, or its path in the program.
        metric: `metric(example, output)`, as in `MetricLoss`; `output` is what the call returned: a `Prediction`, or
            the value of an op.
        critic: The critic that divides blame in `backward()`, as in `MetricLoss`.
        which: "all" of its calls in a forward, or only the "last".

    Raises:
        InputError: When called: the program has no such module, or the module's calls are not recorded.
        MetricError: When called: the metric failed on every row.
        ValueError: `which` is neither "all" nor "last".
    """

    def __init__(
        self,
        module: Module | str,
        metric: Callable[..., Any],
        critic: "Critic | CriticLike | LM | str | None" = None,
        *,
        which: Literal["all", "last"] = "all",
    ) -> None:
        if not isinstance(module, (str, Module)):
            raise TypeError(f"an AuxLoss is about a module or the path of one, not {type(module).__name__}")
        if which not in ("all", "last"):
            raise ValueError(f"which is 'all' or 'last', not {which!r}")
        super().__init__(metric, critic)
        self.__dict__["_about"] = module  # not a child of the criterion: its parameters are the program's
        self.which = which

    async def forward(self, outputs: Any, examples: Any = None) -> Loss:
        """The loss of the module's calls in the forwards of these outputs.

        Args:
            outputs: A `Batch`, a list of outputs, or one output.
            examples: The examples in the same order, or the one example. A `Batch` has its own.
        """
        calls = [(row, node) for row in pair(outputs, examples) for node in self._calls(row)]
        rows = [BatchRow(row.example, _returned(node), node.error, row.tape, row.replicate) for row, node in calls]
        scored = await self._scored(rows)
        marked = [replace(row, node=node) for row, (_, node) in zip(scored, calls, strict=True)]
        return Loss(marked, critic=self.critic, concurrency=current().concurrency, as_critic=as_critic)

    async def _feedback_by_module(self, row: BatchRow, score: Score) -> Score:
        """The score as it is: a row is about one call already."""
        return score

    def _calls(self, row: BatchRow) -> list[Node]:
        """The calls of the module in one forward."""
        if row.tape is None:
            return []
        program = row.tape.program
        path = self._path(program, row.tape.nodes)
        found = [node for node in row.tape.nodes if node.path == path and node.is_finished]
        return found[-1:] if self.which == "last" else found

    def _path(self, program: Any, nodes: list[Node]) -> str:
        """The path under which the calls are recorded."""
        about: Module | str = self.__dict__["_about"]
        called = list(dict.fromkeys(node.path for node in nodes))
        if isinstance(about, str) and about in called:
            return about
        if not isinstance(program, Module):
            return about if isinstance(about, str) else f"({type(about).__name__})"
        paths = {module: path for path, module in program.named_modules()}
        if isinstance(about, Module):
            if about not in paths:
                name = getattr(about, "__name__", None)  # an op that is not part of the program
                if name in called:
                    return str(name)
                raise InputError(f"this AuxLoss is about a {type(about).__name__} that is not part of {_name(program)}")
            path, module = paths[about], about
        else:
            try:
                module = program.get_submodule(about)
            except AttributeError:
                known = list(dict.fromkeys(filter(None, [*called, *paths.values()])))
                near = difflib.get_close_matches(about, known, 1)
                hint = (
                    f": did you mean {near[0]!r}?"
                    if near
                    else f": it has {', '.join(known)}"
                    if known
                    else ": it has no modules inside, and its own path is ''"
                )
                raise InputError(f"{_name(program)} has no module {about!r}{hint}") from None
            path = paths[module]
        inside = [other for other in called if not path or other.startswith(f"{path}.")]
        if path not in called and inside:
            raise InputError(
                f"the calls of {path or 'the program'} ({type(module).__name__}) itself are not recorded, only those "
                f"of the modules in it: choose one of {', '.join(inside)}"
            )
        return path

    def extra_repr(self) -> str:
        """The module and the metric."""
        about: Module | str = self.__dict__["_about"]
        return f"{about!r}, {self.metric!r}" if isinstance(about, str) else f"{type(about).__name__}, {self.metric!r}"


def _returned(node: Node) -> Any:
    """What a call returned to the program."""
    if tuple(node.outputs) == ("out",) and node.kind != "lm":
        return node.outputs["out"]
    return Prediction(node.outputs)


def _name(program: Module) -> str:
    return type(program).__name__
