"""Criteria, judges and critics are modules, and pass the suite of modules."""

from functools import cache

import pytest

import promptgrad as pg
from promptgrad import lm, nn
from promptgrad.autograd import Critique, Gradient, NodeFailure, Target, TraceFailure
from promptgrad.testing import Fields
from promptgrad.testing.modules import ModuleContract

QA = "question -> answer"
ROW = pg.Example(question="Which town is the capital of France?", answer="Paris").with_inputs("question")


def said(answer="Rome"):
    return nn.Prediction({"answer": answer})


class CriterionContract(ModuleContract):
    calls = 0

    def inputs(self):
        return {"outputs": [said("Paris"), said()], "examples": [ROW, ROW]}

    def comparable(self, output):
        return [(row.score, row.feedback, str(row.error)) for row in output.rows]


class TestMetricLoss(CriterionContract):
    def make(self):
        return nn.MetricLoss(pg.metrics.exact_match)


class TestMetricLossOfAJudge(CriterionContract):
    calls = 2
    fails = False  # an answer that the judge did not judge is an error row

    def answers(self):
        return {"feedback": "It is not brief.", "score": "0.5"}

    def make(self):
        return nn.MetricLoss(nn.Judge("It is brief."))


class TestJudgeLoss(TestMetricLossOfAJudge):
    def make(self):
        return nn.JudgeLoss("It is brief.")


@cache
def batch():
    """What a program with an assertion answered, with what was recorded of it."""

    class Brief(nn.Module):
        def __init__(self):
            super().__init__()
            self.answer = nn.Predict(QA)

        def forward(self, question):
            output = self.answer(question=question)
            nn.Suggest(len(output.answer) < 3, "brief", output)
            return output

    return Brief().to(lm.FunctionLM(Fields(answer="Rome"), name="m")).map([ROW, ROW])


class TestAuxLoss(CriterionContract):
    def inputs(self):
        return {"outputs": batch(), "examples": [ROW, ROW]}

    def make(self):
        return nn.AuxLoss("answer", pg.metrics.exact_match)


class TestCheckLoss(CriterionContract):
    def inputs(self):
        return {"outputs": batch(), "examples": [ROW, ROW]}

    def make(self):
        return nn.CheckLoss()


@cache
def program():
    """A program of one module on a tiny local model."""
    from tests.lm.conftest import make_model, make_tokenizer

    local = lm.Local(make_model(), make_tokenizer(), name="tiny", max_tokens=4, constrain=False).requires_grad_()
    return nn.Predict("x -> y", instruction="w1 w2", adapter="json").to(local)


class TestNLLLoss(CriterionContract):
    def inputs(self):
        pytest.importorskip("torch")
        return {"outputs": program(), "examples": [pg.Example(x="w1 w2", y="w3").with_inputs("x")]}

    def make(self):
        return nn.NLLLoss()


class TestJudge(ModuleContract):
    def inputs(self):
        return {"example": ROW, "output": said()}

    def answers(self):
        return {"feedback": "It is not brief.", "score": "0.5"}

    def make(self):
        return nn.Judge("It is brief.")


@cache
def failure():
    """A call that failed, and the text in it that may be to blame."""
    model = nn.Predict(QA).to(lm.FunctionLM(Fields(answer="Rome"), name="m"))
    (node,) = model.map([ROW]).rows[0].tape.nodes
    target = Target("instruction", model.instruction.data, "instruction", parameter=model.instruction)
    return node, target


class TestCritic(ModuleContract):
    def inputs(self):
        node, target = failure()
        return {"failure": NodeFailure(node, ROW, ("it is wrong",), (target,))}

    def answers(self):
        return {"critique": "Ask for France.", "to_blame": "true"}

    def make(self):
        return nn.Critic()


class TestJointCritic(ModuleContract):
    def inputs(self):
        node, target = failure()
        return {"group": [TraceFailure(ROW, ("it is wrong",), (node,), (), {}, (target,))]}

    def answers(self):
        found = '[{"runs": [1], "parameter": "instruction", "critique": "Ask for France.", "to_blame": true}]'
        return {"findings": found}

    def make(self):
        return nn.JointCritic()


class TestGrouper(ModuleContract):
    def inputs(self):
        texts = ("Say it in one word.", "Answer with the name of the town alone.")
        return {
            "gradient": Gradient(
                [Critique(f"e{number}", "answer", 0, "instruction", text) for number, text in enumerate(texts)]
            )
        }

    def answers(self):
        return {"groups": "[[1, 2]]"}

    def make(self):
        return nn.Grouper()
