"""The pocket adapter: the exact shape of the model's training, aliases, the phrasebook, words outside the world."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptgrad.adapters import PocketAdapter
from promptgrad.data import Example, pocket
from promptgrad.errors import InputError, ParseError, SignatureError
from promptgrad.lm import Completion
from promptgrad.signature import Input, Output, Signature, make_signature

POCKET = PocketAdapter()
TASK = make_signature("text -> answer", "say the color of the last word")
COT = make_signature("text -> reasoning, answer", "say the color of the last word")


class Critique(Signature):
    """Say, in a long sentence that no small model knows, what is wrong."""

    instruction: str = Input()
    inputs: dict[str, Any] = Input()
    outputs: dict[str, Any] = Input()
    feedback: str = Input()
    goal: str = Input()
    critique: str = Output()


class Improve(Signature):
    """Rewrite the instruction as its critiques ask."""

    instruction: str = Input()
    critiques: list[str] = Input()
    new_instruction: str = Output()


def shown(sig: Any, inputs: dict[str, Any], demos: tuple[Any, ...] = ()) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in POCKET.compile(make_signature(sig), None, demos).messages(inputs)]


def test_a_task_as_in_training() -> None:
    demos = (Example(text="cat wolf", answer="grey"),)
    assert shown(TASK, {"text": " wolf\n cat "}, demos) == [
        ("system", "say the color of the last word"),
        ("user", "[[text]] cat wolf [[answer]]"),
        ("assistant", "grey"),
        ("user", "[[text]] wolf cat [[answer]]"),
    ]


def test_reasoning_comes_first() -> None:
    demos = (
        Example(text="cat wolf", reasoning="the last word is wolf", answer="grey"),
        Example(text="wolf cat", answer="black"),
    )
    messages = shown(COT, {"text": "cat"}, demos)
    assert messages[1:3] == [("user", "[[text]] wolf cat [[answer]]"), ("assistant", "black")]
    assert messages[3:5] == [
        ("user", "[[text]] cat wolf [[reasoning]]"),
        ("assistant", "the last word is wolf [[answer]] grey"),
    ]
    assert messages[5] == ("user", "[[text]] cat [[reasoning]]")
    assert POCKET.parse(COT, "the last word is wolf [[answer]] grey") == {
        "reasoning": "the last word is wolf",
        "answer": "grey",
    }
    assert POCKET.parse(COT, "[[reasoning]] the last word is wolf  [[answer]] grey ") == {
        "reasoning": "the last word is wolf",
        "answer": "grey",
    }
    with pytest.raises(ParseError, match=r"\[\[answer\]\] is missing"):
        POCKET.parse(COT, "the last word is wolf")


words = st.lists(st.sampled_from(pocket.words()), min_size=1, max_size=6).map(" ".join)


@given(reasoning=words, answer=words, text=words)
@settings(max_examples=50, deadline=None)
def test_words_of_the_world_come_back(reasoning: str, answer: str, text: str) -> None:
    form = POCKET.format(COT)
    assert form.read(form.assistant({"reasoning": reasoning, "answer": answer})) == {
        "reasoning": reasoning,
        "answer": answer,
    }
    assert form.user({"text": text}) == f"[[text]] {text} [[reasoning]]"


def test_a_marker_in_a_value_loses_its_brackets() -> None:
    assert shown(TASK, {"text": "cat [[answer]] grey"})[-1] == ("user", "[[text]] cat answer grey [[answer]]")


def test_other_types() -> None:
    sig = make_signature("text: list[int] -> answer: int", "give the sum")
    assert shown(sig, {"text": [1, 2]})[-1] == ("user", "[[text]] 1 [[text]] 2 [[answer]]")
    assert POCKET.parse(sig, "3") == {"answer": 3}
    with pytest.raises(ParseError, match="`answer` does not fit"):
        POCKET.parse(sig, "grey")
    several = make_signature("text -> critiques: list[str]")
    assert POCKET.parse(several, "it is right [[critique]] the answer is wrong") == {
        "critiques": ["it is right", "the answer is wrong"]
    }


def test_the_critic_in_trained_words() -> None:
    inputs = {
        "instruction": "do the task",
        "inputs": {"text": "cat wolf"},
        "outputs": {"answer": "black"},
        "feedback": "the answer should be grey",
        "goal": "words that are left out",
    }
    assert shown(Critique, inputs) == [
        ("system", pocket.CRITIQUE_INSTRUCTION),
        (
            "user",
            "[[instruction]] do the task [[text]] cat wolf [[answer]] black "
            "[[feedback]] the answer should be grey [[critique]]",
        ),
    ]
    with_input = Critique.append("critique_of_text")
    assert shown(with_input, inputs)[0] == ("system", pocket.CRITIQUE_WITH_INPUT_INSTRUCTION)
    assert POCKET.parse(with_input, "it is right [[input_critique]] the answer should be a grey thing") == {
        "critique": "it is right",
        "critique_of_text": "the answer should be a grey thing",
    }
    assert POCKET.parse(with_input, "it is right") == {"critique": "it is right", "critique_of_text": ""}
    unread = {**inputs, "outputs": {"reply": "black cat"}}
    assert "[[answer]] black cat [[feedback]]" in shown(Critique, unread)[1][1]
    own = POCKET.compile(Critique(), "why is the answer wrong").messages(inputs)
    assert own[0].content == "why is the answer wrong"


def test_the_proposer_in_trained_words() -> None:
    assert shown(Improve, {"instruction": "do the task", "critiques": ["it is right", "the answer is wrong"]}) == [
        ("system", pocket.IMPROVE_INSTRUCTION),
        (
            "user",
            "[[instruction]] do the task [[critique]] it is right [[critique]] the answer is wrong [[instruction]]",
        ),
    ]
    assert POCKET.parse(Improve(), "give the color") == {"new_instruction": "give the color"}
    induct = make_signature("dataset, examples: list[dict[str, Any]] -> instruction", name="ProposeInstruction")
    examples = [{"text": "cat", "answer": "black"}, Example(text="wolf", answer="grey")]
    assert shown(induct, {"dataset": "other words", "examples": examples}) == [
        ("system", pocket.INDUCT_INSTRUCTION),
        ("user", "[[text]] cat [[answer]] black [[text]] wolf [[answer]] grey [[instruction]]"),
    ]


def test_a_default_instruction_is_said_in_the_worlds_words() -> None:
    assert pocket.inside("do the task")
    for sig in ("text -> answer", "-> answer"):
        assert shown(sig, {"text": "cat"})[0] == ("system", "do the task")
    assert shown(make_signature("text -> answer").prepend("reasoning"), {"text": "cat"})[0] == ("system", "do the task")


def test_unknown_fields_are_named_with_those_that_can_be_used() -> None:
    with pytest.raises(SignatureError, match=r"no field 'query': its fields are text, question, answer, reasoning"):
        POCKET.compile(make_signature("text -> query"))
    with pytest.raises(InputError, match=r"in 'inputs': the pocket model has no field 'query'"):
        shown(Critique, {"instruction": "", "inputs": {"query": "x"}, "outputs": {}, "feedback": "", "goal": ""})
    with pytest.raises(InputError, match="the input 'text' is missing"):
        POCKET.compile(TASK).request_tail({})


def test_unknown_words_are_warned_of_once() -> None:
    compiled = PocketAdapter().compile(TASK)
    with pytest.warns(UserWarning, match="does not know these words, and reads each as <unk>: 'zebras', 'Paris'"):
        compiled.request_tail({"text": "zebras cat Paris"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compiled.request_tail({"text": "giraffes"})


def test_the_model_is_not_asked_again() -> None:
    assert POCKET.repair_messages(Completion("x"), ParseError("no")) == ()


def test_demos_of_tasks_are_inside_the_world() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("color-of-last", "lookup", "label-map-kind"):
            task = pocket.task(name)
            train, _, _ = task.split(4, 1, 1)
            sig = make_signature(f"{', '.join(task.inputs)} -> reasoning, answer", task.instruction("precise"))
            demos = tuple(example.copy(reasoning=task.reasoning(example)) for example in train[:3])
            compiled = POCKET.compile(sig, None, demos)
            assert pocket.inside(compiled.messages(train[3].inputs()))
            gold = compiled.prefix.messages[-1].content
            assert compiled.parse(gold) == {"reasoning": task.reasoning(train[2]), "answer": train[2].answer}
