"""BootstrapFinetune in the trainer, on the embedded model and a task it has never seen."""

from __future__ import annotations

from typing import Any

import pytest

from promptgrad import Trainer, lm, nn, optim
from promptgrad.data import Example, pocket
from promptgrad.errors import DataError, NoLMError
from tests.optim.of_weights import OfWeights

pytest.importorskip("torch")
pytest.importorskip("peft")
TASK = pocket.task("label-map-kind", seed=3)
TRAIN, VAL, TEST = TASK.split(40, 40, 60)


def program() -> nn.Predict:
    return nn.Predict("text -> answer", instruction=TASK.instruction("vague")).to(lm.pocket())


def test_the_trainer_ships_the_trained_model() -> None:
    model = program()
    optimizer = optim.BootstrapFinetune(model, steps=25)
    result = Trainer(model, optimizer, metric=TASK.metric, progress=False).fit(TRAIN, VAL, TEST)
    assert result.shipped
    assert optimizer.result is not None
    assert 20 < optimizer.result.samples <= 40
    assert model.lm is optimizer.result.lm
    right = [float(TASK.metric(example, output)) for example, output in zip(TEST, model.map(TEST), strict=True)]
    assert sum(right) / len(right) > 0.9
    assert lm.pocket().name == "pocket"
    assert model.instruction.data == TASK.instruction("vague")
    assert model.demos.data == ()


def test_runs_that_went_right_help_those_that_failed() -> None:
    """Only the second half can be solved at first; shown as demos, it makes the others go right."""
    shown: list[int] = []

    def teacher(messages: list[dict[str, str]]) -> str:
        demos = sum(m["role"] == "assistant" for m in messages)
        shown.append(demos)
        text = messages[-1]["content"].removeprefix("[[text]] ").removesuffix(" [[answer]]")
        place = [example.text for example in TRAIN].index(text)
        return TRAIN[place].answer if demos or place >= 20 else "cat"

    model = program()
    optimizer = optim.BootstrapFinetune(
        model, max_labeled_demos=0, max_rounds=3, teacher=lm.FunctionLM(teacher, adapter="pocket"), steps=1
    )
    Trainer(model, optimizer, metric=TASK.metric, progress=False).fit(TRAIN, VAL)
    assert optimizer.result is not None
    assert optimizer.result.samples == 40
    assert shown == [0] * 40 + [4] * 20


def test_labelled_examples_help_where_the_demos_of_the_program_do_not() -> None:
    """What is learned are the program's own prompts, with its own demo."""
    shown: list[int] = []

    def teacher(messages: list[dict[str, str]]) -> str:
        demos = sum(m["role"] == "assistant" for m in messages)
        shown.append(demos)
        text = messages[-1]["content"].removeprefix("[[text]] ").removesuffix(" [[answer]]")
        place = [example.text for example in TRAIN].index(text)
        return TRAIN[place].answer if demos > 1 or place < 10 else "cat"

    model = program()
    model.demos.data = tuple(TRAIN[:1])
    optimizer = optim.BootstrapFinetune(
        model, max_labeled_demos=6, teacher=lm.FunctionLM(teacher, adapter="pocket"), steps=1
    )
    Trainer(model, optimizer, metric=TASK.metric, progress=False).fit(TRAIN, VAL)
    assert shown == [1] * 40 + [6] * 30
    assert optimizer.result is not None
    samples = optimizer.result.collected.samples
    assert len(samples) == 40
    assert all(sum(message.role == "assistant" for message in sample.messages) == 1 for sample in samples)


def test_labelled_examples_that_do_harm_are_left_out() -> None:
    """The first block shows it; what is right there in either way is learned."""
    shown: list[int] = []

    def teacher(messages: list[dict[str, str]]) -> str:
        demos = sum(m["role"] == "assistant" for m in messages)
        shown.append(demos)
        text = messages[-1]["content"].removeprefix("[[text]] ").removesuffix(" [[answer]]")
        place = [example.text for example in TRAIN].index(text)
        return TRAIN[place].answer if (place < 4) == bool(demos) else "cat"

    model = program()
    optimizer = optim.BootstrapFinetune(model, max_rounds=1, teacher=lm.FunctionLM(teacher, adapter="pocket"), steps=1)
    Trainer(model, optimizer, metric=TASK.metric, progress=False).fit(TRAIN, VAL)
    assert shown == [16] * 16 + [0] * 40
    assert optimizer.result is not None
    assert [sample.example_id for sample in optimizer.result.collected] == [example.id for example in TRAIN]


def test_after_prompts_it_learns_what_they_found() -> None:
    """In BetterTogether the weights learn the prompts of the phase before, and both are installed."""

    class Shown(optim.Search):
        kinds = ("demos",)

        async def fit(self, session: optim.Session) -> None:
            candidate = session.base.child({"demos": tuple(TRAIN[:1])}, "one demo")
            session.offer(await session.evaluate(candidate, session.val, scope="shown"))

    def teacher(messages: list[dict[str, str]]) -> str:
        text = messages[-1]["content"].removeprefix("[[text]] ").removesuffix(" [[answer]]")
        return next(example.answer for example in TRAIN if example.text == text)

    model = program()
    weights = optim.BootstrapFinetune(model, steps=25, teacher=lm.FunctionLM(teacher, adapter="pocket"))
    both = optim.BetterTogether("p -> w", p=Shown(model.parameters()), w=weights)
    result = Trainer(model, both, metric=TASK.metric, finalists=1, progress=False).fit(TRAIN, VAL)
    assert weights.result is not None
    prompts = [[str(message.content) for message in sample.messages] for sample in weights.result.collected]
    assert len(prompts) == 40
    assert all(any(TRAIN[0].text in text for text in prompt[:-1]) for prompt in prompts)
    assert result.shipped
    assert model.demos.data == tuple(TRAIN[:1])
    assert model.lm is weights.result.lm
    assert result.program is model
    assert result.after is not None
    assert result.after.mean > 0.9


def test_nothing_went_right() -> None:
    model = program()
    optimizer = optim.BootstrapFinetune(model.parameters(), max_labeled_demos=0)
    trainer = Trainer(model, optimizer, metric=lambda example, output: 0.0, progress=False)
    with pytest.raises(DataError, match="none of 40 training runs went right"):
        trainer.fit(TRAIN, VAL)
    assert model.lm is lm.pocket()


def test_a_program_without_a_local_model() -> None:
    model = nn.Predict("text -> answer").to(lm.FunctionLM(lambda messages: "x"))
    trainer = Trainer(model, optim.BootstrapFinetune(model), metric=TASK.metric, progress=False)
    with pytest.raises(NoLMError, match="runs on no local model"):
        trainer.fit(TRAIN, VAL)


def test_it_has_no_single_step() -> None:
    model = program()
    optimizer = optim.BootstrapFinetune(model)
    assert not hasattr(optimizer, "step")
    with pytest.raises(AttributeError, match=r"no rule for a single step: write promptgrad\.Trainer"):
        optimizer.step()  # type: ignore[attr-defined]
    assert optimizer.skips == ()
    with pytest.raises(ValueError, match="max_rounds"):
        optim.BootstrapFinetune(model, max_rounds=0)


def test_no_example_sees_its_own_label() -> None:
    seen: list[bool] = []

    def watch(messages: list[dict[str, str]]) -> str:
        *before, last = messages
        seen.append(any(m["content"] == last["content"] for m in before))
        return "cat"

    model = nn.Predict("text -> answer", instruction="do the task").to(lm.pocket())
    optimizer = optim.BootstrapFinetune(model, teacher=lm.FunctionLM(watch, adapter="pocket"))
    with pytest.raises(DataError):
        Trainer(model, optimizer, metric=TASK.metric, progress=False).fit(TRAIN, VAL)
    assert len(seen) == 96  # two rounds, and the first block without demos
    assert not any(seen)


def knows(messages: list[dict[str, str]]) -> str:
    text = messages[-1]["content"].removeprefix("[[text]] ").removesuffix(" [[answer]]")
    return next(str(example.answer) for example in TRAIN if example.text == text)


class TestContract(OfWeights):
    def make(self, params: Any) -> optim.BootstrapFinetune:
        teacher = lm.FunctionLM(knows, name="teacher", adapter="pocket")
        return optim.BootstrapFinetune(params, steps=2, max_rounds=1, max_labeled_demos=0, teacher=teacher)

    def program(self) -> nn.Predict:
        return nn.Predict("text -> answer", instruction=TASK.instruction("vague"))

    def data(self) -> tuple[list[Example], list[Example]]:
        return TRAIN[:6], VAL[:8]

    def metric(self, example: Example, output: Any) -> Any:
        return TASK.metric(example, output)

    def base(self) -> dict[str, Any]:
        return {"instruction": TASK.instruction("partial")}
