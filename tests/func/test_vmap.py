import asyncio
import threading

import pytest

from promptgrad import func, lm, nn
from promptgrad.data import Example

TEXTS = ["red green", "blue lime", "pink gold"]
PARAMS = [{"spell.instruction": "Copy the word."}, {"spell.instruction": "Reverse the word."}]


def answers(outputs):
    return [output.answer for output in outputs]


def test_over_examples(model):
    assert answers(func.vmap(model)(TEXTS)) == ["red", "blue", "pink"]
    assert answers(func.vmap(model)(text=TEXTS)) == ["red", "blue", "pink"]
    examples = [Example(text=text, answer="").with_inputs("text") for text in TEXTS]
    assert answers(func.vmap(model)(examples)) == ["red", "blue", "pink"]
    assert func.vmap(model)([]) == []


def test_over_parameter_sets_and_over_both(model):
    def ask(params, text):
        return func.functional_call(model, params, text).answer

    before = model.state_dict()
    assert func.vmap(ask, in_dims=(0, None))(PARAMS, "red green") == ["red", "der"]
    columns = {"spell.instruction": ["Copy the word.", "Reverse the word."]}
    assert func.vmap(ask, in_dims=(0, None))(columns, "red green") == ["red", "der"]
    assert func.vmap(ask)(PARAMS, TEXTS[:2]) == ["red", "eulb"]
    table = func.vmap(func.vmap(ask, in_dims=(None, 0)), in_dims=(0, None))
    assert table(PARAMS, TEXTS) == [["red", "blue", "pink"], ["der", "eulb", "knip"]]
    assert model.state_dict() == before


def test_an_async_function_and_an_async_caller(model):
    async def ask(params, text):
        return (await func.afunctional_call(model, params, text)).answer

    mapped = func.vmap(ask, in_dims=(0, None))
    assert mapped(PARAMS, "red green") == ["red", "der"]
    assert mapped(PARAMS[:1], "red green") == ["red"]
    assert asyncio.run(mapped.acall(PARAMS, "red green")) == ["red", "der"]


def test_calls_run_side_by_side_and_come_back_in_order():
    barrier = threading.Barrier(8, timeout=60)

    def wait(number):
        barrier.wait()
        return number

    assert func.vmap(wait)(range(8)) == list(range(8))


def test_concurrency_is_a_bound():
    now, most, lock = 0, 0, threading.Lock()

    def count(number):
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        with lock:
            now -= 1
        return number

    assert func.vmap(count, concurrency=2)(list(range(20))) == list(range(20))
    assert most <= 2
    with lm.context(concurrency=1):
        most = 0
        func.vmap(count)(list(range(20)))
    assert most == 1


def test_the_first_failure_is_raised():
    def fail(number):
        if number == 2:
            raise LookupError("two")
        return number

    with pytest.raises(LookupError, match="two"):
        func.vmap(fail)(range(4))


@pytest.mark.parametrize(
    ("in_dims", "args", "kind", "said"),
    [
        (0, ("red green",), TypeError, "in_dims=None"),
        ((0, 0), ([1, 2], [1, 2, 3]), ValueError, "differ in length: 2, 3"),
        ((0,), ([1], [2]), ValueError, "1 entries, and there are 2"),
        (None, ([1],), ValueError, "nothing to map over"),
        (0, ({"a": [1, 2], "b": [1]},), ValueError, "differ in length"),
    ],
)
def test_arguments_that_do_not_fit(in_dims, args, kind, said):
    with pytest.raises(kind, match=said):
        func.vmap(lambda *values: values, in_dims)(*args)


def test_options_that_are_none():
    with pytest.raises(ValueError, match=r"0 .*or None"):
        func.vmap(print, in_dims=1)
    with pytest.raises(ValueError, match="at least 1"):
        func.vmap(print, concurrency=0)
    with pytest.raises(TypeError, match="function or a module"):
        func.vmap("print")
    assert repr(func.vmap(print, in_dims=(0, None))) == "vmap(print, in_dims=(0, None))"


def test_outputs_keep_their_graph(model, world):
    texts = world.examples(3)
    loss = nn.MetricLoss(world.metric)(func.vmap(model)(texts), texts)
    loss.backward()
    assert [critique.text for critique in model.pick.instruction.grad.critiques] == ["Take the last word."] * 3
