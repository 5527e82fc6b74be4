"""The contract suite of optimizers notices each broken promise: optimizers that break one, and the test that fails."""

import itertools
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from promptgrad import nn, optim, run
from promptgrad.errors import MissingExtraError, ParseError
from promptgrad.lm import Request
from promptgrad.optim import Change
from promptgrad.search import Candidate
from promptgrad.testing._runs import sent_once
from promptgrad.testing.optimizers import OptimizerContract

TEXTS = ["Take the last word.", "Copy it.", "Reverse the word.", "Take the first word.", "Be brief."]


class Good(optim.Search):
    """Tries texts for all instructions, in an order drawn by the seed."""

    kinds = ("instruction",)

    def __init__(self, params, trials=4):
        super().__init__(params)
        self.trials = trials

    def texts(self, session):
        texts = list(TEXTS)
        session.rng("texts").shuffle(texts)
        return texts[: self.trials]

    def candidate(self, session, values, number):
        return session.base.child(values, f"text {number}")

    async def fit(self, session):
        for number, text in enumerate(self.texts(session)):
            for place in session.places(self.kinds):
                session.decide("proposal", path=place.path, text=text, refused=None)
                await self.attempt(session, place, text, number)

    async def attempt(self, session, place, text, number):
        candidate = self.candidate(session, {place.path: text}, number)
        measured = await session.evaluate(candidate, session.val, scope=f"{place.path}/{number}")
        session.trial(measured)
        session.offer(measured)

    def expected_calls(self, plan):
        return [("trials", 2 * self.trials * plan.val * plan.calls_per_example, False)]


class OfItsOwnChance(Good):
    """Draws from a source that goes on from run to run, so that no two runs in a row draw the same."""

    drawn = itertools.count()

    def texts(self, session):
        first = next(self.drawn)
        return [TEXTS[(first + number) % len(TEXTS)] for number in range(self.trials)]


class InTheOrderOfASet(Good):
    def texts(self, session):
        return list({*TEXTS})[: self.trials]


class WithAClock(Good):
    """As a set of texts, but of this process alone: a counter that a resumed run does not have."""

    runs = 0

    def texts(self, session):
        WithAClock.runs += 1
        return TEXTS[: 2 + WithAClock.runs % 3]


class DependsOnConcurrency(Good):
    def texts(self, session):
        return TEXTS[: self.trials] if session.concurrency == 1 else TEXTS[-self.trials :]


class Assigns(Good):
    async def attempt(self, session, place, text, number):
        parameter, before = place.parameter, place.parameter.data
        parameter.data = text
        await super().attempt(session, place, text, number)
        parameter.data = before


class PaysBehindTheBudget(Good):
    async def attempt(self, session, place, text, number):
        for _ in range(100):
            await session.program_lm().transport._send(Request.of("[[ ## text ## ]]\nred"), "")
        await super().attempt(session, place, text, number)


class DropsGradients(Good):
    async def fit(self, session):
        for parameter in self.parameters():
            parameter.grad = None
        await super().fit(session)


class FromScratch(Good):
    def candidate(self, session, values, number):
        return Candidate(values, f"text {number}")


class Unplanned(Good):
    def expected_calls(self, plan):
        return []


class WithoutAReason(Good):
    async def fit(self, session):
        session.decide("proposal", path="pick.instruction", text=None, refused="")
        await super().fit(session)


class WithoutAWord(Good):
    async def fit(self, session):
        session.decide("proposal", path="pick.instruction", text=None, refused=None)
        await super().fit(session)


class WithAnAddress(Good):
    def config(self):
        return {**super().config(), "made": repr(object())}


class OfNoJson(Good):
    def config(self):
        return {**super().config(), "sizes": (1, 2)}


class StumblesOverGarbage(Good):
    async def attempt(self, session, place, text, number):
        candidate = self.candidate(session, {place.path: text}, number)
        measured = await session.evaluate(candidate, session.val, scope=f"{place.path}/{number}")
        if measured.errors:
            raise RuntimeError("what is this?")
        session.offer(measured)


class KeepsWhatItSaw(Good):
    """Resumed, it decides by what the first process left behind in the optimizer's class."""

    seen: list = []  # noqa: RUF012 - the point

    async def attempt(self, session, place, text, number):
        self.seen.append(text)
        if self.seen.count(text) < 4:
            await super().attempt(session, place, text, number)


class NeedsTwoExamples(Good):
    async def fit(self, session):
        _ = session.train[1]
        await super().fit(session)


class Ships(Good):
    """Offers a candidate whose measurement is made up."""

    async def attempt(self, session, place, text, number):
        session.train[:] = []
        session.model.get_parameter(place.path).data = text


class Uneven(optim.LabeledFewShot):
    async def astep(self, closure=None, *, loss=None):
        report = await super().astep(closure, loss=loss)
        self.revert()
        return report


class Clears(optim.LabeledFewShot):
    """Its `astep` leaves no demos behind."""

    async def astep(self, closure=None, *, loss=None):
        report = await super().astep(closure, loss=loss)
        for parameter in self.parameters():
            if parameter.kind == "demos":
                parameter.data = ()
        return report


class FindsNothing(optim.LabeledFewShot):
    async def _propose(self):
        return [(p, Change("p", p.kind, "untouched", "no idea")) for p, _ in self.trained()]


class Writes(Good):
    """Asks a writer once, and has no answer to one that does not follow the format."""

    async def texts_of(self, session):
        writer = nn.Predict("number: int -> text, why").to(session.program_lm())
        return (await writer.acall(number=2)).text

    async def fit(self, session):
        await self.texts_of(session)
        await super().fit(session)

    def expected_calls(self, plan):
        return [*super().expected_calls(plan), ("writer", 1, False)]


class WritesOn(Writes):
    """Goes on without the writer."""

    async def texts_of(self, session):
        try:
            return await super().texts_of(session)
        except ParseError as error:
            session.decide("proposal", path="pick.instruction", text=None, refused=error.reason)
            return ""


def contract(optimizer, **options):
    class Case(OptimizerContract):
        def make(self, params):
            return optimizer(params, **options)

    return Case()


class TestGood(OptimizerContract):
    def make(self, params):
        return Good(params)


class TestOrderOfASet(OptimizerContract):
    """Only for what another process finds."""

    __test__ = False

    def make(self, params):
        return InTheOrderOfASet(params)


@pytest.mark.parametrize(
    ("optimizer", "promise", "message"),
    [
        (OfItsOwnChance, "test_the_same_seed_is_the_same_search", "have different journals"),
        (DependsOnConcurrency, "test_the_same_seed_is_the_same_search", "have different journals"),
        (OfItsOwnChance, "test_killed_anywhere_it_is_resumed_to_the_same_end", "[Tt]ake all chance from session"),
        (WithAClock, "test_killed_anywhere_it_is_resumed_to_the_same_end", "decides otherwise|different journals"),
        (WithAClock, "test_stopped_by_the_user_it_is_resumed_to_the_same_end", "decides otherwise|different journals"),
        (KeepsWhatItSaw, "test_killed_anywhere_it_is_resumed_to_the_same_end", "decides otherwise|different journals"),
        (Assigns, "test_it_never_changes_the_program_in_fit", "fit changed pick.instruction"),
        (Assigns, "test_stopped_by_the_user_it_is_resumed_to_the_same_end", "was cancelled has changed the program"),
        (PaysBehindTheBudget, "test_no_budget_of_calls_is_exceeded", "calls were sent on a budget of"),
        (DropsGradients, "test_it_never_changes_the_program_in_fit", "has another .grad"),
        (FromScratch, "test_it_goes_on_from_the_base_that_it_is_given", "session.base.child"),
        (Unplanned, "test_it_takes_no_more_calls_than_it_plans", "Let expected_calls"),
        (WithoutAReason, "test_a_refused_proposal_has_a_reason", "for the reason ''"),
        (WithoutAWord, "test_a_refused_proposal_has_a_reason", "has no text, and no reason why"),
        (WithAnAddress, "test_its_settings_are_the_same_in_every_process", "have the settings|holds an address"),
        (OfNoJson, "test_its_settings_are_the_same_in_every_process", "does not come back from JSON"),
        (Ships, "test_nothing_makes_a_difference", "and a candidate shipped"),
    ],
)
def test_a_broken_promise_is_noticed(optimizer, promise, message, tmp_path):
    case, arguments = contract(optimizer), {"tmp_path": tmp_path}
    if promise in ("test_it_goes_on_from_the_base_that_it_is_given", "test_its_settings_are_the_same_in_every_process"):
        arguments = {}
    if promise == "test_nothing_makes_a_difference":
        arguments = {"score": 0.5}
    with pytest.raises(AssertionError, match=message):
        getattr(case, promise)(**arguments)


@pytest.mark.parametrize(
    ("optimizer", "promise", "error"),
    [
        (StumblesOverGarbage, "test_garbage_does_not_end_a_run", RuntimeError),
        (StumblesOverGarbage, "test_a_fifth_of_the_calls_may_fail", RuntimeError),
    ],
)
def test_an_optimizer_that_stumbles_is_noticed(optimizer, promise, error, tmp_path):
    with pytest.raises(error, match="what is this"):
        getattr(contract(optimizer), promise)(tmp_path, *(["anybody's"] if "garbage" in promise else []))


def test_a_call_that_is_sent_again_is_noticed():
    once = [{"kind": "send", "key": "a"}, {"kind": "call", "key": "a"}, {"kind": "send", "key": "b"}]
    lost = [{"kind": "send", "key": "a"}, *once]  # in flight at a kill
    for events in (once, lost):
        sent_once(SimpleNamespace(journal=SimpleNamespace(events=lambda events=events: events)), "a run")
    again = SimpleNamespace(journal=SimpleNamespace(events=lambda: [*once, {"kind": "send", "key": "a"}]))
    with pytest.raises(AssertionError, match="a run sent a call again whose reply is in the journal: a"):
        sent_once(again, "a run")


def test_one_that_needs_more_data_is_noticed():
    with pytest.raises(IndexError):
        contract(NeedsTwoExamples).test_a_single_training_example()


def test_an_order_that_depends_on_the_hash_seed_is_noticed(tmp_path):
    with pytest.raises(AssertionError, match=r"cannot resume the run|order of a set"):
        TestOrderOfASet().test_killed_in_another_process_it_is_resumed_in_a_third(tmp_path)


def test_a_step_that_differs_from_its_twin_is_noticed():
    from promptgrad.testing import _small_world as small

    with pytest.raises(AssertionError, match=r"step\(\) and astep\(\) differ"):
        contract(Uneven, k=2, examples=small.examples(4)).test_step_and_astep_agree()


def test_a_step_that_clears_what_its_twin_installs_is_noticed():
    with pytest.raises(AssertionError, match=r"step\(\) and astep\(\) differ"):
        contract(Clears).test_step_and_astep_agree()


def test_steps_that_find_nothing_are_no_proof():
    with pytest.raises(pytest.skip.Exception, match="no step found anything to propose here: no idea"):
        contract(FindsNothing).test_step_and_astep_agree()


def test_a_writer_of_nothing_but_garbage_is_survived_or_noticed(tmp_path):
    with pytest.raises(AssertionError, match="Catch ParseError, and go on without it"):
        contract(Writes).test_garbage_does_not_end_a_run(tmp_path / "writes", "the writer's")
    contract(Writes).test_garbage_does_not_end_a_run(tmp_path / "by chance", "anybody's")
    contract(WritesOn).test_garbage_does_not_end_a_run(tmp_path / "goes on", "the writer's")
    journal = run.Journal(tmp_path / "goes on" / "run" / "journal.jsonl", readonly=True)
    assert [event["refused"] for event in journal.events() if event.get("refused")]


def test_make_is_asked_for():
    with pytest.raises(NotImplementedError, match=r"OptimizerContract does not define make\(params\)"):
        OptimizerContract().test_its_settings_are_the_same_in_every_process()


def test_pytest_is_asked_for_where_it_is_missing(tmp_path):
    code = (
        "import sys; sys.modules['pytest'] = None\n"
        "from promptgrad.errors import MissingExtraError\n"
        "import promptgrad.testing\n"
        "try:\n    import promptgrad.testing.optimizers\nexcept MissingExtraError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ}, capture_output=True, text=True, check=True
    )
    assert "a suite of pytest, which is not installed: pip install pytest" in done.stdout
    assert issubclass(MissingExtraError, ImportError)
