import asyncio

import pytest

from promptgrad import func, nn
from promptgrad.autograd import Gradient, Loss
from promptgrad.errors import GraphError
from promptgrad.lm import FunctionLM

INSTRUCTIONS = ["pick.instruction", "spell.instruction"]


@pytest.fixture
def criterion(world):
    return nn.MetricLoss(world.metric)


@pytest.fixture
def loss(model, criterion):
    def loss(params, batch):
        return criterion([func.functional_call(model, params, example) for example in batch], batch)

    return loss


def untouched(model):
    return all(parameter.grad is None for parameter in model.parameters())


def texts(gradient):
    return [critique.text for critique in gradient.critiques]


def test_gradients_of_a_criterion_are_those_of_backward_and_touch_nothing(model, criterion, world):
    batch = world.examples(3)
    found = func.grad(criterion, retain_graph=True)(model.map(batch), batch)
    assert untouched(model)
    criterion(model.map(batch), batch).backward()
    expected = {path: parameter.grad for path, parameter in model.named_parameters() if parameter.grad}
    assert found == expected
    assert set(found) == {*INSTRUCTIONS, "pick.demos", "spell.demos"}
    assert texts(found["spell.instruction"]) == ["Reverse the word."] * 3


def test_gradients_of_a_parameter_set_have_its_paths(model, loss, world):
    batch = world.examples(2)
    good = {"pick.instruction": "Take the last word.", "spell.instruction": "Copy the word."}
    found, value = func.grad_and_value(loss)(good, batch)
    assert list(found) == INSTRUCTIONS
    assert found["pick.instruction"] == Gradient()
    assert texts(found["spell.instruction"]) == ["Reverse the word."] * 2
    assert isinstance(value, Loss)
    assert value.item() == 0.5
    assert untouched(model)
    perfect = {"pick.instruction": "Take the last word.", "spell.instruction": "Reverse the word."}
    assert func.grad(loss)(perfect, batch) == dict.fromkeys(INSTRUCTIONS, Gradient())


def test_gradients_at_many_points_at_once(model, loss, world):
    batch = world.examples(2)
    points = [{"spell.instruction": "Copy the word."}, {"spell.instruction": "Reverse the word."}]
    wrong, right = func.vmap(func.grad(loss), in_dims=(0, None))(points, batch)
    assert texts(wrong["spell.instruction"]) == ["Reverse the word."] * 2
    assert right["spell.instruction"] == Gradient()
    assert untouched(model)


def test_inputs_and_critic_can_be_chosen(model, criterion, world):
    batch = world.examples(2)
    calls = []

    def critic(messages):
        calls.append(messages)
        return world.answer(messages)

    def outputs():
        return model.map(batch)

    found = func.grad(criterion, critic=FunctionLM(critic), inputs=[model.spell.instruction])(outputs(), batch)
    assert list(found) == ["spell.instruction"]
    assert len(calls) == 1
    assert list(func.grad(criterion, inputs=[model.pick.demos])(outputs(), batch)) == ["pick.demos"]


def test_it_can_be_awaited_and_an_async_loss_can_be_given(model, criterion, world):
    batch = world.examples(2)

    async def loss(params):
        outputs = [await func.afunctional_call(model, params, example) for example in batch]
        return await criterion.acall(outputs, batch)

    params = {"spell.instruction": "Copy the word."}
    for found in (
        func.grad(loss)(params),
        asyncio.run(func.grad(loss).acall(params)),
        asyncio.run(func.grad(criterion).acall(model.map(batch), batch)),
    ):
        assert texts(found["spell.instruction"]) == ["Reverse the word."] * 2
    assert untouched(model)


def test_what_is_no_loss_is_refused(model):
    with pytest.raises(TypeError, match="not a Loss: end it with criterion"):
        func.grad(model)("red green")
    with pytest.raises(TypeError, match="returns a Loss"):
        func.grad("loss")
    assert "grad(" in repr(func.grad(model))


def test_the_graph_is_freed_unless_it_is_wanted(model, criterion, world):
    batch = world.examples(1)
    outputs = model.map(batch)
    func.grad(criterion, retain_graph=True)(outputs, batch)
    func.grad(criterion)(outputs, batch)
    with pytest.raises(GraphError, match="second time"):
        func.grad(criterion)(outputs, batch)
