"""The contract suite of modules notices each broken promise: modules that break one, and the test that fails."""

import itertools

import pytest

from promptgrad import lm, nn
from promptgrad.autograd import Parameter
from promptgrad.errors import LMConnectionError
from promptgrad.testing.modules import ModuleContract

QA = "question -> answer"


class Good(nn.Module):
    def __init__(self):
        super().__init__()
        self.answer = nn.Predict(QA)

    async def forward(self, question):
        return await self.answer.acall(question=question)


class OtherwiseAwaited(Good):
    """Waits for one answer when it is called, and for two when it is awaited."""

    async def acall(self, *args, **kwargs):
        await super().acall(*args, **kwargs)
        return await super().acall(*args, **kwargs)


class WithAMemory(Good):
    """Sends something else each time."""

    count = itertools.count()

    async def forward(self, question):
        return await self.answer.acall(question=f"{question} {next(self.count)}")


class WithOneNumber(Good):
    """Gives every call the same replicate number."""

    async def forward(self, question):
        return await self.answer.acall(question=question, config={"replicate": 3})


class Silent(Good):
    """Takes a failure for an answer."""

    async def forward(self, question):
        try:
            return await self.answer.acall(question=question)
        except LMConnectionError:
            return nn.Prediction(answer="")


class Shared(Good):
    """Copies share their parameter."""

    def __deepcopy__(self, memo):
        return self


class Cut(Good):
    """Returns what does not remember its call, and claims that nothing made it."""

    async def forward(self, question):
        output = await self.answer.acall(question=question)
        return output.answer.detach()


class Costly(Good):
    async def forward(self, question):
        await self.answer.acall(question=question)
        return await self.answer.acall(question=question)


class Address(Good):
    def __repr__(self):
        return object.__repr__(self)


class Unfrozen(Good):
    """Cannot be frozen."""

    def __init__(self):
        super().__init__()
        self.extra = Parameter("x")

    def requires_grad_(self, requires_grad=True):
        return self


class Unpickled(Good):
    def __init__(self):
        super().__init__()
        self.reward = lambda: None


@pytest.mark.parametrize(
    ("module", "promise"),
    [
        (OtherwiseAwaited, "test_awaited_it_does_what_it_does_when_it_is_called"),
        (WithAMemory, "test_it_is_repeatable"),
        (WithOneNumber, "test_rollouts_are_told_apart"),
        (Silent, "test_it_fails_where_its_language_model_does"),
        (Shared, "test_a_copy_is_another_module"),
        (Unpickled, "test_a_copy_is_another_module"),
        (Cut, "test_blame_reaches_its_prompts"),
        (Costly, "test_it_costs_what_it_says"),
        (Address, "test_it_shows_itself"),
        (Unfrozen, "test_frozen_it_records_nothing"),
        (WithAMemory, "test_a_record_is_run_again"),
        (WithAMemory, "test_its_state_comes_back"),
        (WithAMemory, "test_a_stream_ends_with_what_a_call_returns"),
    ],
)
def test_a_broken_promise_is_noticed(module, promise):
    class Suite(ModuleContract):
        def make(self):
            return module()

    with pytest.raises(Exception, match=r"."):
        getattr(Suite(), promise)()


class TestGood(ModuleContract):
    blamed = ("answer.instruction",)

    def make(self):
        return Good()


def test_without_make_it_says_so():
    with pytest.raises(NotImplementedError, match="make"):
        ModuleContract().make()


def test_its_language_model_notes_what_it_is_sent():
    suite = TestGood()
    model = suite.make().to(suite.lm())
    assert model(question="?").answer == "Paris"
    assert isinstance(model.lm, lm.LM)
