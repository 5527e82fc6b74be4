"""Critics that fail in every way, on random programs: nothing is lost but what failed, and the report says what."""

import asyncio
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptgrad import aio
from promptgrad.autograd import Loss, LossRow
from promptgrad.data import Example
from promptgrad.errors import BudgetExceeded, LMConnectionError, ParseError, ReplayError
from tests.autograd.programs import Call, ScriptedCritic, run, texts

FAILURES = {
    "down": lambda: LMConnectionError("the critic is down"),
    "garbage": lambda: ParseError("no field 'critique'", reply="<html>", reason="no field"),
    "spent": lambda: BudgetExceeded(kind="calls"),
    "bug": lambda: KeyError("critique"),
    "cancelled": lambda: asyncio.CancelledError(),
    "a list": lambda: ["say more"],
    "a number": lambda: {"instruction": 3.5},
    "nothing": lambda: None,
}


class Unreliable(ScriptedCritic):
    """Fails on some calls, chosen by what it is asked, so that the order of the answers does not matter."""

    def __init__(self, seed, share):
        super().__init__(delays=random.Random(seed))
        self.seed, self.share = seed, share
        self.failed = []

    async def critique(self, failure):
        answer = await super().critique(failure)
        chance = random.Random(f"{self.seed} {failure.example.id} {failure.node.path} {failure.node.index}")
        if chance.random() >= self.share:
            return answer
        name = chance.choice(sorted(FAILURES))
        self.failed.append((failure.example.id, failure.node.path, failure.node.index))
        outcome = FAILURES[name]()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def program(seed, calls=6):
    """A random graph of calls, each fed by some of those before it."""
    chance = random.Random(seed)
    modules = [Call(f"m{i}", lambda i=i, **given: f"text number {i} made of {len(given)} others") for i in range(calls)]
    feeds = [[j for j in range(i) if chance.random() < 0.5] for i in range(calls)]

    def forward():
        made = []
        for i, module in enumerate(modules):
            made.append(module(**{f"x{j}": made[j] for j in feeds[i]}).out)
        return made[-1]

    return modules, forward


def loss_of(forward, critic, rows=3):
    judged = []
    for i in range(rows):
        output, tape = run(forward)
        judged.append(LossRow(Example(q=str(i)).with_inputs("q"), output, 0.0, feedback=f"wrong {i}", tape=tape))
    return Loss(judged, critic)


@given(st.integers(0, 10_000), st.sampled_from([0.2, 0.5, 1.0]))
@settings(max_examples=60, deadline=None)
@pytest.mark.filterwarnings("ignore:every critic call failed")
def test_whatever_a_critic_does_the_pass_ends_and_says_what_was_skipped(seed, share):
    modules, forward = program(seed)
    critic = Unreliable(seed, share)
    before = [(module.instruction.data, module.instruction.version) for module in modules]
    report = loss_of(forward, critic).backward()
    assert [(module.instruction.data, module.instruction.version) for module in modules] == before
    assert report.calls == len(critic.asked)
    assert sorted((s.example_id, s.path, s.index) for s in report.skipped) == sorted(critic.failed)
    assert all(skip.reason.startswith("the critic failed: ") for skip in report.skipped)
    answered = len(critic.asked) - len(critic.failed)
    assert sum(len(texts(module.instruction)) for module in modules) == answered


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
@pytest.mark.filterwarnings("ignore:every critic call failed")
def test_the_same_failures_leave_the_same_gradient_at_any_speed(seed):
    def gradients():
        modules, forward = program(seed)
        loss_of(forward, Unreliable(seed, 0.3)).backward()
        return [texts(module.instruction) for module in modules]

    assert gradients() == gradients()


class Hanging(ScriptedCritic):
    async def critique(self, failure):
        self.asked.append(failure)
        await aio.sleep(60)


def test_a_pass_that_is_cancelled_ends_and_changes_nothing():
    modules, forward = program(3)
    loss = loss_of(forward, Hanging())

    async def cancelled():
        task = asyncio.create_task(loss.abackward())
        while not loss._terms[0][2].asked:
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert all(module.instruction.grad is None for module in modules)
    assert all(module.demos.grad is None for module in modules)
    assert loss.backward(ScriptedCritic()).skipped == (), "the graph is still there"


def test_a_missing_reply_of_a_strict_replay_ends_the_pass():
    class Replayed(ScriptedCritic):
        async def critique(self, failure):
            raise ReplayError("the cassette does not hold the reply")

    modules, forward = program(1)
    with pytest.raises(ReplayError):
        loss_of(forward, Replayed()).backward()
    assert all(module.instruction.grad is None for module in modules)


class Partly(ScriptedCritic):
    """Some of its replies are not in the cassette: of a whole forward, of a further answer, of a comparison."""

    def __init__(self, lacking):
        super().__init__()
        self.lacking = lacking

    async def say(self, what, answer):
        if what == self.lacking:
            raise ReplayError("the cassette does not hold the reply")
        return answer

    async def critique(self, failure):
        text = f"answer number {failure.replicate}"
        return await self.say(f"answer {failure.replicate}", {target.name: text for target in failure.targets})

    async def agreeing(self, failure, target, texts):
        return await self.say("comparison", [[number] for number in range(len(texts))])

    def groups(self, failures, size=1):
        return [list(failures)]

    async def critique_traces(self, group):
        return await self.say("forwards", [{} for _ in group])


@pytest.mark.parametrize(
    ("lacking", "how"),
    [("forwards", {"engine": "joint"}), ("answer 1", {"repeat": 3}), ("comparison", {"repeat": 2})],
)
def test_so_it_does_whatever_the_critic_was_asked(lacking, how):
    modules, forward = program(1)
    with pytest.raises(ReplayError):
        loss_of(forward, Partly(lacking)).backward(**how)
    assert all(module.instruction.grad is None for module in modules)
    assert not loss_of(forward, Partly("nothing")).backward(**how).skipped


@pytest.mark.parametrize("mode", [aio.run, asyncio.run])
def test_what_is_awaited_may_be_cancelled_without_the_crew_being_stopped(mode):
    seen = []

    async def one():
        try:
            raise asyncio.CancelledError
        except asyncio.CancelledError:
            seen.append(aio.is_stopping())

    async def victim():
        try:
            await aio.sleep(60)
        except asyncio.CancelledError:
            seen.append(aio.is_stopping())
            raise

    async def fail():
        await aio.sleep(0.01)
        raise KeyError("x")

    mode(aio.gather([one, one]))
    with pytest.raises(KeyError):
        mode(aio.gather([victim, fail]))
    assert seen == [False, False, True]
