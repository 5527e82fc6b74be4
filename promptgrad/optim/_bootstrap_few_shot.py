"""BootstrapFewShot: the program's own successes as demos."""

from typing import Any

from promptgrad._habits import refuses
from promptgrad._numbers import check_counts
from promptgrad.autograd import Parameter
from promptgrad.optim._groups import Params
from promptgrad.optim._habits import BOOTSTRAP_HABITS
from promptgrad.optim._optimizer import Optimizer
from promptgrad.optim._report import Change
from promptgrad.search import Measured, Session, best_demos, bootstrap


class BootstrapFewShot(Optimizer):
    """Run the program (or a teacher) on training examples and keep the runs that went right as demos of each module.

    In a loop of your own, `step()` installs the best of the scored traces in `.grad`: after `loss.backward()` each
    demos parameter has one for every call of its module, and collecting them costs no LM call.

    Cost in `Trainer.fit`: at most one run of the program for each training example and round; it stops as soon as
    every module has its traces.
    Source: DSPy's optimizer of this name (Khattab et al. 2023, arXiv 2310.03714). Differs: examples run side by side
    in blocks, a teacher never sees the demo of an example in its block, and labelled demos fill up only modules
    whose fields the examples have.

    Args:
        params: Parameters; those of kind "demos" are trained.
        max_bootstrapped_demos: Most traces for each module.
        max_labeled_demos: Most demos for each module, labelled examples included; 0 for traces only.
        max_rounds: Tries for each training example; later ones only help LMs that sample.
        threshold: Score from which a run counts as right; None for the full score.
        teacher: LM (or name of one, or a program of the same structure) that makes the traces; None for the program
            on its own LM.

    Raises:
        ValueError: A number is out of range.
        TypeError: An argument is unknown: for those of DSPy the message names the replacement.
    """

    kinds = ("demos",)
    selects = False

    @refuses(BOOTSTRAP_HABITS)
    def __init__(
        self,
        params: Params,
        max_bootstrapped_demos: int = 4,
        max_labeled_demos: int = 16,
        max_rounds: int = 1,
        threshold: float | None = None,
        teacher: Any = None,
        *,
        gate: float = 0.9,
    ) -> None:
        check_counts(
            max_bootstrapped_demos=(max_bootstrapped_demos, 1),
            max_labeled_demos=(max_labeled_demos, 0),
            max_rounds=(max_rounds, 1),
        )
        super().__init__(params, gate=gate)
        self.max_bootstrapped_demos = max_bootstrapped_demos
        self.max_labeled_demos = max_labeled_demos
        self.max_rounds = max_rounds
        self.threshold = threshold
        self.teacher = teacher

    async def _propose(self) -> list[tuple[Parameter, Change]]:
        changes, names = [], self.names()
        for parameter, _ in self.trained():
            path, old = names[parameter], parameter.data
            traces = parameter.grad.traces if parameter.grad is not None else ()
            if not traces:
                change = Change(path, parameter.kind, "untouched", "no trace: call loss.backward() first")
            elif not (demos := best_demos(traces, self.max_bootstrapped_demos, self.threshold)):
                change = Change(path, parameter.kind, "untouched", f"none of {len(traces)} traces went right")
            elif tuple(demos) == old:
                change = Change(path, parameter.kind, "untouched", "the best traces are its demos already")
            else:
                reason = f"{len(demos)} of {len(traces)} traces"
                change = Change(path, parameter.kind, "proposed", reason, old, tuple(demos))
            changes.append((parameter, change))
        return changes

    async def fit(self, session: Session) -> None:
        """Collect traces and offer one set of demos."""
        paths = [place.path for place in session.places(self.kinds)]
        pool = await bootstrap(
            session,
            paths,
            wanted=self.max_bootstrapped_demos,
            max_labeled=self.max_labeled_demos,
            max_rounds=self.max_rounds,
            threshold=self.threshold,
            teacher=self.teacher if self.teacher is not None else session.teacher,
            within=True,
        )
        total = max(self.max_bootstrapped_demos, self.max_labeled_demos)
        values: dict[str, Any] = {}
        for path in paths:
            demos = pool.draw(path, None, bootstrapped=self.max_bootstrapped_demos, total=self.max_bootstrapped_demos)
            raw = [demo for key, demo in pool.labeled[path] if key not in pool.traces[path]]
            session.rng("bootstrap", "labeled", path).shuffle(raw)
            right = min(len(pool.traces[path]), self.max_bootstrapped_demos)
            demos = (*demos[:right], *raw[: total - right if self.max_labeled_demos else 0])
            if demos:
                values[path] = demos
        traces = sum(len(pool.traces[path]) for path in paths)
        session.decide("bootstrapped", tried=pool.tried, traces=traces)
        if not values:
            session.notes.append(
                f"none of {pool.tried} training runs went right"
                + (", and no example has the fields of a module with demos" if self.max_labeled_demos else "")
                + ": lower threshold=, or give a stronger teacher="
            )
            return
        besides = ", labelled demos besides" if self.max_labeled_demos else ""
        candidate = session.base.child(values, f"{traces} traces of {pool.tried} runs{besides}")
        if session.val:
            measured = await session.evaluate(candidate, session.val, scope="bootstrap/val")
        else:
            measured = Measured(candidate, (), ())
        session.trial(measured)
        session.offer(measured)

    def expected_demos(self) -> tuple[int, int]:
        """Return the most traces, and the most demos."""
        return self.max_bootstrapped_demos, max(self.max_bootstrapped_demos, self.max_labeled_demos)

    def expected_calls(self, plan: Any) -> list[tuple[str, float, bool]]:
        """Return the phase: at most one run for each training example and round."""
        return [("bootstrap", plan.train * self.max_rounds * plan.calls_per_example, False)]
