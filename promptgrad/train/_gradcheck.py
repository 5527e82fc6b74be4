"""`gradcheck`: whether a step in the direction of the gradient goes downhill."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from random import Random
from typing import Any

from promptgrad import aio
from promptgrad._seed import seed_or_default
from promptgrad.autograd import Gradient, Loss, Parameter, enable_grad, feedback_of, kinds_of
from promptgrad.data import DataLoader, Example, collate, not_a_list
from promptgrad.errors import DataError, GraphError, MetricError, is_outage
from promptgrad.evaluation import Evaluator, grouped_interval, paired_test
from promptgrad.lm import LM, Usage, track_usage
from promptgrad.metrics import Metric, as_metric
from promptgrad.nn import MetricLoss, Module, as_critic
from promptgrad.optim import TGD, Optimizer, Search
from promptgrad.run import Progress, spawn, value_digest
from promptgrad.run import progress as progress_bar
from promptgrad.train._gradcheck_report import ARMS, LEVEL, GradcheckArm, GradcheckReport
from promptgrad.train._result import Gain

BLANK = "the output is wrong"
"""The feedback of the blank arm: that there is a fault, and nothing else."""

Values = Mapping[str, Any]


async def agradcheck(
    model: Module,
    train: Iterable[Any],
    fresh: Iterable[Any],
    metric: Callable[..., Any],
    *,
    criterion: Module | None = None,
    optimizer: "Optimizer | Callable[[Any], Optimizer] | None" = None,
    batch_size: int = 8,
    steps: int = 1,
    repeats: int = 6,
    seed: int | None = None,
    critic: Any = None,
    concurrency: int | None = None,
    progress: bool | None = None,
) -> GradcheckReport:
    """Take steps from true, from shuffled and from blank feedback, and compare them on fresh examples.

    `torch.autograd.gradcheck` compares a gradient with finite differences. A gradient of text has no derivative to be
    compared with, but it makes the same promise: a step along it lowers the loss, and a step along something else does
    not. So each repeat draws and runs a batch, and three arms start from the same forwards, the same program and the
    same optimizer state. They differ in the feedback for the failed samples:

    - *true*: the feedback of the criterion.
    - *shuffled*: the same texts, permuted among the failed samples of the batch so that as many as possible get a text
      that differs from their own. What is true of the task in general survives this; what is true of a sample does not.
    - *blank*: "the output is wrong" for each. What a step then gains, the critic and the proposer found without
      feedback.

    Each arm goes backward and proposes. Nothing is installed: the start and all candidates are measured on the same
    fresh examples, equal candidates once. The program, its gradients and the optimizer are as before, whatever happens;
    while it runs, the gradients of the program are in use.

    A critic that reads labels from the example itself, instead of the feedback, knows the truth in all arms. With an LM
    that samples, candidate and start have different luck, which widens the intervals.

    Intervals: bootstrap of the paired gains over repeats and over examples together (`evaluation.grouped_interval`,
    crossed), at 95 %. A program that fails on an example scores 0 there.

    Cost: `repeats` batches forward, three times their backward passes and proposals, and at most `1 + 3 * repeats`
    evaluations on `fresh`.

    Args:
        model: The program.
        train: Examples for the steps.
        fresh: Examples to measure on; none of them may be in `train`.
        metric: Scores outputs; or a criterion made of a metric, such as `nn.JudgeLoss`, which then makes the loss too.
        criterion: Makes the loss of a batch; by default `nn.MetricLoss(metric, critic)`.
        optimizer: Proposes the steps: an optimizer of the program's parameters (which does not change), or a function
            that makes one of `model.parameters()`; by default `optim.TGD`.
        batch_size: Examples of a batch.
        steps: Steps of each repeat; later ones go on from the arm's own candidate, on further batches.
        repeats: How many batches are drawn. Six is the smallest number at which unanimous repeats are evidence.
        seed: Seed of batches, permutations and intervals; by default that of `promptgrad.manual_seed`.
        critic: The critic that divides the blame; by default that of the criterion.
        concurrency: Rows in flight; else that of the context or of `configure`, else 32.
        progress: Show a progress bar; by default in a terminal or notebook.

    Raises:
        DataError: There are no examples, or training and fresh examples overlap.
        ValueError: A number is below one.
        TypeError: `optimizer` neither is nor makes an optimizer.
        GraphError: The program has no parameter that the optimizer trains, or nothing is recorded.
        LMError: No sample of a batch got an answer; single samples without one are left out.
        AsyncUsageError: Called inside a coroutine that promptgrad runs: use `await agradcheck(...)`.
    """
    sampling = _Sampling(batch_size, steps, repeats, seed_or_default(seed))
    data = _examples(train, "training"), _examples(fresh, "fresh")
    _refuse_overlap(*data)
    work = _Check(model, data, _Judges.of(metric, criterion, critic), optimizer, sampling, concurrency)
    with _kept(work.parameters):
        return await work.run(progress=progress)


gradcheck = aio.blocking(agradcheck)


class _Arm:
    """One arm of one repeat under way."""

    def __init__(self, name: str, optimizer: Optimizer) -> None:
        self.name = name
        self.optimizer = optimizer
        self.values: dict[str, Any] = {}
        self.idle = 0
        self.usage = Usage()


@dataclass(frozen=True)
class _Sampling:
    """How many batches are drawn, how large they are, and how many steps are taken from each."""

    batch_size: int
    steps: int
    repeats: int
    seed: int

    def __post_init__(self) -> None:
        for name in ("batch_size", "steps", "repeats"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is a whole number of at least 1, not {value!r}")


@dataclass(frozen=True)
class _Judges:
    """The metric that scores outputs, the criterion that makes the loss of a batch, and the critic."""

    metric: Metric
    criterion: Module
    critic: Any

    @classmethod
    def of(cls, metric: Any, criterion: Module | None, critic: Any) -> "_Judges":
        if isinstance(metric, MetricLoss):
            criterion = metric if criterion is None else criterion
            metric = metric.metric
        made = MetricLoss(metric, critic=critic) if criterion is None else criterion
        return cls(as_metric(metric), made, None if critic is None else as_critic(critic))


class _Check:
    """One gradcheck under way."""

    def __init__(
        self,
        model: Module,
        data: tuple[list[Example], list[Example]],
        judges: _Judges,
        optimizer: "Optimizer | Callable[[Any], Optimizer] | None",
        sampling: _Sampling,
        concurrency: int | None,
    ) -> None:
        self.model = model
        self.train, self.fresh = data
        self.metric, self.criterion, self.critic = judges.metric, judges.criterion, judges.critic
        self.parameters = list(model.parameters())
        self.optimizer = _made(optimizer, model)
        self.optimizer.check_trained(model)
        self.paths = {parameter: path for path, parameter in model.named_parameters()}
        self.trained = [parameter for parameter, _ in self.optimizer.trained() if parameter in self.paths]
        if not self.trained:
            raise GraphError(
                f"{type(self.optimizer).__name__} trains no parameter of this program: it has a rule for "
                f"{', '.join(kinds_of(self.optimizer.kinds)) or 'nothing'}, and the program's parameters are "
                f"{', '.join(self.paths.values()) or 'none'}"
            )
        self.batch_size = min(sampling.batch_size, len(self.train))
        self.steps, self.repeats, self.seed = sampling.steps, sampling.repeats, sampling.seed
        self.concurrency = concurrency
        self.evaluator = Evaluator(model, self.metric, concurrency=concurrency)
        self.failed = 0
        self.shuffled = 0

    async def run(self, *, progress: bool | None) -> GradcheckReport:
        """Take all steps, then measure all candidates."""
        import time

        begun = time.perf_counter()
        arms: dict[str, list[_Arm]] = {name: [] for name in ARMS}
        with track_usage() as usage, ExitStack() as stack:
            stack.enter_context(enable_grad())
            bar = stack.enter_context(progress_bar(self.repeats * self.steps + 1, "gradcheck", progress))
            for repeat in range(self.repeats):
                for name, arm in (await self._repeat(repeat, bar)).items():
                    arms[name].append(arm)
            with track_usage() as evaluation:
                scores = await self._measure([arm.values for each in arms.values() for arm in each])
            bar.advance()
        return self._report(arms, scores, usage.total, evaluation.total, time.perf_counter() - begun)

    async def _repeat(self, repeat: int, bar: Progress) -> dict[str, _Arm]:
        """The steps of one repeat, in all arms."""
        arms = {name: _Arm(name, _twin(self.optimizer)) for name in ARMS}
        batches = list(islice(self._batches(repeat), self.steps))
        for step, batch in enumerate(batches):
            shared = await self._forward(batch) if step == 0 else None
            for name, arm in arms.items():
                with track_usage() as usage, self.model.candidate(arm.values):
                    loss = shared if shared is not None else await self._forward(batch)
                    given, failed, changed = with_feedback(
                        name, loss, Random(spawn(self.seed, "shuffle", repeat, step))
                    )
                    await self._step(arm, given)
                if shared is not None:
                    self.failed += failed if name == "true" else 0
                    self.shuffled += changed if name == "shuffled" else 0
                arm.usage += usage.total
            bar.advance()
        return arms

    def _batches(self, repeat: int) -> Iterator[list[Example]]:
        seed = spawn(self.seed, "gradcheck", repeat)
        loader = DataLoader(self.train, batch_size=self.batch_size, shuffle=True, seed=seed, drop_last=True)
        while True:
            yield from loader

    async def _forward(self, batch: Sequence[Example]) -> Loss:
        outputs = await self.model.amap(batch, concurrency=self.concurrency)
        loss = await self.criterion.acall(outputs, batch)
        if not isinstance(loss, Loss):
            raise TypeError(f"the criterion returned {type(loss).__name__}, not a Loss")
        unanswered = [row.error for row in loss.rows if row.error is not None and is_outage(row.error)]
        if not unanswered:
            return loss
        if len(unanswered) == len(loss):
            raise unanswered[0]
        terms = (
            (scale, tuple(r for r in rows if not is_outage(r.error)), critic) for scale, rows, critic in loss._terms
        )
        return Loss._of(terms, loss.critic, loss.concurrency)

    async def _step(self, arm: _Arm, loss: Loss) -> None:
        """Go backward and propose; the proposed values become the state of the arm."""
        with _kept(self.parameters):
            for parameter in self.parameters:
                parameter.grad = None
            await loss.abackward(self.critic, self.trained, retain_graph=True, weights=False)
            changes = await aio.in_thread(arm.optimizer.propose)
        new = {
            self.paths[change.parameter]: change.new
            for change in changes
            if change.status == "proposed" and change.parameter in self.paths
        }
        arm.idle += not new
        arm.values = {**arm.values, **new}

    async def _measure(self, candidates: Sequence[Values]) -> dict[str, list[float | None]]:
        """The scores on the fresh examples by digest of the candidate, the start among them; equal ones once."""
        unique: dict[str, Values] = {value_digest({}): {}}
        for values in candidates:
            unique.setdefault(value_digest(dict(values)), values)
        cells = await aio.gather([partial(self.evaluator, values, self.fresh) for values in unique.values()])
        return {
            digest: [
                float(cell.score) if cell.error is None else None if is_outage(cell.error) else 0.0 for cell in found
            ]
            for digest, found in zip(unique, cells, strict=True)
        }

    def _report(
        self,
        arms: Mapping[str, Sequence[_Arm]],
        scores: Mapping[str, Sequence[float | None]],
        usage: Usage,
        evaluation: Usage,
        seconds: float,
    ) -> GradcheckReport:
        known = [place for place in range(len(self.fresh)) if all(row[place] is not None for row in scores.values())]
        if not known:
            raise DataError("no fresh example got an answer for all candidates, so nothing can be compared")
        clean = {digest: [row[place] or 0.0 for place in known] for digest, row in scores.items()}
        start = clean[value_digest({})]
        gains = {
            name: [
                [new - old for old, new in zip(start, clean[value_digest(dict(arm.values))], strict=True)]
                for arm in each
            ]
            for name, each in arms.items()
        }
        found = {}
        for name, each in arms.items():
            means = [sum(row) / len(row) for row in gains[name]]
            found[name] = GradcheckArm(
                name,
                self._gain(gains[name]),
                better=sum(mean > 1e-9 for mean in means),
                worse=sum(mean < -1e-9 for mean in means),
                same=sum(abs(mean) <= 1e-9 for mean in means),
                idle=sum(arm.idle for arm in each),
                usage=sum((arm.usage for arm in each), Usage()),
                values=tuple(arm.values for arm in each),
                gains=tuple(map(tuple, gains[name])),
            )
        differences = {
            name: self._gain(
                [
                    [one - two for one, two in zip(mine, theirs, strict=True)]
                    for mine, theirs in zip(gains["true"], gains[name], strict=True)
                ]
            )
            for name in ARMS[1:]
        }
        return GradcheckReport(
            sum(start) / len(start),
            found,
            differences,
            self.repeats,
            self.steps,
            self.batch_size,
            len(known),
            len(self.fresh) - len(known),
            self.failed,
            self.shuffled,
            usage,
            evaluation,
            seconds,
        )

    def _gain(self, gains: Sequence[Sequence[float]]) -> Gain:
        """The mean gain with its interval over repeats and examples, and the permutation test over repeats."""
        means = [sum(row) / len(row) for row in gains]
        low, high = grouped_interval(gains, crossed=True, level=LEVEL, seed=self.seed, best=self.metric.best)
        p = paired_test([0.0] * len(means), means, seed=self.seed, alternative="greater")
        return Gain(sum(means) / len(means), low, high, LEVEL, len(gains[0]), p)


def with_feedback(arm: str, loss: Loss, rng: Random) -> tuple[Loss, int, int]:
    """A loss with the feedback of an arm, with the numbers of samples that failed and that got another text."""
    failed = changed = 0
    terms = []
    for scale, rows, critic in loss._terms:
        given = list(rows)
        places = [place for place, row in enumerate(rows) if row.failed and not isinstance(row.error, MetricError)]
        texts = [(feedback_of(rows[place]), rows[place].module_feedback) for place in places]
        sources = _derange(texts, rng) if arm == "shuffled" else range(len(places))
        for place, own, source in zip(places, texts, sources, strict=True):
            text, by_module = (BLANK, {}) if arm == "blank" else texts[source]
            given[place] = replace(rows[place], feedback=text, module_feedback=by_module)
            changed += (text, by_module) != own
        failed += len(places)
        terms.append((scale, tuple(given), critic))
    told_loss = loss if arm == "true" else Loss._of(terms, loss.critic, loss.concurrency)
    return told_loss, failed, changed


@contextmanager
def _kept(parameters: Sequence[Parameter]) -> Iterator[None]:
    """Restore the gradients at the end."""
    grads: list[Gradient | None] = [parameter.grad for parameter in parameters]
    try:
        yield
    finally:
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter.grad = grad


def _examples(data: Iterable[Any], what: str) -> list[Example]:
    if fault := not_a_list(f"the {what} data is", data, rows=False):
        raise DataError(fault)
    items = collate(row for item in data for row in (item if isinstance(item, list) else [item]))
    wrong = [item for item in items if not isinstance(item, Example)]
    if wrong or not items:
        found = f"one of its items is of type {type(wrong[0]).__name__}" if wrong else "it is empty"
        raise DataError(f"the {what} data is a list of examples, and {found}")
    return items


def _refuse_overlap(train: Sequence[Example], fresh: Sequence[Example]) -> None:
    known = dict.fromkeys(example.id for example in train)
    shared = [example for example in fresh if example.id in known]
    if shared:
        raise DataError(
            f"{len(shared)} of {len(fresh)} fresh examples are training examples as well, the first is "
            f"{shared[0]!r:.200}: what a step learnt by heart would count as a gain. Use other examples, as "
            "promptgrad.data.split does"
        )


def _made(optimizer: "Optimizer | Callable[[Any], Optimizer] | None", model: Module) -> Optimizer:
    if isinstance(optimizer, Optimizer):
        return optimizer
    if isinstance(optimizer, Search):
        raise TypeError(
            f"gradcheck measures single steps, and {type(optimizer).__name__} searches instead: give an "
            "optimizer that takes steps, such as optim.TGD(model.parameters(), lm=...)"
        )
    made = (TGD if optimizer is None else optimizer)(model.parameters())
    if not isinstance(made, Optimizer):
        raise TypeError(
            "optimizer is an optimizer, or a function that makes one of the parameters, such as optim.TGD or "
            f"lambda params: optim.TGD(params, lm=...), not one that makes {type(made).__name__}"
        )
    return made


def _twin(optimizer: Optimizer) -> Optimizer:
    """An optimizer over the same parameters with a memory of its own."""
    twin = copy.copy(optimizer)
    shared: list[Any] = [*optimizer.parameters(), *_lms(optimizer)]
    memo: dict[int, Any] = {id(optimizer): twin, **{id(item): item for item in shared}}
    for name, value in vars(optimizer).items():
        if isinstance(value, (list, dict)):
            setattr(twin, name, copy.deepcopy(value, memo))
    return twin


def _lms(optimizer: Optimizer) -> Iterator[LM]:
    for options in (optimizer.defaults, *optimizer.param_groups):
        yield from (value for value in options.values() if isinstance(value, LM))


def _derange(texts: Sequence[Any], rng: Random) -> list[int]:
    """For each place the place whose text replaces its own: a permutation that changes as many texts as possible.

    Equal texts are put side by side, in random order, and all are shifted by the length of the longest run: then no
    text lands on an equal one, unless one text is more than half of all.
    """
    runs: list[tuple[Any, list[int]]] = []
    for place in rng.sample(range(len(texts)), len(texts)):
        for text, places in runs:
            if text == texts[place]:
                places.append(place)
                break
        else:
            runs.append((texts[place], [place]))
    order = [place for _, places in runs for place in places]
    shift = max((len(places) for _, places in runs), default=0)
    sources = [0] * len(order)
    for number, place in enumerate(order):
        sources[place] = order[(number + shift) % len(order)]
    return sources
