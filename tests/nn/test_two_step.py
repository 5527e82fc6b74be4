"""A call in two steps: free words, then the fields in them; both recorded, counted, and open to blame."""

from __future__ import annotations

from typing import Any

import pytest

import promptgrad as pg
from promptgrad import nn
from promptgrad.adapters import TwoStepAdapter, get_adapter, two_step
from promptgrad.data import Example
from promptgrad.errors import ParseError, SignatureError
from promptgrad.lm import FunctionLM
from promptgrad.metrics import exact_match
from promptgrad.signature import make_signature


class Said:
    """An LM that gives its replies in turn, and keeps what it was asked."""

    def __init__(self, name: str, *replies: str) -> None:
        self.requests: list[Any] = []
        self.replies = list(replies)
        self.lm = FunctionLM(self._reply, name=name)

    def _reply(self, request: Any) -> str:
        self.requests.append(request)
        return self.replies[min(len(self.requests), len(self.replies)) - 1]


def labelled(**values: Any) -> str:
    return "\n\n".join(f"[[ ## {name} ## ]]\n{value}" for name, value in values.items()) + "\n\n[[ ## completed ## ]]"


def test_a_free_reply_and_its_fields() -> None:
    thinker = Said("thinker", "<think>hm</think>Six times seven makes 42, surely.")
    finder = Said("finder", labelled(answer=42, sure="yes"))
    predict = nn.Predict("question -> answer: int, sure: bool", adapter=two_step(finder.lm), lm=thinker.lm)
    with pg.usage() as used:
        found = predict(question="6 * 7?")
    assert (found.answer, found.sure) == (42, True)
    assert (used.calls, sorted(used.by_lm)) == (2, ["finder", "thinker"])
    first, second = thinker.requests[0].messages, finder.requests[0].messages
    assert first[0].text.endswith("- `answer`: a whole number\n- `sure`: true or false")
    assert "[[ ## answer" not in first[0].text
    assert "Six times seven makes 42, surely." in second[-1].text
    assert "hm" not in second[-1].text
    assert "6 * 7?" not in second[-1].text


def test_both_calls_are_on_the_graph_and_blame_reaches_the_right_prompt(scripted: Any) -> None:
    thinker, finder = Said("thinker", "It is 41."), Said("finder", labelled(answer=41))

    class Program(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.solve = nn.Predict("question -> answer: int", adapter=two_step(finder.lm))

        def forward(self, question: str) -> Any:
            return self.solve(question=question)

    program = Program().to(thinker.lm)
    assert [name for name, _ in program.named_parameters()] == [
        "solve.instruction",
        "solve.demos",
        "solve.extract.instruction",
        "solve.extract.demos",
    ]
    assert program.solve.extract.lm is finder.lm

    example = Example(question="6 * 7?", answer=42).with_inputs("question")

    def judge(instruction: str, **_: Any) -> dict[str, Any]:
        if "Find the fields" in instruction:
            return {"critique": "copied rightly", "to_blame": False, "critique_of_reply": "it must say 42"}
        return {"critique": "multiply with care"}

    critic = scripted(judge, name="critic")
    batch = program.map([example])
    loss = nn.MetricLoss(exact_match, critic=critic)(batch, [example])
    loss.backward(engine="local")
    assert (len(thinker.requests), len(finder.requests)) == (1, 1)
    grad = program.solve.instruction.grad
    assert grad is not None
    assert [c.text for c in grad.critiques] == ["multiply with care"]
    assert not program.solve.extract.instruction.grad
    found = program(question="6 * 7?")
    assert found.grad_fn.path == "solve.extract"
    assert found.grad_fn.inputs["reply"] == "It is 41."
    assert found.grad_fn.inputs["reply"].grad_fn.path == "solve"


def test_the_extractor_is_asked_again_alone() -> None:
    thinker, finder = Said("thinker", "Many."), Said("finder", labelled(answer="many"), labelled(answer=7))
    predict = nn.Predict("question -> answer: int", adapter=two_step(finder.lm), lm=thinker.lm)
    assert predict(question="?").answer == 7
    assert (len(thinker.requests), len(finder.requests)) == (1, 2)
    with pytest.raises(ParseError, match="extract"):
        nn.Predict("question -> answer: int", adapter=two_step(Said("f", "x").lm), lm=thinker.lm)(question="?")
    with pytest.raises(ParseError, match="empty"):
        nn.Predict("q -> answer", adapter="two_step", retries=0, lm=Said("t", " ").lm)(q="?")


def test_an_adapter_of_the_context_and_the_same_model() -> None:
    both = Said("both", "Paris, of course.", labelled(answer="Paris"))
    predict = nn.Predict("question -> answer", lm=both.lm)
    with pg.context(adapter="two_step"):
        assert predict(question="?").answer == "Paris"
    assert [name for name, _ in predict.named_parameters()] == ["instruction", "demos"]
    assert len(both.requests) == 2


def test_demos_in_free_words_and_by_fields() -> None:
    demos = [Example(question="a", answer=1), Example(question="b", reply="I think it is two.")]
    predict = nn.Predict("question -> answer: int", adapter="two_step", demos=demos)
    contents = [(m.role, m.text) for m in predict.messages(question="c")][1:]
    assert contents == [
        ("user", "[[ ## question ## ]]\nb"),
        ("assistant", "I think it is two."),
        ("user", "[[ ## question ## ]]\na"),
        ("assistant", "answer: 1"),
        ("user", "[[ ## question ## ]]\nc"),
    ]
    other = nn.Predict("question -> answer: int", adapter="two_step")
    other.load_state_dict(predict.state_dict())
    assert other.messages(question="c") == predict.messages(question="c")


def test_earlier_turns_stand_before_the_first_question_alone() -> None:
    model = Said("m", "It is 4.", labelled(answer=4))
    ask = nn.Predict("history: History, question -> answer: int", adapter="two_step", lm=model.lm)
    history = pg.History([("user", "Hi"), ("assistant", "Hello")]).add(question="1+1?", answer=2)
    assert ask(history=history, question="2+2?").answer == 4
    assert [message.text for message in model.requests[0].messages[1:]] == [
        *("Hi", "Hello", "[[ ## question ## ]]\n1+1?", "answer: 2", "[[ ## question ## ]]\n2+2?"),
    ]
    assert [message.role for message in model.requests[1].messages] == ["system", "user"]
    with pytest.raises(pg.errors.InputError, match="is missing the input 'history'"):
        ask(question="2+2?")


def test_names_and_mistakes() -> None:
    sig = make_signature("reply -> answer")
    assert list(get_adapter("two_step").first_outputs(sig)) == ["free_reply"]  # type: ignore[misc]
    for beside in ("tools: list[Tool] -> calls: list[ToolCall]", "q -> thoughts: Reasoning, a", "q -> p: Image, a"):
        with pytest.raises(SignatureError, match="finds values in words, and this signature has tools, thoughts"):
            nn.Predict(beside, adapter="two_step")
    with pytest.raises(TypeError, match="extractor_lm is an LM or its name"):
        two_step(3)  # type: ignore[arg-type]
    assert repr(TwoStepAdapter()) == "two_step()"
    assert repr(two_step("openai/gpt-4o-mini")) == "two_step('openai/gpt-4o-mini')"
