"""`Judge` and `JudgeLoss`: a language model scores by a rubric, and says why."""

import pytest

import promptgrad as pg
from promptgrad import nn, optim
from promptgrad.data import Example
from promptgrad.errors import LMTimeoutError, MetricError, NoLMError, ReplayError
from promptgrad.testing import Fields


class Echo(nn.Module):
    def __init__(self):
        super().__init__()
        self.step = nn.Predict("question -> answer")

    def forward(self, question):
        return self.step(question=question)


class Blames:
    async def critique(self, failure):
        return {target.name: f"{target.name} of {failure.example.question}" for target in failure.targets}


def examples(*pairs):
    return [Example(question=q, answer=a).with_inputs("question") for q, a in pairs]


@pytest.fixture
def program(scripted):
    return Echo().to(scripted(lambda question: {"answer": question}))


def judge_lm(scripted, **extra):
    def answer(inputs, outputs, reference=None):
        polite = "please" in outputs
        return {"feedback": "say please" if not polite else "nothing", "score": "1" if polite else "0.25"}

    return scripted(answer, name="judge", **extra)


def test_a_judge_scores_by_its_rubric(program, scripted):
    judge = judge_lm(scripted)
    criterion = nn.JudgeLoss("The answer is polite.", lm=judge, critic=Blames())
    batch = examples(("please", "X"), ("b", "Y"))
    loss = criterion(program.map(batch), batch)
    assert loss.items == (0.0, 0.75)
    assert loss.rows[1].feedback == "say please"
    assert len(judge.asked) == 2
    prompt = judge.asked[0].messages
    assert "The answer is polite." in prompt[0].content
    assert '{"answer":"X"}' in prompt[-1].content
    loss.backward()
    assert program.step.instruction.grad.critiques[0].evidence["feedback"] == ("say please",)


def test_labels_are_hidden_on_request(program, scripted):
    judge = judge_lm(scripted)
    batch = examples(("b", "Y"))
    nn.JudgeLoss("Be polite.", lm=judge, labels=False)(program.map(batch), batch)
    text = "".join(message.content for message in judge.asked[0].messages)
    assert "reference" not in text
    assert "Y" not in text.partition("[[ ## inputs ## ]]")[2]


def test_a_judge_is_a_metric_of_its_own(scripted):
    judge = nn.Judge("Be polite.", lm=judge_lm(scripted), labels=False)
    score = judge({"question": "a"}, "please sit")
    assert (score.value, score.feedback) == (1.0, "nothing")
    assert nn.MetricLoss(judge)(["please"], [{"question": "a"}]).item() == 0.0


@pytest.mark.parametrize("rubric", ["  ", "", None, {}, {"polite": " "}, {"polite": 1}])
def test_a_rubric_is_words(rubric):
    with pytest.raises(TypeError, match="a rubric is a text, or a mapping from criteria to texts, not"):
        nn.JudgeLoss(rubric)


@pytest.mark.parametrize("name", ["very polite", "no-name", 3])
def test_a_criterion_has_a_name(name):
    with pytest.raises(ValueError, match="the name of a criterion is a word, such as 'polite', not "):
        nn.Judge({name: "Be polite."})


def test_several_criteria_are_one_call_with_a_score_each():
    asked = []

    def lm(messages):
        asked.append(messages)
        return Fields(score_polite="0.5", score_brief="1", feedback="say please")(messages)

    judge = nn.Judge({"polite": "It is polite.", "brief": "It is one sentence."}, lm=pg.lm.FunctionLM(lm))
    score = judge({"question": "a"}, "sit")
    assert (score.value, score.parts, score.feedback) == (0.75, {"polite": 0.5, "brief": 1.0}, "say please")
    assert len(asked) == 1
    told = asked[0][0].content
    assert "- `score_polite`: It is polite.\n- `score_brief`: It is one sentence." in told
    loss = nn.MetricLoss(judge)("sit", {"question": "a"})
    assert (loss.item(), loss.rows[0].feedback) == (0.25, "say please")
    report = pg.evaluate(lambda question: "sit", examples(("a", "x")), judge)
    assert report.rows[0].parts == {"polite": 0.5, "brief": 1.0}


def test_a_judge_that_fails_on_a_row_makes_an_error_row(program, scripted):
    def answer(inputs, outputs, reference=None):
        if "down" in outputs:
            raise LMTimeoutError("no answer")
        return {"feedback": "x", "score": "7" if "odd" in outputs else "0.5"}

    batch = examples(("down", "X"), ("odd", "X"), ("b", "X"))
    loss = nn.JudgeLoss("Be polite.", lm=scripted(answer), critic=Blames())(program.map(batch), batch)
    assert loss.item() == 0.5
    assert [type(row.error) for row in loss.rows] == [MetricError, MetricError, type(None)]
    report = loss.backward()
    assert [skip.reason.partition(":")[0] for skip in report.skipped] == ["no score", "no score"]
    assert report.calls == 1
    assert [critique.text for critique in program.step.instruction.grad.critiques] == ["instruction of b"]


def test_a_judge_that_fails_on_every_row_is_told(program, scripted):
    batch = examples(("a", "A"), ("b", "B"))
    criterion = nn.JudgeLoss("Be polite.", lm=scripted(lambda **_: {"feedback": "x", "score": "7"}))
    with pytest.raises(MetricError, match="does not parse"):
        criterion(program.map(batch), batch)
    loss = criterion(program.map(batch[:1]), batch[:1])  # a loop over batches of one goes on
    assert "does not parse" in str(loss.errors[0].error)
    assert "no score" in loss.backward().skipped[0].reason
    with pytest.raises(NoLMError):
        nn.JudgeLoss("Be polite.")(program.map(batch), batch)


def test_the_rubric_is_a_visible_parameter_frozen_until_it_is_trained():
    lm = pg.lm.FunctionLM(
        Fields(
            score=lambda inputs: "1" if "names a source" in inputs["outputs"] else "0.5",
            feedback="fine",
            critique="a text without a source is not half good: give it 0",
            new_instruction="Score 0 what names no source.",
        )
    )
    criterion = nn.JudgeLoss("It names a source.", lm=lm)
    names = dict(criterion.named_parameters())
    assert "It names a source." in names["judge.predict.instruction"].data
    assert not any(parameter.requires_grad for parameter in names.values())

    judge = criterion.judge.predict.requires_grad_()
    scored = [
        Example(inputs={"q": "a"}, outputs={"text": text}, reference={}, score=score).with_inputs(
            "inputs", "outputs", "reference"
        )
        for text, score in (("it names a source", 1.0), ("it is so", 0.0))
    ]
    agrees = nn.MetricLoss(pg.metrics.numeric_match, critic=lm)
    loss = agrees(judge.map(scored), scored)
    assert loss.items == (0, 1)
    assert loss.backward().calls == 1
    optim.TGD(judge.parameters(), lm=lm).step()
    assert criterion.judge.predict.instruction.data == "Score 0 what names no source."
    assert criterion.judge.predict.render(inputs={}, outputs={}, reference={})[0]["content"].startswith("Score 0")


def test_judging_under_a_trained_rubric_does_not_blame_the_judge(program, scripted):
    criterion = nn.JudgeLoss("The answer is polite.", lm=judge_lm(scripted), critic=Blames())
    criterion.requires_grad_()
    batch = examples(("b", "Y"))
    criterion(program.map(batch), batch).backward()
    assert program.step.instruction.grad
    assert criterion.judge.predict.instruction.grad is None


def test_a_reply_that_is_not_on_record_is_not_taken_for_a_judge_without_a_model(program):
    def unknown(messages):
        raise ReplayError("the cassette does not hold the reply")

    batch = examples(("please", "X"))
    with pytest.raises(ReplayError, match="does not hold"):
        nn.JudgeLoss("The answer is polite.", lm=pg.lm.FunctionLM(unknown))(program.map(batch), batch)
