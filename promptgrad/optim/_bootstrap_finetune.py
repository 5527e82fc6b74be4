"""BootstrapFinetune: the weights of the program's model, trained on the program's own successes."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from promptgrad._habits import refuses
from promptgrad.autograd import LossRow
from promptgrad.data import Example
from promptgrad.errors import BudgetExceeded, DataError
from promptgrad.finetune import (
    LORA,
    Conversation,
    JobResult,
    TuneResult,
    ajob,
    asft,
    is_served,
    job_lms,
    local_lms,
    samples_of,
)
from promptgrad.nn import Module
from promptgrad.optim._groups import Params
from promptgrad.optim._habits import FINETUNE_HABITS
from promptgrad.optim._weight_search import WeightSearch
from promptgrad.search import Place, Session, check_counts, demos_of, labeled_demos, places

BLOCK = 16
"""Examples that are run side by side."""

_JOB_OPTIONS = ("model", "suffix", "learning_rate_multiplier", "seed", "max_length", "skip_long", "poll")


class BootstrapFinetune(WeightSearch):
    """Run the program (or a teacher) on training examples and fine-tune its model on the runs that went right.

    The first round has labelled examples as demos, where a module has the fields for them and no demos of its own;
    its first block of examples is run without them too, and where that goes right more often, so is the rest. A
    later round repeats the examples that failed, with successful runs as demos there, and with labelled examples in
    place of demos that the program has. The trained program needs no demos: it learns the replies to its own
    prompts. The parameters keep their values; only the language model of the program changes. It works only in
    `Trainer.fit`; elsewhere, call `promptgrad.finetune.sft`. With `run_dir` the run's folder has the checkpoints of
    the training too: a run that was killed goes on from the last one, and trains nothing again once the training is
    over.

    A program on the model of a provider has it trained there, by `finetune.job`, and `fit` waits for its end; the
    run's folder has the state of that job, so that a run that was killed begins none twice. What a job costs is not
    known before, so a budget in money refuses it, before any run; one in seconds ends the wait, and not the job.

    Cost in `Trainer.fit`: at most one run of the program for each training example and round, 16 more in the first
    one where it has labelled demos, and the training, which calls no LM (about ten seconds for 60 steps of the
    embedded model on two cores).
    Source: DSPy's optimizer of this name (Soylu et al. 2024, arXiv 2407.10930). Differs: the training is a loop in
    this process, the program is not changed unless the trained one is confirmed to be better, and a call of a module
    in a loop is a sample like any other.

    Args:
        params: The program, or any of its parameters, as none of them is changed.
        max_labeled_demos: Most labelled demos, in the first round for modules without demos, in later ones for those
            that have; the examples have to have their fields, and none sees its own label. 0 for the program as it is.
        max_bootstrapped_demos: Most successful runs used as demos in later rounds, in modules that have no demos.
        max_rounds: Tries for each training example; it ends sooner when a round adds nothing.
        threshold: Score from which a run counts as right; None for the full score.
        teacher: LM (or name of one, or a program of the same structure) that makes the runs; None for the program on
            its own LM.
        lora: `r`, `alpha`, `dropout`, `target_modules`; None trains all weights. It, `steps`, `lr` and what follows
            `batch_size` are of local models.
        steps: Optimizer steps; by default three epochs, and at least 60 steps.
        epochs: Passes over the samples, instead of `steps`.
        lr: Peak learning rate; the default depends on the model's size.
        batch_size: Samples in a step; by default 32, or what the provider takes.
        micro_batch_tokens: Most tokens in the model at once, as in `finetune.sft`.
        gradient_checkpointing: Compute activations twice rather than keep them.
        dtype: "bfloat16" computes in it.
        checkpoint_every: Steps between two checkpoints.
        job: Options of `promptgrad.finetune.job` for a provider's model: `model`, `suffix`,
            `learning_rate_multiplier`, `seed`, `max_length`, `skip_long`, `poll`.

    Attributes:
        result: The result of `promptgrad.finetune` in the last `fit`, of a provider's model a `JobResult`; None before.

    Raises:
        ValueError: A number is out of range, or `fit` finds options for another kind of model than the program's.
        TypeError: A count is not a whole number, or `job` has an unknown option.
    """

    @refuses(FINETUNE_HABITS)
    def __init__(
        self,
        params: Params | Module,
        max_labeled_demos: int = 16,
        max_bootstrapped_demos: int = 4,
        max_rounds: int = 2,
        threshold: float | None = None,
        teacher: Any = None,
        *,
        lora: Mapping[str, Any] | str | None = LORA,
        steps: int | None = None,
        epochs: float | None = None,
        lr: float | None = None,
        batch_size: int | None = None,
        micro_batch_tokens: int | None = None,
        gradient_checkpointing: bool = False,
        dtype: Any = None,
        checkpoint_every: int = 50,
        job: Mapping[str, Any] | None = None,
    ) -> None:
        check_counts(
            max_rounds=(max_rounds, 1),
            checkpoint_every=(checkpoint_every, 1),
            batch_size=(1 if batch_size is None else batch_size, 1),
            max_labeled_demos=(max_labeled_demos, 0),
            max_bootstrapped_demos=(max_bootstrapped_demos, 0),
        )
        if unknown := [name for name in job or () if name not in _JOB_OPTIONS]:
            raise TypeError(f"job= has no option {unknown[0]!r}; it has {', '.join(_JOB_OPTIONS)}")
        super().__init__(params)
        self.max_labeled_demos = max_labeled_demos
        self.max_bootstrapped_demos = max_bootstrapped_demos
        self.max_rounds = max_rounds
        self.threshold = threshold
        self.teacher = teacher
        self.lora = dict(lora) if isinstance(lora, Mapping) else lora
        self.steps = steps
        self.epochs = epochs
        self.lr = lr
        self.batch_size = batch_size
        self.micro_batch_tokens = micro_batch_tokens
        self.gradient_checkpointing = gradient_checkpointing
        self.dtype = dtype
        self.checkpoint_every = checkpoint_every
        self.job = dict(job or {})

    async def fit(self, session: Session) -> None:
        """Collect runs, train, and offer the program on the trained model.

        Raises:
            DataError: No run went right, so there is nothing to train on.
        """
        program = session.program()
        samples, tried, right = await self._runs(session, self._trained(program))
        session.decide("bootstrapped", tried=tried, right=right, samples=len(samples))
        if not samples:
            raise DataError(
                f"none of {tried} training runs went right: there is nothing to fine-tune on (lower threshold=, or "
                "give a stronger teacher=)"
            )
        result = await (self._at_provider if is_served(program) else self._here)(session, program, samples)
        session.decide("finetuned", lm=result.lm.name, samples=result.samples, steps=len(result.losses))
        origin = f"weights trained on {result.samples} calls of {right} runs that went right"
        await self._offer(session, result, origin)

    def _trained(self, program: Module) -> tuple[str, ...]:
        """The modules whose calls are learned, once the options are known to fit the model that they run on."""
        if not is_served(program):
            if self.job:
                raise ValueError("job= is of a provider's model, and the program's is trained in this process")
            return tuple(path for _, paths in local_lms(program, self.lora) for path in paths)
        paths = job_lms(program)[1]
        given = {"steps": self.steps, "lr": self.lr, "micro_batch_tokens": self.micro_batch_tokens, "dtype": self.dtype}
        given |= {"gradient_checkpointing": self.gradient_checkpointing, "lora": self.lora != LORA}
        if local := [name for name, value in given.items() if value not in (None, False)]:
            raise ValueError(
                f"{local[0]}= is of a local model, and a provider trains this one: give epochs=, batch_size=, or "
                "job={'learning_rate_multiplier': ...}"
            )
        if self.epochs is not None and self.epochs != int(self.epochs):
            raise ValueError(f"a provider takes a whole number of epochs, not {self.epochs!r}")
        return paths

    async def _here(self, session: Session, program: Module, samples: Sequence[Conversation]) -> TuneResult:
        return await asft(
            program,
            samples,
            lora=self.lora,
            steps=self.steps,
            epochs=self.epochs,
            lr=self.lr,
            batch_size=32 if self.batch_size is None else self.batch_size,
            seed=session.spawn("finetune"),
            progress=session.progress,
            checkpoint=session.folder("finetune"),
            checkpoint_every=self.checkpoint_every,
            micro_batch_tokens=self.micro_batch_tokens,
            gradient_checkpointing=self.gradient_checkpointing,
            dtype=self.dtype,
        )

    async def _at_provider(self, session: Session, program: Module, samples: Sequence[Conversation]) -> JobResult:
        begun = await ajob(
            program,
            samples,
            epochs=None if self.epochs is None else int(self.epochs),
            batch_size=self.batch_size,
            checkpoint=session.folder("finetune"),
            progress=session.progress,
            **self.job,
        )
        left = session.ledger.remaining("seconds")
        try:
            return await begun.aresult(None if left == math.inf else left)
        except TimeoutError as error:
            raise BudgetExceeded(f"the budget of seconds ended before the job did: {error}", kind="seconds") from error

    async def _runs(self, session: Session, on: Sequence[str]) -> tuple[list[Conversation], int, int]:
        """Samples of the successful runs, the number of examples tried and the number of successes."""
        teacher = self.teacher if self.teacher is not None else session.teacher
        program = teacher if isinstance(teacher, Module) else session.program()
        names = {place.parameter: path for path, place in places(program).items()}
        shown, held = ([], []) if isinstance(teacher, Module) else _demo_places(session)
        samples: list[Conversation] = []
        traces: dict[str, dict[str, Example]] = {}
        left: list[Example] = list(session.train)
        plain = False  # whether runs without labelled demos go right more often
        for round_number in range(self.max_rounds):
            failed: list[Example] = []
            demos = {path: tuple(found.values()) for path, found in traces.items()}
            for start in range(0, len(left), BLOCK):
                part = left[start : start + BLOCK]
                values = {} if plain else self._labels(session, shown, part, start)
                if round_number:
                    values = {place.path: demos[place.path] for place in shown if place.path in demos}
                    values |= self._labels(session, held, part, start)
                scope = f"finetune/{round_number}/{start // BLOCK}"
                ways = [(values, scope)]
                if values and not round_number and not start:
                    ways.append(({}, f"{scope}/plain"))
                right: list[dict[str, LossRow]] = []
                for values, name in ways:
                    loss = await session.forward(
                        session.base.child(values, "teacher") if values else session.base,
                        part,
                        scope=name,
                        replicate=round_number,
                        teacher=teacher,
                    )
                    right.append({row.example.id: row for row in loss.rows if self._is_right(row)})
                plain = plain or len(right[-1]) > len(right[0])
                found = right[0] | right[-1] if plain else right[-1] | right[0]
                for example in part:
                    if example.id not in found:
                        failed.append(example)
                        continue
                    samples += _learned(session, found[example.id], on)
                    rng = session.rng("finetune", "call", example.id)
                    for path, demo in demos_of(found[example.id], rng, names).items():
                        if len(traces.setdefault(path, {})) < self.max_bootstrapped_demos:
                            traces[path][example.id] = demo
            if len(failed) == len(left) and round_number:
                break
            left = failed
        return samples, len(session.train), len(session.train) - len(left)

    def _is_right(self, row: LossRow) -> bool:
        return row.error is None and row.score >= (row.best if self.threshold is None else self.threshold)

    def _labels(
        self, session: Session, shown: Sequence[Place], part: Sequence[Example], start: int
    ) -> dict[str, tuple[Example, ...]]:
        """Labelled demos from outside a block of examples, so that no example sees its own answer."""
        inside = {example.id for example in part}
        values = {}
        for place in shown:
            outside = labeled_demos(place.signature, [e for e in session.train if e.id not in inside])
            session.rng("finetune", "teacher", place.path, start).shuffle(outside)
            if outside and self.max_labeled_demos:
                values[place.path] = tuple(outside[: self.max_labeled_demos])
        return values

    def expected_calls(self, plan: Any) -> list[tuple[str, float, bool]]:
        """Return the phase: at most one run for each training example and round, and a block more."""
        runs = plan.train * self.max_rounds + (min(BLOCK, plan.train) if self.max_labeled_demos else 0)
        return [("bootstrap", runs * plan.calls_per_example, False)]


def _demo_places(session: Session) -> tuple[list[Place], list[Place]]:
    """The demos parameters that are empty, which hold labelled examples from the first run on, and the others."""
    known = [place for place in places(session.program()).values() if place.parameter.kind.is_demos]
    return [p for p in known if not session.value(p.path)], [p for p in known if session.value(p.path)]


def _learned(session: Session, row: LossRow, on: Sequence[str]) -> list[Conversation]:
    """The calls of one run, with the prompts that the program has where the search starts."""
    program = session.program()
    with program.candidate(dict(session.base.values)):
        return [sample for sample in samples_of(program, row) if sample.path in on]
