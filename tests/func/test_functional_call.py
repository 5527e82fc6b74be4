import asyncio
import threading

import pytest

from promptgrad import aio, func, nn
from promptgrad.data import Example
from promptgrad.errors import AsyncUsageError, ConstraintError, StateDictError

BETTER = {"pick.instruction": "Take the last word.", "spell.instruction": "Reverse the word."}


def test_the_values_hold_for_the_call_and_the_module_does_not_change(model):
    before, versions = model.state_dict(), [p.version for p in model.parameters()]
    assert func.functional_call(model, BETTER, ("red green blue",)).answer == "eulb"
    assert func.functional_call(model, {"spell.instruction": "Reverse it."}, "red green blue").answer == "der"
    assert model("red green blue").answer == "red"
    assert model.state_dict() == before
    assert [p.version for p in model.parameters()] == versions


def test_arguments_come_as_tuple_single_value_keywords_or_example(model):
    answers = [
        func.functional_call(model, BETTER, ("a bc",)),
        func.functional_call(model, BETTER, "a bc"),
        func.functional_call(model, BETTER, kwargs={"text": "a bc"}),
        func.functional_call(model, BETTER, Example(text="a bc", answer="?").with_inputs("text")),
        func.functional_call(model, [{path: value} for path, value in BETTER.items()], "a bc"),
    ]
    assert [output.answer for output in answers] == ["cb"] * 5


def test_demos_can_be_laid_over(model):
    demos = [Example(word=word, answer=word[::-1]) for word in ("ab", "cd")]
    assert func.functional_call(model, {"spell.demos": demos}, "red green").answer == "der"


def test_what_does_not_fit_is_refused_with_the_nearest_name(model):
    with pytest.raises(StateDictError, match=r"pick\.instruction"):
        func.functional_call(model, {"pick.instructions": "x"}, "a")
    with pytest.raises(ConstraintError, match="must be a str"):
        func.functional_call(model, {"pick.instruction": 3}, "a")
    with pytest.raises(ValueError, match="two of the mappings"):
        func.functional_call(model, [BETTER, BETTER], "a")
    with pytest.raises(TypeError, match="from path to value"):
        func.functional_call(model, "Take the last word.", "a")


def test_async_code_awaits(model):
    async def both():
        return await asyncio.gather(
            func.afunctional_call(model, BETTER, "red green"), func.afunctional_call(model, {}, "red green")
        )

    better, plain = asyncio.run(both())
    assert (better.answer, plain.answer) == ("neerg", "red")

    async def blocks():
        return func.functional_call(model, BETTER, "red green")

    with pytest.raises(AsyncUsageError, match="acall"):
        aio.run(blocks())


def test_threads_see_only_their_own_values():
    seen = {}
    barrier = threading.Barrier(2, timeout=60)

    class Look(nn.Module):
        def __init__(self):
            super().__init__()
            self.text = nn.Parameter("live")

        def forward(self, name):
            barrier.wait()
            seen[name] = self.text.data
            return name

    look = Look()
    threads = [
        threading.Thread(target=func.functional_call, args=(look, {"text": f"value {name}"}, name)) for name in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {"a": "value a", "b": "value b"}
    assert look.text.data == "live"


def test_the_spellings_of_torch_are_as_good(model):
    for params in (dict(model.named_parameters()), model.state_dict()):
        assert func.functional_call(model, params, "red green blue").answer == model("red green blue").answer
