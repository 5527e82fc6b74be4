"""A run that its budget ended is ended: resumed, it sends nothing and comes to the same end, whatever ended it."""

import json
import time
import warnings

import pytest

import promptgrad as pg
from promptgrad import Budget, Trainer, lm, optim, run
from promptgrad.errors import BudgetExceeded, RateLimitError
from promptgrad.testing import _small_world as small
from promptgrad.testing._fields import asked_of

pytestmark = pytest.mark.usefixtures("overlap_is_known")

MAKE = {
    "Auto": lambda params: optim.Auto(params, steps=3, rows=8, batch_size=4, proposals=2, demos=(2, 4)),
    "LabeledFewShot": lambda params: optim.LabeledFewShot(params, k=3),
    "KNNFewShot": lambda params: optim.KNNFewShot(params, k=2),
    "BootstrapFewShot": lambda params: optim.BootstrapFewShot(
        params, max_bootstrapped_demos=3, max_labeled_demos=2, threshold=0.0
    ),
    "RandomSearch": lambda params: optim.RandomSearch(
        params, max_bootstrapped_demos=2, max_labeled_demos=2, num_candidate_programs=3, threshold=0.0
    ),
    "MIPRO": lambda params: optim.MIPRO(
        params, num_candidates=3, num_demo_sets=2, num_trials=5, minibatch_size=6, full_eval_every=3
    ),
    "TGD": lambda params: optim.TGD(params, steps=3, batch_size=4, proposals=2),
    "BetterTogether": lambda params: optim.BetterTogether(
        "demos -> texts",
        demos=optim.LabeledFewShot(params, k=2),
        texts=optim.MIPRO(params, num_candidates=2, num_demo_sets=1, num_trials=3, minibatch_size=6),
    ),
    "Ensemble": lambda params: optim.Ensemble(
        optim.MIPRO(params, num_candidates=2, num_demo_sets=1, num_trials=3, minibatch_size=6), size=2
    ),
    "GEPA": lambda params: optim.GEPA(params, steps=5, minibatch_size=4),
}


class Timed(Trainer):
    """A trainer whose run has a clock of its own, given as an argument of its journal."""

    clock = None

    async def _run(self, parts, journal, sources=None):
        journal.close()
        return await super()._run(parts, run.Journal(journal.path, clock=self.clock), sources)


class Asked:
    """The small world's model, which counts what it is asked."""

    def __init__(self):
        self.count = 0
        self.model = small.Scripted()

    async def __call__(self, messages):
        self.count += 1
        if any(name == "new_examples" for name, _ in asked_of(messages)):
            rows = [{**row.inputs(), "answer": row.answer} for row in small.examples(4, seed=self.count)]
            return f"[[ ## new_examples ## ]]\n{json.dumps(rows)}\n\n[[ ## completed ## ]]"
        return await self.model(messages)


def made(name, asked):
    model = small.SmallProgram().to(lm.FunctionLM(asked, name="simulated"))
    return model, MAKE[name](list(model.parameters()))


def ended(work):
    """How a run ended: what it decided, or the error that says that the start was not measured."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = work()
        except BudgetExceeded as error:
            return type(error), error.kind
    history = [repr(trial) for trial in result.history]
    return result.outcome, result.reason, result.values, result.best, history, result.calls, result.tokens


def both(tmp_path, name, budget, *, clock=None, metric=small.metric):
    """How a run ended, how it ended when it was resumed, and what was asked then."""
    data = small.examples(12), small.examples(24, seed=1), small.examples(6, seed=2)
    asked, again = Asked(), Asked()
    model, optimizer = made(name, asked)
    kind = Trainer if clock is None else Timed
    trainer = kind(model, optimizer, metric=metric, budget=budget, run_dir=tmp_path, seed=3, concurrency=2)
    trainer.clock = clock
    first = ended(lambda: trainer.fit(*data))
    model, optimizer = made(name, again)
    second = ended(lambda: Trainer.resume(tmp_path, model, optimizer, metric, concurrency=3))
    return first, second, asked.count, again.count


class Judge:
    """The metric of the small world, in which time passes: nothing is written while it does."""

    def __init__(self):
        self.now = 0.0

    def __call__(self, example, output):
        self.now += 1.0
        return small.metric(example, output)


@pytest.mark.parametrize("name", MAKE)
def test_what_its_seconds_ended_is_ended(tmp_path, name):
    """The last event may be from before the end of the time."""
    judge = Judge()
    both(tmp_path / "whole", name, Budget(seconds=1e6), clock=lambda: judge.now, metric=judge)
    ends = [12.5, *(share * judge.now for share in (0.2, 0.5, 0.9))]
    outcomes = []
    for limit in ends:
        judge = Judge()
        first, second, asked, again = both(
            tmp_path / f"{limit}", name, Budget(seconds=limit), clock=lambda judge=judge: judge.now, metric=judge
        )
        assert asked
        assert (second, again) == (first, 0), limit
        outcomes.append(first[0])
    if name not in ("LabeledFewShot", "KNNFewShot", "BootstrapFewShot"):  # which measure nothing before their search
        assert outcomes[0] is BudgetExceeded
    assert outcomes[-1] is not BudgetExceeded


class Slow:
    """The metric of the small world, in which all the time of a run passes at once."""

    def __call__(self, example, output):
        time.sleep(0.35)
        return small.metric(example, output)


def test_compile_ends_once_and_for_all(tmp_path):
    asked = Asked()

    model = small.SmallProgram().to(lm.FunctionLM(asked, name="simulated"))
    options = {"budget": Budget(seconds=0.3), "run_dir": tmp_path, "seed": 3, "concurrency": 1}
    for sent in range(2):
        before = asked.count
        with pytest.raises(BudgetExceeded) as caught:
            pg.compile(model, small.examples(24), Slow(), **options)
        assert caught.value.kind == "seconds"
        assert sent == 0 or asked.count == before


class Busy(Asked):
    """After so many calls the model asks to come again when the time will be over, and later on it answers."""

    def __init__(self, after=None, field=""):
        super().__init__()
        self.after, self.field = after, field

    async def __call__(self, messages):
        asked = [name for name, _ in asked_of(messages)]
        if self.field in asked or (self.after is not None and self.count >= self.after):
            raise RateLimitError("come again", retry_after=10_000.0)
        return await super().__call__(messages)


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, {}) for name in MAKE), ("TGD", {"ship": "significant"}), ("MIPRO", {"synthesize": 16})],
)
def test_what_a_wait_ended_is_ended(tmp_path, name, options):
    """A wait that would pass the end of the time ends a search long before."""
    data = small.examples(12), small.examples(24, seed=1), small.examples(6, seed=2)

    def resumed(asked, folder):
        model = small.SmallProgram().to(lm.Retry(lm.FunctionLM(asked, name="simulated"), 3, patience=20_000))
        optimizer = MAKE[name](list(model.parameters()))
        if folder.exists():
            return ended(lambda: Trainer.resume(folder, model, optimizer, small.metric))
        given = {"metric": small.metric, "budget": Budget(seconds=9000), "run_dir": folder, "seed": 3, **options}
        return ended(lambda: Trainer(model, optimizer, concurrency=2, **given).fit(*data))

    whole = Busy()
    resumed(whole, tmp_path / "whole")
    compared = 0
    for share in (3, 5, 7, 9, *(["new_examples"] if "synthesize" in options else [])):
        busy = Busy(field=share) if isinstance(share, str) else Busy(share * whole.count // 10)
        first = resumed(busy, tmp_path / f"{share}")
        again = Busy()
        second = resumed(again, tmp_path / f"{share}")
        if first[0] is not BudgetExceeded:  # else the start was not measured, and there is time left to do so
            compared += 1
            assert (second, again.count) == (first, 0), share
    assert compared
