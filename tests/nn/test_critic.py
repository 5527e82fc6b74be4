import json

import pytest

import promptgrad as pg
from promptgrad import aio, nn
from promptgrad.autograd import NodeFailure, Tape, Target
from promptgrad.data import Example, pocket
from promptgrad.data.pocket._phrases import IT_IS_RIGHT
from promptgrad.errors import NoLMError
from promptgrad.metrics import exact_match


class Chain(nn.Module):
    def __init__(self):
        super().__init__()
        self.find = nn.Predict("question -> fact", instruction="Find a fact.")
        self.solve = nn.Predict("question, fact -> answer", instruction="Answer from the fact.")

    def forward(self, question):
        return self.solve(question=question, fact=self.find(question=question).fact)


def work(**inputs):
    return {"answer": "blue"} if "fact" in inputs else {"fact": "the sky is green today"}


def batch(*answers):
    return [Example(question=f"q{i}", answer=a).with_inputs("question") for i, a in enumerate(answers)]


def backward(scripted, judge, answers=("red",), model=None, **context):
    model = model or Chain()
    model.to(scripted(work, name="worker"))
    critic = scripted(judge, name="critic")
    examples = batch(*answers)
    loss = nn.MetricLoss(exact_match, critic=critic)(model.map(examples), examples)
    report = loss.backward(engine="local")
    return model, critic, report


def test_blame_is_divided_by_one_call_for_each_failed_step(scripted):
    def judge(instruction, inputs, outputs, feedback, **_):
        if instruction == "Answer from the fact.":
            return {"critique": "say which color", "critique_of_fact": "the fact names the wrong color"}
        return {"critique": f"because {feedback}"}

    model, critic, report = backward(scripted, judge, ("red", "blue", "red"))
    assert report.calls == len(critic.asked) == 4
    solve = model.solve.instruction.grad.critiques
    assert [(c.text, c.path, c.target) for c in solve] == [("say which color", "solve", "instruction")] * 2
    find = model.find.instruction.grad.critiques
    assert [c.text for c in find] == ["because the fact names the wrong color"] * 2


def test_the_critic_sees_everything(scripted):
    seen = []

    def judge(**fields):
        seen.append(fields)
        return {"critique": "x", "critique_of_fact": "y", "demos_critique": "z"}

    model = Chain()
    model.solve.demos.data = [{"question": "old", "fact": "snow is white", "answer": "white"}]
    backward(scripted, judge, model=model)
    solve = next(fields for fields in seen if "fact" in fields["inputs"])
    assert solve["instruction"] == "Answer from the fact."
    assert json.loads(solve["inputs"]) == {"question": "q0", "fact": "the sky is green today"}
    assert json.loads(solve["outputs"]) == {"answer": "blue"}
    assert solve["feedback"] == "the answer should be red"
    assert [c.text for c in model.solve.demos.grad.critiques] == ["z"]
    assert json.loads(solve["demos"]) == [{"question": "old", "fact": "snow is white", "answer": "white"}]


@pytest.mark.parametrize(
    "said",
    ["", "**it is right**", "- It is right (the fault lies with the input).", "The instruction is right: it says so."],
)
def test_a_part_that_is_not_to_blame_is_not_blamed_whatever_is_said_of_it(scripted, said):
    def judge(instruction, **_):
        right = {"critique": said, "to_blame": "no"}
        if instruction == "Answer from the fact.":
            return {**right, "critique_of_fact": "wrong color", "fact_to_blame": "yes"}
        return right

    model, critic, _report = backward(scripted, judge)
    assert len(critic.asked) == 2
    assert model.solve.instruction.grad is None
    assert model.find.instruction.grad is None


def test_blame_stops_where_the_input_is_right(scripted):
    model, critic, _report = backward(scripted, lambda **_: {"critique": "vague", "critique_of_fact": ""})
    assert len(critic.asked) == 1
    assert model.find.instruction.grad is None
    assert len(model.solve.instruction.grad) == 1


def test_a_frozen_instruction_is_judged_and_gets_nothing(scripted):
    model = Chain()
    model.solve.requires_grad_(False)
    model, critic, _report = backward(scripted, lambda **_: {"critique": "a", "critique_of_fact": "b"}, model=model)
    assert "critique" in critic.asked[0].messages[0].content
    assert model.solve.instruction.grad is None
    assert [c.text for c in model.find.instruction.grad.critiques] == ["a"]


def test_a_critic_that_does_not_answer_is_skipped_with_its_reason(scripted):
    with pytest.warns(RuntimeWarning, match="every critic call failed"):
        model, _critic, report = backward(scripted, lambda **_: "gibberish [[")
    assert "does not parse" in report.skipped[0].reason
    assert model.solve.instruction.grad is None


def test_who_criticises(scripted):
    def named(name):
        return scripted(lambda **_: {"critique": name, "critique_of_fact": ""}, name=name)

    def blame(criterion):
        model = Chain().to(worker)
        examples = batch("red")
        criterion(model.map(examples), examples).backward(engine="local")
        return model.solve.instruction.grad.critiques[0].text

    def either(**fields):
        return {"critique": "worker", "critique_of_fact": ""} if "feedback" in fields else work(**fields)

    worker = scripted(either, name="worker")
    assert blame(nn.MetricLoss(exact_match)) == "worker"
    with pg.context(critic=named("context")):
        assert blame(nn.MetricLoss(exact_match)) == "context"
        assert blame(nn.MetricLoss(exact_match, critic=named("criterion"))) == "criterion"


def test_a_critic_has_a_visible_instruction(scripted):
    critic = nn.Critic(instruction="Be harsh.")
    assert critic.predict.instruction.data == "Be harsh."
    model = Chain().to(scripted(work))
    lm = scripted(lambda **_: {"critique": "x", "critique_of_fact": ""})
    critic.to(lm)
    examples = batch("red")
    nn.MetricLoss(exact_match, critic=critic)(model.map(examples), examples).backward(engine="local")
    assert lm.asked[0].messages[0].content.startswith("Be harsh.")
    critic.predict.instruction.data = "Be kind."
    nn.MetricLoss(exact_match, critic=critic)(model.map(examples), examples).backward(engine="local")
    assert lm.asked[1].messages[0].content.startswith("Be kind.")


def test_a_failed_call_is_blamed_with_its_traceback_and_reply(scripted):
    seen = []

    def judge(**fields):
        seen.append(fields)
        return {"critique": "ask for a number"}

    class Program(nn.Module):
        def __init__(self):
            super().__init__()
            self.step = nn.Predict("question -> n: int", retries=0)

        def forward(self, question):
            return self.step(question=question)

    model = Program().to(scripted(lambda question: {"n": "many"}))
    examples = [Example(question="a", n=3).with_inputs("question")]
    criterion = nn.MetricLoss(exact_match, critic=scripted(judge))
    criterion(model.map(examples), examples).backward()
    assert "many" in json.loads(seen[0]["outputs"])["reply"]
    assert "ParseError" in seen[0]["feedback"]
    (critique,) = model.step.instruction.grad.critiques
    assert (critique.text, critique.verdict) == ("ask for a number", "error")


def test_a_critic_without_any_model_says_what_is_missing():
    node = Tape().node("x", inputs={"a": "b"})
    failure = NodeFailure(node, None, ("f",), (Target("instruction", "instruction", "i"),))
    with pytest.raises(NoLMError):
        aio.run(nn.Critic().critique(failure))


def test_the_pocket_adapter_renders_the_critic_in_its_own_words(scripted):
    seen = []

    def respond(request):
        seen.append(request.messages)
        return "the answer gives the first word but it should be the last word"

    respond.__annotations__["request"] = pg.lm.Request
    critic = pg.lm.FunctionLM(respond, "pocket", adapter="pocket")
    model = nn.Predict("text -> answer", instruction="give the first word").to(
        scripted(lambda text: {"answer": "apple"}, name="worker")
    )
    examples = [Example(text="apple cat", answer="cat").with_inputs("text")]
    nn.MetricLoss(exact_match, critic=critic)(model.map(examples), examples).backward()
    assert seen[0][0].content == pocket.CRITIQUE_INSTRUCTION
    assert seen[0][1].content == (
        "[[instruction]] give the first word [[text]] apple cat [[answer]] apple "
        "[[feedback]] the answer should be cat [[critique]]"
    )
    (critique,) = model.instruction.grad.critiques
    assert critique.text == "the answer gives the first word but it should be the last word"


def test_what_the_pocket_model_says_of_a_part_that_is_right_is_its_adapters_business(scripted):
    critic = pg.lm.FunctionLM(lambda messages: IT_IS_RIGHT, "pocket", adapter="pocket")
    model = nn.Predict("text -> answer", instruction="give the first word").to(
        scripted(lambda text: {"answer": "apple"}, name="worker")
    )
    examples = [Example(text="apple cat", answer="cat").with_inputs("text")]
    report = nn.MetricLoss(exact_match, critic=critic)(model.map(examples), examples).backward()
    assert report.calls == 1
    assert model.instruction.grad is None
