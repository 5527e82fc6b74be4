"""LabeledFewShot: labelled examples as demos."""

from collections.abc import Sequence
from typing import Any

from promptgrad._habits import refuses
from promptgrad.autograd import Parameter
from promptgrad.data import Example
from promptgrad.optim._groups import Params
from promptgrad.optim._habits import LABELED_HABITS
from promptgrad.optim._nothing_to_label import nothing_to_label
from promptgrad.optim._optimizer import Optimizer
from promptgrad.optim._report import Change
from promptgrad.search import Measured, Session, best_demos, check_counts, fields_of, labeled_demos


class LabeledFewShot(Optimizer):
    """Put `k` labelled examples, drawn at random, into the demos of every module whose fields they have.

    In a loop of your own there are no labels to draw from, so `step()` uses `examples`, in their order, and needs no
    backward for that; without `examples`, it installs up to `k` of the scored traces in `.grad` that reached the full
    score.

    Cost: no LM call, except those that confirm the result in `Trainer.fit`.
    Source: DSPy's optimizer of this name. Differs: only examples that have all inputs of a module become its demos.

    Args:
        params: Parameters; those of kind "demos" are trained.
        k: Most demos for each module.
        examples: For `step()` outside a trainer: labelled examples to draw from.

    Raises:
        TypeError: `k` is not a whole number.
        ValueError: `k` is below one.
    """

    kinds = ("demos",)
    selects = False

    @refuses(LABELED_HABITS)
    def __init__(self, params: Params, k: int = 16, *, examples: Sequence[Example] = (), gate: float = 0.9) -> None:
        check_counts(k=(k, 1))
        super().__init__(params, {"k": k}, gate=gate)
        self._examples = list(examples)

    async def _propose(self) -> list[tuple[Parameter, Change]]:
        names = self.names()
        return [(p, self._change(names[p], p, int(group["k"]))) for p, group in self.trained()]

    def _change(self, path: str, parameter: Parameter, k: int) -> Change:
        old = parameter.data
        traces = parameter.grad.traces if parameter.grad is not None else ()
        fields = fields_of(parameter) or next(iter(traces), None)
        if self._examples and fields is not None:
            demos = labeled_demos(fields, self._examples)[:k]
            why = f"{len(demos)} labelled examples"
            none = (
                f"none of the {len(self._examples)} examples has every input of the module "
                f"({', '.join(fields.inputs)}) and one of its outputs ({', '.join(fields.outputs)})"
            )
        else:
            demos = best_demos(traces, k, None)
            why = f"{len(demos)} of {len(traces)} traces at full score"
            none = "no trace at full score" if traces else "no trace: call loss.backward() first"
        if not demos:
            return Change(path, parameter.kind, "untouched", none)
        return Change(path, parameter.kind, "proposed", why, old, tuple(demos))

    async def fit(self, session: Session) -> None:
        """Draw the demos and offer them."""
        most = {session.path_of(parameter): int(group["k"]) for parameter, group in self.trained()}
        values: dict[str, Any] = {}
        for place in session.places(self.kinds):
            demos = labeled_demos(place.signature, session.train)
            if demos:
                session.rng("labeled", place.path).shuffle(demos)
                values[place.path] = tuple(demos[: most[place.path]])
        if not values:
            raise nothing_to_label(session, self.kinds)
        count = sum(len(demos) for demos in values.values())
        candidate = session.base.child(values, f"{count} labelled demos")
        if session.val:
            measured = await session.evaluate(candidate, session.val, scope="labeled")
        else:
            measured = Measured(candidate, (), ())
        session.trial(measured)
        session.offer(measured)

    def expected_demos(self) -> tuple[int, int]:
        """Return the most traces, and the most demos."""
        return 0, max((int(group["k"]) for _, group in self.trained()), default=0)

    def expected_calls(self, plan: Any) -> list[tuple[str, float, bool]]:
        """Return no phase: drawing the demos makes no call."""
        return []
