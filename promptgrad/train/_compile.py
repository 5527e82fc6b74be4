"""`compile`: a program, data and a metric in, a better program out."""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal

from promptgrad import aio, run
from promptgrad._habits import refuses
from promptgrad.errors import JournalError
from promptgrad.lm import LM
from promptgrad.nn import Module
from promptgrad.optim import Auto, Search
from promptgrad.search import Candidate
from promptgrad.train import _rundir
from promptgrad.train._callback import AnyCallback, Callback
from promptgrad.train._habits import COMPILE_HABITS
from promptgrad.train._install import as_program
from promptgrad.train._result import FitResult
from promptgrad.train._trainer import Trainer

Size = Literal["light", "medium", "heavy"]

RUNS: dict[str, int] = {"light": 5, "medium": 15, "heavy": 50}
"""Runs of the program that a budget pays for, for each validation example."""

COUNTED = 20, 100
"""Least and most validation examples that a budget counts."""


@refuses(COMPILE_HABITS, "compile")
async def acompile(
    program: Module,
    trainset: Iterable[Any],
    metric: Any,
    *,
    valset: Iterable[Any] | None = None,
    testset: Iterable[Any] | None = None,
    budget: "Size | run.Budget" = "light",
    lm: LM | str | None = None,
    optimizer: Callable[[Any], Search] | None = None,
    run_dir: "str | os.PathLike[str] | None" = None,
    seed: int | None = None,
    critic: Any = None,
    teacher: Any = None,
    concurrency: int | None = None,
    progress: bool | None = None,
    callbacks: Iterable[AnyCallback] = (),
    synthesize: int = 0,
    report: Callable[[FitResult], object] | None = None,
) -> Module:
    """Improve a program and return a new one: `better = promptgrad.compile(program, trainset, metric)`.

    It is the short form of `Trainer(copy, optim.Auto(copy.parameters()), metric=metric, budget=...).fit(...)`: one
    search over instructions, demos and choices, a decision by all validation examples, and a new program only if it is
    better than the given one with a probability of 0.9. Otherwise a warning says why, and the program that is returned
    is a copy of the given one, which is never changed. Its language models are shared.

    ```python
    results = []
    better = pg.compile(program, trainset, metric, budget="medium", lm="openai/gpt-4o", report=results.append)
    print(results[0])
    ```

    With `run_dir` every paid call is journalled. If the folder holds a run of the same program, data, budget and
    metric, that run is continued: the same line starts a run, resumes one that was killed, and returns the result of
    one that has ended.

    Cost: `budget`. "light", "medium" and "heavy" pay for 5, 15 and 50 runs of the program for each validation example
    (at least 20 of them count, and at most 100), where one run is a call for each `Predict`; writers and critics are
    paid from it too. With 40 validation examples and a program of one call that is 200, 600 and 2,000 calls. A
    `testset` comes on top: it is run twice, or once if nothing ships.

    Args:
        program: The program.
        trainset: Examples to learn from.
        metric: `metric(example, output)`, as in `evaluate`; DSPy's `(gold, pred, trace)` is accepted.
        valset: Examples to choose on; None sets half of `trainset` aside for that.
        testset: Examples for the report only.
        budget: "light", "medium", "heavy", or a `Budget`.
        lm: LM that writes texts; None for that of the program.
        optimizer: Function of the parameters that makes another optimizer, such as `optim.GEPA`.
        run_dir: Folder of the journal; None keeps it in memory.
        seed: Seed of all choices; None for that of `promptgrad.manual_seed`.
        critic: LM that divides blame; None for the LM of the module that is blamed.
        teacher: LM or program whose successes become demos; None for the program itself.
        concurrency: Examples in flight.
        progress: Show progress bars; None for terminals and notebooks only.
        callbacks: Observers of the run, as for `Trainer`.
        synthesize: Training examples to have, the rest of which a language model writes, as for `Trainer`.
        report: Function that is given the `FitResult`, such as `print`; after Ctrl-C or an error that of the part that
            was run, with the outcome "interrupted" and the best values so far.

    Raises:
        TypeError: The program is not a module, the budget is neither a `Budget` nor one of the three names, or
            `optimizer` is not a function that makes one.
        ValueError: The budget is another name; or `lm` stands beside `optimizer`, which has its own.
        JournalError: `run_dir` holds another run.
        Exception: What `Trainer.fit` raises.
    """
    if not isinstance(program, Module):
        raise TypeError(f"compile improves a promptgrad.nn.Module, not {type(program).__name__}")
    given: object = optimizer
    if given is not None and not callable(given):
        raise TypeError(
            f"optimizer is a function of the parameters, as optim.GEPA or lambda params: optim.GEPA(params, steps=10), "
            f"since compile improves a copy: not an object of the class {type(given).__name__}"
        )
    if optimizer is not None and lm is not None:
        raise ValueError("lm= is for the default optimizer: give it to your own, as in lambda params: TGD(params, lm)")
    data = {"train": list(trainset)}
    data |= {name: list(rows) for name, rows in (("val", valset), ("test", testset)) if rows is not None}
    student = as_program(program, Candidate())
    made = Auto(student.parameters(), lm) if optimizer is None else optimizer(student.parameters())
    options: dict[str, Any] = {"critic": critic, "teacher": teacher, "concurrency": concurrency, "progress": progress}
    kept = _Kept()
    options["callbacks"] = (*callbacks, kept)
    trainer = Trainer(student, made, metric=metric, run_dir=run_dir, seed=seed, synthesize=synthesize, **options)
    trainer.budget = budget if isinstance(budget, run.Budget) else _budget(budget, trainer, data)
    try:
        if run_dir is not None and _rundir.exists(Path(run_dir)):
            _check_same(Path(run_dir), trainer)
            result = await Trainer.aresume(run_dir, student, made, metric, data=data, **options)
        else:
            result = await trainer.afit(data["train"], data.get("val"), data.get("test"))
    except BaseException:  # Ctrl-C too
        if report is not None and kept.result is not None:
            report(kept.result)
        raise
    if report is not None:
        report(result)
    if not result.shipped:
        gain = "" if result.gain is None else f" (gain {result.gain})"
        notes = "".join(f"; {note}" for note in result.notes)
        aio.warn(f"the program is as it was: {result.outcome}, {result.reason}{gain}{notes}", UserWarning)
    return student if result.program is None else result.program


compile = aio.blocking(acompile)


class _Kept(Callback):
    """Keeps the result of a run, also of one that was stopped."""

    result: FitResult | None = None

    def on_fit_end(self, trainer: Any, result: FitResult) -> None:
        """Keep it."""
        self.result = result


def _budget(size: Any, trainer: Trainer, data: dict[str, list[Any]]) -> run.Budget:
    """The calls that a named budget pays for, for this program and this data."""
    if not isinstance(size, str):
        raise TypeError(f"budget is a promptgrad.Budget, or one of {', '.join(map(repr, RUNS))}, not {size!r}")
    if size not in RUNS:
        raise ValueError(f"budget is one of {', '.join(map(repr, RUNS))}, or a promptgrad.Budget, not {size!r}")
    plan = trainer.plan(data["train"], data.get("val"), data.get("test"))
    counted = min(max(plan.val + plan.confirm, COUNTED[0]), COUNTED[1])
    test = sum(phase.calls for phase in plan.phases if phase.name == "test")
    return run.Budget(calls=round(RUNS[size] * counted * plan.calls_per_example) + test)


def _check_same(folder: Path, trainer: Trainer) -> None:
    """Check that a folder holds a run with this budget and seed; the rest is checked when it is resumed.

    Raises:
        JournalError: It does not.
    """
    saved = _rundir.read(folder).settings
    known, given = saved["budget"], {name: value for name, value in vars(trainer.budget).items() if value is not None}
    if known != given:
        raise JournalError(f"{folder} holds a run with the budget {run.Budget(**known)}, not {trainer.budget}")
    if saved["seed"] != trainer.seed:
        raise JournalError(f"{folder} holds a run with the seed {saved['seed']}, not {trainer.seed}")
